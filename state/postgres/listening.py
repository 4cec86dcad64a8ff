"""Notifications of other workers. They shorten waits that polling limits, so a lost notification does no harm."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final

import psycopg

from state.postgres.connection import connect

PREFIX: Final = "poller_"
CHANNELS: Final = (f"{PREFIX}log", f"{PREFIX}commands", f"{PREFIX}deliveries")
LOOK_EVERY: Final = 0.5  # seconds after which the thread notices that it should end
AGAIN_AFTER: Final = 1.0  # seconds after a connection was lost
ASK_AFTER: Final = 10  # looks without a notification after which the database is asked whether it is still there


class Listening:
    """A thread with a connection of its own that calls `hear`, on the event loop, at every notification."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, loop: asyncio.AbstractEventLoop, hear: Callable[[str], None]) -> None:
        """Begin to listen."""
        self._thread = threading.Thread(target=self._run, args=[loop, hear], name="listening", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop listening."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop, hear: Callable[[str], None]) -> None:
        while not self._end.is_set():
            try:
                self._listen(loop, hear)
            except psycopg.Error:  # the error is reported to the next step that writes
                self._end.wait(AGAIN_AFTER)

    def _listen(self, loop: asyncio.AbstractEventLoop, hear: Callable[[str], None]) -> None:
        with contextlib.closing(connect(self._url)) as conn, contextlib.suppress(RuntimeError):  # the loop has ended
            for channel in CHANNELS:
                conn.execute(f"LISTEN {channel}".encode())
            for channel in CHANNELS:  # what was told before is not repeated
                loop.call_soon_threadsafe(hear, channel.removeprefix(PREFIX))
            silent = 0
            while not self._end.is_set():
                silent += 1
                for news in conn.notifies(timeout=LOOK_EVERY, stop_after=1):
                    silent = 0
                    loop.call_soon_threadsafe(hear, news.channel.removeprefix(PREFIX))
                if silent == ASK_AFTER:
                    conn.run("SELECT 1")
                    silent = 0
