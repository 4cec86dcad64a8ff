"""Events for those who fetch them: page by page under a number, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from poller.events.cloudevents import structured
from poller.web.context import Site
from state.errors import PollerError
from state.records import Event
from state.sqlite.store import Reader

BATCH = 200  # events of a stream read at once
LOOK_AGAIN = 1.0  # seconds: what others write into the log rings no bell


class BadCursor(PollerError):
    """What was sent is no place in a log."""


class OtherLog(PollerError):
    """A place in another log: this one was restored or begun anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events are asked for."""

    type_glob: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some events, and the number behind which to go on."""

    events: tuple[Event, ...]
    next: int
    log_id: str


def read_batch(reader: Reader, after: int, limit: int, wanted: Wanted) -> Batch:
    """The next events; `next` steps over those that are not wanted."""
    last = reader.log.last_seq()  # before the events: what comes in between is not stepped over
    events = reader.log.read(after=after, limit=limit, type_glob=wanted.type_glob, source=wanted.source)
    next_ = events[-1].seq if len(events) == limit else max([last, after, *(event.seq for event in events[-1:])])
    return Batch(events=tuple(events), next=next_, log_id=reader.log.id)


def place(reader: Reader, cursor: str | None, *, default: int | None) -> int:
    """The number that a cursor means: `SEQ`, or `LOGID-SEQ` as streams give it; `default` None is the log's end.

    Raises BadCursor, and OtherLog where the cursor cannot be of this log.
    """
    last = reader.log.last_seq()
    if cursor is None or cursor == "":
        return last if default is None else default
    log_id, _, number = cursor.rpartition("-")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise BadCursor(
            f"{cursor[:60]!r} is no place in the log", hint="a sequence number, or the id of a stream's event"
        )
    if (log_id and log_id != reader.log.id) or int(number) > last:
        raise OtherLog(
            f"{cursor[:60]} is a place in another log: this one is {reader.log.id} and ends at {last}",
            hint="the state was restored or begun anew: read it from the beginning (after=0), or from its end",
        )
    return int(number)


async def stream(site: Site, after: int, wanted: Wanted) -> AsyncIterator[bytes]:
    """Server-sent events from a place on, until the program stops; a comment when nothing happened for a while."""
    yield b"retry: 2000\n: here\n\n"
    loop = asyncio.get_running_loop()
    spoke = loop.time()
    while not site.is_closing:
        news = site.news
        batch = await site.look(read_batch, after, BATCH, wanted)
        after = batch.next
        if batch.events:
            yield b"".join(_message(batch.log_id, event) for event in batch.events)
            spoke = loop.time()
        if len(batch.events) == BATCH:
            continue
        if loop.time() - spoke >= site.heartbeat:
            yield b": alive\n\n"
            spoke = loop.time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), min(LOOK_AGAIN, site.heartbeat))


def _message(log_id: str, event: Event) -> bytes:
    data = structured(event).replace(b"\r", b"").replace(b"\n", b"\ndata: ")
    return b"id: %s-%d\ndata: %s\n\n" % (log_id.encode(), event.seq, data)
