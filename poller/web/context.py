"""What all routes share: the program, readers of the state off the event loop, and a signal for news."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from poller.operations.program import Answer, Live, Program
from poller.operations.status import Status
from poller.planner.report import Report, WhatIf
from state.errors import PollerError, StateError
from state.open import connect_reader
from state.store import Reader as Reader
from state.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

READERS = 2  # concurrent reads of the state
HEARTBEAT = 15.0  # seconds after which a silent stream sends a comment
STREAMS = 64  # open at the same time
PLAN_KEPT = 2.0  # seconds: computing the plan of many units takes a while, on the loop that polls


class Busy(PollerError):
    """Too many requests at the same time."""


class WebContext:
    """The running program as the HTTP side sees it. `stop` ends everything that waits for news."""

    def __init__(self, program: Program, stop: asyncio.Event, *, heartbeat: float = HEARTBEAT) -> None:
        self.program = program
        self.stop = stop
        self.heartbeat = heartbeat
        self.ready = False
        self.closing = False
        self._news = asyncio.Event()
        self._threads = Threads(READERS, "reader")
        self._readers: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        self._plan: tuple[float, Report] | None = None
        self._streams = 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[WebContext]:
        """Open the readers and subscribe to recorded events. Raises StateError."""
        path = self.program.config.poller.state
        opened: list[Reader] = []
        self.program.subscribe(self.ring)
        try:
            for _ in range(READERS):
                opened.append(connect_reader(path))
                self._readers.put(opened[-1])
            self.program.delays.begin(opened[0].log.last_seq())
            yield self
        finally:
            self.program.unsubscribe(self.ring)
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
        """Whether endless answers must end now."""
        return self.closing or self.stop.is_set()

    def live(self) -> Live:
        """What only the running program knows."""
        return self.program.live(self.plan())

    def plan(self, what_if: WhatIf | None = None) -> Report:
        """The current plan, at most two seconds old; hypothetical plans are computed each time."""
        if what_if is not None:
            return self.program.plan(what_if)
        now = time.monotonic()
        if self._plan is None or now - self._plan[0] > PLAN_KEPT:
            self._plan = now, self.program.plan()
        return self._plan[1]

    def may_stream(self) -> None:
        """Raise Busy if enough streams are open."""
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
        return await self.look(self.program.status, self.live())

    async def execute(self, name: str, /, **args: Any) -> Answer:
        """Execute a command. Raises PollerError."""
        return await self.program.execute(name, args)

    def ring(self) -> None:
        """Wake everything that waits for news."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def news(self) -> asyncio.Event:
        """An event that is set at the next news. Take it before reading, so that no news is missed in between."""
        return self._news
