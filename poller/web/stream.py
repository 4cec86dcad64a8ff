"""Server-sent events: the event log from a place on, for as long as its reader listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final, Protocol

from poller.events.cloudevents import structured
from poller.operations.log import Batch
from state.records import Event, EventQuery

BATCH: Final = 200  # events of a stream read at once
LOOK_AGAIN: Final = 1.0  # seconds: what others write into the log wakes nobody


class News(Protocol):
    """What a stream must know of the program that it is a part of."""

    heartbeat: float  # seconds after which a silent stream says that it is alive

    @property
    def news(self) -> asyncio.Event:
        """Is set at the next news."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether streams end now."""
        ...

    def streaming(self) -> contextlib.AbstractContextManager[None]:
        """Count one more stream while the block runs."""
        ...


async def stream(
    program: News,
    read: Callable[[EventQuery, int], Awaitable[Batch]],
    query: EventQuery,
    is_closing: Callable[[], bool],
) -> AsyncIterator[bytes]:
    """Messages with the events after `query.after`, until the listener closes; a comment after a silence.

    Nothing is queued for a reader: what it has not taken yet is still in the log, and read once it has room.
    """
    loop = asyncio.get_running_loop()
    spoke = loop.time()
    with program.streaming():
        yield b"retry: 2000\n: here\n\n"
        while not (program.is_closing or is_closing()):
            news = program.news
            batch = await read(query, BATCH)
            query = replace(query, after=batch.next)
            for event in batch.events:
                yield _message(batch.log_id, event)
                spoke = loop.time()
            if batch.is_full:
                continue
            if loop.time() - spoke >= program.heartbeat:
                yield b": alive\n\n"
                spoke = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(LOOK_AGAIN, program.heartbeat))


def _message(log_id: str, event: Event) -> bytes:
    data = structured(event).replace(b"\r", b"").replace(b"\n", b"\ndata: ")
    return b"id: %s-%d\ndata: %s\n\n" % (log_id.encode(), event.seq, data)
