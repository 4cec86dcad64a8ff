"""Receivers that begin an answer and never end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def endless(start: bytes, more: bytes = b"x" * 65536) -> AsyncIterator[str]:
    """Begins with `start` and goes on with `more` for as long as it is read; without `more` it says nothing else.

    Gives HOST:PORT.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            writer.write(start)
            while more:
                writer.write(more)
                await writer.drain()
            await reader.read()  # until they hang up
        writer.close()

    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(
        lambda reader, writer: tasks.add(asyncio.ensure_future(serve(reader, writer))), "127.0.0.1", 0
    )
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
