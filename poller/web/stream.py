"""Server-sent events: the event log from a position on, for as long as its reader listens.

The end of the log is read once for all streams, kept in memory within bounds (`Tail`), and encoded once. A stream that
is further behind reads the log itself. Nothing is queued for a reader: events that it has not taken are still in the
tail or in the log, so a reader that takes nothing costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import lru_cache
from typing import Final, Protocol

from poller.events.cloudevents import structured
from poller.operations.log import Batch
from state.errors import StateError
from state.records import Event, EventQuery

BATCH: Final = 200  # events read at once
LOOK_AGAIN: Final = 1.0  # seconds: events written by other processes wake no stream
REST: Final = 0.05  # seconds between two reads of the log's end: events of that span are read together
CHUNK: Final = 65536  # bytes after which a stream waits until its reader has taken them
MOST: Final = 1000  # most messages of the tail
MOST_BYTES: Final = 4_000_000  # most bytes of the tail

Read = Callable[[EventQuery, int], Awaitable[Batch]]


class News(Protocol):
    """What a stream needs from the program that it is part of."""

    heartbeat: float  # seconds after which a silent stream sends a comment

    @property
    def news(self) -> asyncio.Event:
        """An event that is set at the next news."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether streams must end now."""
        ...

    def streaming(self) -> contextlib.AbstractContextManager[None]:
        """Count one more stream while the block runs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event as a message, with the attributes that filters use."""

    seq: int
    type: str
    source: str
    subject: str
    text: bytes


class Tail:
    """The end of the log, from number `first` (exclusive) to `upto`, kept while anybody reads it."""

    def __init__(self, read: Read) -> None:
        self.first = 0
        self.upto = 0
        self.is_behind = False  # there may be more to read at once
        self.read = read
        self._readers = 0
        self._messages: list[Message] = []
        self._numbers: list[int] = []  # numbers of the messages
        self._bytes = 0
        self._lock = asyncio.Lock()
        self._looked_at = 0.0  # loop time at which the latest read began
        self._next: asyncio.Event | None = None  # set at the first news since then

    @contextlib.contextmanager
    def reading(self, place: int) -> Iterator[None]:
        """Keep the tail while the block runs. The first reader begins it at its own position."""
        if self._readers == 0:
            self.first = self.upto = place
            self._forget(len(self._messages))
            self._next, self.is_behind = None, False
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    async def refresh(self, program: News) -> None:
        """Read on if there may be more: there were news since the latest read began, or it was a while ago."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if self._is_fresh(loop.time()):
                return
            if not self.is_behind:
                await asyncio.sleep(max(0.0, self._looked_at + REST - loop.time()))
            self._next, self._looked_at = program.news, loop.time()
            batch = await self.read(EventQuery(after=self.upto), BATCH)
            self.is_behind = batch.is_full
            self._take(batch)

    def _is_fresh(self, now: float) -> bool:
        had_news = self._next is None or self._next.is_set()
        return not (had_news or self.is_behind or now - self._looked_at >= LOOK_AGAIN)

    def after(self, query: EventQuery) -> tuple[list[bytes], int]:
        """About CHUNK bytes of matching messages after a position in the tail, and the position to continue from."""
        found: list[bytes] = []
        size, place = 0, query.after
        for message in self._messages[bisect_right(self._numbers, query.after) :]:
            place = message.seq
            if matches(message, query):
                found.append(message.text)
                size += len(message.text)
                if size >= CHUNK:
                    return found, place
        return found, max(place, self.upto)

    def _take(self, batch: Batch) -> None:
        for event in batch.events:
            text = message_of(batch.log_id, event)
            self._messages.append(
                Message(seq=event.seq, type=event.type, source=event.source, subject=event.subject, text=text)
            )
            self._numbers.append(event.seq)
            self._bytes += len(text)
        self.upto = max(self.upto, batch.next)
        while len(self._messages) > MOST or self._bytes > MOST_BYTES:
            self._forget((len(self._messages) + 1) // 2)

    def _forget(self, count: int) -> None:
        """Drop the oldest messages."""
        if count:
            self.first = max(self.first, self._numbers[count - 1])
            self._bytes -= sum(len(one.text) for one in self._messages[:count])
            del self._messages[:count], self._numbers[:count]


async def stream(program: News, tail: Tail, query: EventQuery, is_closing: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Messages with the events after `query.after`, until the listener closes or the log cannot be read; a comment
    after a silence.
    """
    loop = asyncio.get_running_loop()
    spoke = loop.time()
    # Where the log cannot be read the answer can only end: readers ask again from their position, and hear why.
    with program.streaming(), tail.reading(query.after), contextlib.suppress(StateError):
        yield b"retry: 2000\n: here\n\n"
        while not (program.is_closing or is_closing()):
            news = program.news
            await tail.refresh(program)
            if query.after < tail.first:
                batch = await tail.read(query, BATCH)
                found, place, more = [message_of(batch.log_id, event) for event in batch.events], batch.next, True
            else:
                found, place = tail.after(query)
                more = place < tail.upto or tail.is_behind
            query = replace(query, after=max(query.after, place))
            if found:
                yield b"".join(found)
                spoke = loop.time()
            if more:
                continue
            if loop.time() - spoke >= program.heartbeat:
                yield b": alive\n\n"
                spoke = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(LOOK_AGAIN, program.heartbeat))


def message_of(log_id: str, event: Event) -> bytes:
    """An event as a message."""
    data = structured(event).replace(b"\r", b"").replace(b"\n", b"\ndata: ")
    return b"id: %s-%d\ndata: %s\n\n" % (log_id.encode(), event.seq, data)


def matches(message: Message, query: EventQuery) -> bool:
    """Whether an event matches a query, by the same rules as the log."""
    return (
        (query.source_uri in (None, message.source))
        and (query.type_glob is None or _pattern(query.type_glob).match(message.type) is not None)
        and (query.subject is None or _pattern(query.subject).match(message.subject) is not None)
    )


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob.replace("[^", "[!")))
