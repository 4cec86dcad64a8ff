"""What all routes share: the app, a way to look at the state without holding up the event loop, and news."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Concatenate, ParamSpec, TypeVar

from fastapi import Depends, Request

from poller.app import App
from poller.operations.gathering import Live, status
from poller.operations.live import live_of, plan_of
from poller.operations.status import Status
from poller.planner.report import Report, WhatIf
from state.errors import PollerError, StateError
from state.open import connect_reader
from state.store import Reader as Reader

P = ParamSpec("P")
T = TypeVar("T")

READERS = 2  # looks at the state at the same time
HEARTBEAT = 15.0  # seconds after which a silent stream says that it is alive
STREAMS = 64  # open at the same time
PLAN_KEPT = 2.0  # seconds: asking the planners of many units takes a while, on the loop that polls


class Busy(PollerError):
    """Too much is asked for at the same time."""


class WebContext:
    """One app as the HTTP side sees it. Use as a context manager; its stop ends what waits for news."""

    def __init__(self, app: App, stop: asyncio.Event, *, heartbeat: float = HEARTBEAT) -> None:
        self.app = app
        self.stop = stop
        self.heartbeat = heartbeat
        self.ready = False
        self.closing = False
        self._news = asyncio.Event()
        self._threads = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="reader")
        self._readers: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        self._plan: tuple[float, Report] | None = None
        self._streams = 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[WebContext]:
        """Open the readers and hear of what is recorded. Raises StateError."""
        path = self.app.config.poller.state
        opened: list[Reader] = []
        self.app.deliverer.ears.append(self.ring)
        try:
            for _ in range(READERS):
                opened.append(connect_reader(path))
                self._readers.put(opened[-1])
            yield self
        finally:
            self.app.deliverer.ears.remove(self.ring)
            self.ring()
            self._threads.shutdown(wait=True)
            for reader in opened:
                reader.close()

    async def look(self, step: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read in a thread, on a read-only connection. Raises StateError."""

        def read() -> T:
            reader = self._readers.get()
            try:
                return step(reader, *args, **kwargs)
            except sqlite3.Error as error:
                raise StateError(f"the state cannot be read: {error}") from error
            finally:
                self._readers.put(reader)

        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    @property
    def is_closing(self) -> bool:
        """Whether what goes on without end has to end now."""
        return self.closing or self.stop.is_set()

    def live(self) -> Live:
        """What only the running program knows."""
        return live_of(self.app, self.plan())

    def plan(self, what_if: WhatIf | None = None) -> Report:
        """What the planners expect, at most two seconds old; what changes would bring is asked anew."""
        if what_if is not None:
            return plan_of(self.app, what_if)
        now = time.monotonic()
        if self._plan is None or now - self._plan[0] > PLAN_KEPT:
            self._plan = now, plan_of(self.app)
        return self._plan[1]

    def may_stream(self) -> None:
        """Raise Busy where enough streams are open."""
        if self._streams >= STREAMS:
            raise Busy(f"{STREAMS} streams are open already", hint="close one, or read /api/v1/events page by page")

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Count one more stream."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def status(self) -> Status:
        """The whole status."""
        return await self.look(status, self.app.config, now=self.app.clock.now(), live=self.live())

    def ring(self) -> None:
        """There may be news: wake all who wait for them."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def news(self) -> asyncio.Event:
        """Is set at the next news. Take it before looking, so that none slips through between look and wait."""
        return self._news


async def _context_of(request: Request) -> WebContext:
    context: WebContext = request.app.state.context
    return context


Context = Annotated[WebContext, Depends(_context_of)]  # a route's first parameter
