"""Sentences in the journal: each notice once, and one summary line an hour."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec
import orjson
import structlog

from poller.operations.gathering import open_reader
from poller.operations.program import Live, Program
from poller.operations.status import Status
from poller.rendering.counting import counted
from state.errors import StateError
from state.operational import SOURCE
from state.records import Event

log = structlog.get_logger("poller")

MOST: Final = 1000  # notices read at once
LOGGED: Final = ("state", "clock")  # subjects of notices that are logged elsewhere
GOOD: Final = (
    "recovered",
    "released",
    "rebaselined",
    "schema_changed",
    "ping",
)  # what a notice of a good thing ends in


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon has done up to some moment."""

    calls: int = 0
    refused: int = 0
    events: int = 0

    @classmethod
    def of(cls, live: Live, events: int) -> Count:
        """What the daemon has done so far; `events` is the latest number of the log."""
        budgets = live.budgets.values()
        return cls(calls=sum(one.calls for one in budgets), refused=sum(one.refused for one in budgets), events=events)

    def since(self, before: Count) -> Count:
        """What was added since. After a reload, calls are counted from zero."""
        return Count(
            calls=self.calls - before.calls if self.calls >= before.calls else self.calls,
            refused=self.refused - before.refused if self.refused >= before.refused else self.refused,
            events=self.events - before.events,
        )


class Journal:
    """The journal of an app: `open` it, then call `tell_notices` every few seconds and `sum_up` every hour."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._has_news = True
        self._told: int | None = None  # reported up to this number of the log; None: the log was not read yet
        self._before = Count()

    def open(self) -> None:
        """Begin to report what is recorded from now on, before anything is polled. Blocks for one read of the state."""
        self._program.subscribe(self._hear)
        with contextlib.suppress(StateError):  # then begin with the first read that succeeds
            self._new()

    def _hear(self) -> None:
        self._has_news = True

    async def tell_notices(self) -> None:
        """Log the notices recorded since the latest call. Raises StateError; they are then logged next time."""
        if not self._has_news:
            return
        self._has_news = False
        try:
            for event in await asyncio.to_thread(self._new):
                tell(event)
        except StateError:
            self._has_news = True
            raise

    def _new(self) -> Sequence[Event]:
        with open_reader(self._program.config.poller.state) as reader:
            last = reader.log.last_seq()
            if self._told is None:
                self._told, self._before = last, Count(events=last)
                return ()
            found = reader.log.read(after=self._told, limit=MOST, type_glob="poller.*")
        self._told = last if len(found) < MOST else found[-1].seq
        self._has_news |= len(found) == MOST
        return [event for event in found if event.source == SOURCE and event.subject not in LOGGED]

    async def sum_up(self) -> None:
        """Log a summary of the latest hour in one line. Raises StateError."""
        live = self._program.live()
        now = await asyncio.to_thread(self._status, live)
        count = Count.of(live, now.last_seq)
        log.info("poller.hour", summary=hour(now, count.since(self._before)))
        self._before = count

    def _status(self, live: Live) -> Status:
        with open_reader(self._program.config.poller.state) as reader:
            return self._program.status(reader, live)


def tell(event: Event) -> None:
    """Log one notice with its own sentence."""
    name = event.type.removeprefix("poller.")
    say = log.info if name.rpartition(".")[2] in GOOD else log.warning
    say(name, subject=event.subject, seq=event.seq, summary=orjson.loads(event.raw)["summary"])


def hour(status: Status, count: Count) -> str:
    """A summary of the latest hour and of the state at its end, in one line."""
    done = [counted(count.calls, "call"), counted(count.events, "event")]
    if count.refused:
        done.insert(1, f"{count.refused} of them refused with 429")
    wrong = [f"{one.label} {one.state}" for one in status.endpoints if one.state != "ok"]
    wrong += [f"subscription {one.name} {one.state}" for one in status.subscriptions if one.state != "active"]
    waiting, dead = sum(one.lag for one in status.subscriptions), sum(one.dead for one in status.subscriptions)
    standing = [f"{waiting} to deliver", counted(dead, "dead letter"), "; ".join(wrong) or "all is well"]
    return f"The latest hour: {', '.join(done)}. Now: {', '.join(standing)}."
