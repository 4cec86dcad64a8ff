"""Events as server-sent events, from a place in the log on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

from poller.events.cloudevents import structured
from poller.operations.log import read_batch
from poller.web.context import WebContext
from state.records import Event, EventQuery

BATCH: Final = 200  # events of a stream read at once
LOOK_AGAIN: Final = 1.0  # seconds: what others write into the log wakes nobody


async def stream(context: WebContext, query: EventQuery, is_closing: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Server-sent events from a place on, until the listener closes; a comment when nothing happened for a while.

    Nothing is queued for a reader: what it has not taken yet is still in the log, and read when it has.
    """
    loop = asyncio.get_running_loop()
    spoke = loop.time()
    with context.streaming():
        yield b"retry: 2000\n: here\n\n"
        while not (context.is_closing or is_closing()):
            news = context.news
            batch = await context.look(read_batch, query, BATCH)
            query = replace(query, after=batch.next)
            for event in batch.events:
                yield _message(batch.log_id, event)
                spoke = loop.time()
            if batch.is_full:
                continue
            if loop.time() - spoke >= context.heartbeat:
                yield b": alive\n\n"
                spoke = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(LOOK_AGAIN, context.heartbeat))


def _message(log_id: str, event: Event) -> bytes:
    data = structured(event).replace(b"\r", b"").replace(b"\n", b"\ndata: ")
    return b"id: %s-%d\ndata: %s\n\n" % (log_id.encode(), event.seq, data)
