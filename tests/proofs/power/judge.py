"""Judges a state that is left after a power loss: by what others had been told before."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from poller.app import App
from poller.clock import SystemClock, VirtualClock
from poller.operations.commands import execute
from poller.testing import Poller
from state.errors import PollerError
from state.open import Inline, open_reader
from state.polls import Presence
from state.records import Event
from tests.proofs.power.disk import Image
from tests.proofs.power.run import (
    STATE,
    Called,
    Commanded,
    Forgetting,
    Mark,
    Recording,
    Shown,
    Told,
    opened,
    plugins_with,
    shown,
)

SWEEPS: Final = 3  # after which everything must be known again
LATER: Final = 3600.0  # seconds that the power was away
CLOSE: Final = 0.1  # seconds between a call's time and the clock's anchor that is saved with it
BUDGET: Final = "shop"
SUBSCRIPTIONS: Final = ("box", "paused")


@dataclass(slots=True)
class Promises:
    """What others have been told so far, and must never be otherwise."""

    calls: int = 0
    events: dict[int, Told] = field(default_factory=dict)  # by number
    forgotten_before: float = 0.0  # events from before that time may be gone
    shown: Shown | None = None
    commanded: dict[str, str | None] = field(default_factory=dict)  # by subject; None: either way

    def add(self, mark: Mark) -> None:
        """Somebody was told something."""
        match mark:
            case Called():
                self.calls += 1
            case Told() if mark.time >= self.forgotten_before:
                self.events[mark.seq] = mark
            case Forgetting():
                self._forget(mark.before)
            case Shown():
                self.shown = mark
            case Commanded():
                self.commanded[mark.subject] = mark.outcome

    def _forget(self, before: float) -> None:
        """Expect nothing of old events, nor that a subscription that was not given some of them is as it was."""
        self.forgotten_before = before
        self.events = {seq: told for seq, told in self.events.items() if told.time >= before}
        self.commanded |= dict.fromkeys(SUBSCRIPTIONS)
        if self.shown is not None:
            self.shown = replace(self.shown, ended=frozenset())


class Bench:
    """Where images of a disk are put and opened by the program."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        self._folder = folder
        self._api = recording.api
        self._now = recording.ended + LATER
        self._got: list[Event] = []
        self._plugins = plugins_with(self._got.append, None)

    async def faults(self, image: Image, promises: Promises, *, goes_on: bool) -> list[str]:
        """Open what is left by the program, and return what breaks a promise. Where it `goes_on`, it is also run."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        for name, content in image.items():
            (self._folder / name).write_bytes(content)
        self._got.clear()
        clock = VirtualClock(self._now)
        try:
            async with opened(self._folder, self._plugins, self._api, clock=clock, runner=Inline()) as app:
                found = [*self._broken(promises)]
                if goes_on and not found:
                    found += [fault async for fault in self._gone_on(app, clock)]
        except PollerError as error:
            return [f"it cannot be opened: {error}"]
        return found

    def _broken(self, promises: Promises) -> Iterator[str]:
        with open_reader(self._folder / STATE) as reader:
            events = {event.seq: event for event in reader.log.read(limit=1_000_000)}
            ledgers = reader.deliveries.ledger()
            spent = reader.sums.calls(BUDGET, since=0.0)
            anchor = reader.sums.anchor()
            # It is failing while the receiver is, whatever was commanded.
            states = {one.name: one.state.replace("failing", "active") for one in reader.deliveries.subscriptions()}
            rows = reader.polls.endpoints()
            held = {row["endpoint"]: "held" if row["held"] else "released" for row in rows}
        yield from self._damage()
        yield from _forgotten(events, promises)
        yield from _gaps(events)
        yield from (f"the ledger of {one.subscription} does not balance" for one in ledgers if not one.balanced)
        if len(spent) < promises.calls:
            yield f"{promises.calls} calls have left, and {len(spent)} of them are known"
        if anchor is not None and _restarted(anchor) < max(sent for sent, _ in spent) - CLOSE:
            yield "after a boot with a wrong wall clock, time goes on before the latest call"
        for subject, outcome in promises.commanded.items():
            if outcome is not None and {**states, **held}.get(subject) != outcome:
                yield f"{subject} was {outcome}, and is {({**states, **held}).get(subject)}"
        if promises.shown is not None:
            yield from self._unshown(promises.shown)

    def _damage(self) -> Iterator[str]:
        with contextlib.closing(sqlite3.connect(self._folder / STATE)) as conn:
            found = [row[0] for row in conn.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            yield f"the file is damaged: {found}"

    def _unshown(self, before: Shown) -> Iterator[str]:
        now = shown(self._folder / STATE)
        if now.last_seq < before.last_seq:
            yield f"event {before.last_seq} was shown, and the log ends with {now.last_seq}"
        if lost := before.ended - now.ended:
            yield f"{len(lost)} deliveries were shown as over, and are not: {sorted(lost)[:3]}"
        swept = dict(now.sweeps)
        for endpoint, at in before.sweeps:
            if swept.get(endpoint, 0.0) < at:
                yield f"the sweep of {endpoint} that ended at {at} was shown, and the latest is {swept.get(endpoint)}"

    async def _gone_on(self, app: App, clock: VirtualClock) -> AsyncIterator[str]:
        """Let it poll and deliver until it knows everything."""
        poller = Poller(app, clock)
        for name in SUBSCRIPTIONS:  # one is paused, or disabled because events were dropped
            await execute(app, "resume", {"subscription": name})
        with contextlib.suppress(PollerError):  # it is not held
            await execute(app, "release", {"endpoint": "shop/others"})
        for _ in range(SWEEPS):
            await poller.sweep()
        for fault in [*_gaps({one.seq: one for one in poller.events}), *self._unknown(app, poller.events)]:
            yield fault
        waiting = [f"{one.id} of {one.subscription}" for one in poller.deliveries if one.state == "pending"]
        if waiting:
            yield f"{len(waiting)} deliveries still wait: {', '.join(waiting[:5])}"
        for one in app.store.delivery_reader.subscriptions():
            if one.state != "active" or one.lag:
                yield f"{one.name} is {one.state} ({one.reason}), and was not given {one.lag} events"

    def _unknown(self, app: App, events: list[Event]) -> Iterator[str]:
        """What the log tells of the API and what is known of it, where it is otherwise."""
        told: dict[str, Any] = {}
        for event in events:
            if event.subject.startswith("things/"):
                told[event.subject] = None if event.type.endswith(".deleted") else event.data["object"]
                if event.data["object"] not in self._api.history[event.subject]:
                    yield f"#{event.seq} of {event.subject} never was"
        for subject, states in list(self._api.history.items()):
            snapshot = app.store.poll_reader.object("shop", "things", subject.partition("/")[2])
            is_there = snapshot is not None and snapshot.presence is not Presence.DELETED
            known = msgspec.json.decode(snapshot.body) if snapshot is not None and is_there else None
            if known != states[-1] or told.get(subject, known) != known:
                yield f"{subject} is {states[-1]}, known as {known} and told as {told.get(subject)}"


def _restarted(anchor: str) -> float:
    """Steady time after a boot at which the machine believes that it is 1970."""
    return SystemClock.resume(anchor, wall=lambda: 0.0, boot="another boot").steady()


def _forgotten(events: dict[int, Event], promises: Promises) -> Iterator[str]:
    for seq, told in promises.events.items():
        event = events.get(seq)
        if event is None:
            yield f"event {seq} was told and is forgotten"
        elif (event.id, event.raw) != (told.id, told.raw):
            yield f"event {seq} was told as {told.id} and is {event.id}"


def _gaps(events: dict[int, Event]) -> Iterator[str]:
    """Where versions do not follow one after the other; the first ones may be forgotten."""
    versions: dict[tuple[str, str], int] = {}
    for _, event in sorted(events.items()):
        key, version = (event.source, event.subject), event.data["version"]
        if key in versions and version != versions[key] + 1:
            yield f"#{event.seq} of {event.subject} has version {version}, after {versions[key]}"
        versions[key] = version
