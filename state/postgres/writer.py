"""What runs steps: a few threads, each with a connection of its own, so that the event loop never waits.

Steps under one lease keep their order, and so do those of one session and the session after it. Others may overlap:
each is a transaction of its own, and a step that only reads sees what was committed before it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import psycopg

from state.errors import StateError, Unavailable
from state.leases import Lease
from state.postgres.failures import AGAIN, translated
from state.postgres.listening import Listening
from state.steps import P, S, T

THREADS: Final = 4  # connections that write, of one worker
TRIES: Final = 5  # of a step that another one has made impossible, as a deadlock does

R = TypeVar("R")


class Writer:
    """Steps of one store. See `state.steps.Writer`."""

    def __init__(self, url: str, *, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._urgent = ThreadPoolExecutor(1, thread_name_prefix="leases")
        self._listening = Listening(url)
        self._turns: dict[str, asyncio.Lock] = {}  # by lease
        self._ending: set[asyncio.Task[Any]] = set()  # steps under way of sessions that are over
        self._outage: Unavailable | None = None
        self._failing = asyncio.Event()

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(partial(step, *args, **kwargs))

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        return await self.run(partial(step, *args, **kwargs))

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`: a silent recording says itself that nobody waits for the disk of the database."""
        return await self.run(partial(step, *args, **kwargs))

    async def urgent(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `state.steps.Writer`: on a connection of its own."""
        if self._outage is not None:
            raise self._outage
        return await self._on(self._urgent, partial(step, *args, **kwargs))

    @property
    def outage(self) -> Unavailable | None:
        """See `state.steps.Writer`."""
        return self._outage

    async def until_outage(self) -> Unavailable:
        """See `state.steps.Writer`."""
        while (outage := self._outage) is None:
            self._failing.clear()
            await self._failing.wait()
        return outage

    async def probe(self, step: Callable[[], None]) -> None:
        """See `state.steps.Writer`."""
        await self._finished(asyncio.create_task(self._do(step, None, is_probe=True)))
        self._outage = None

    def session(self) -> Session:
        """See `state.steps.Writer`."""
        return Session(self)

    def on_news(self, hear: Callable[[str], None]) -> None:
        """See `state.steps.Writer`."""
        self._listening.begin(asyncio.get_running_loop(), hear)

    async def end(self, close: Callable[[], None]) -> None:
        """Run a last step, which closes the connections, also during an outage."""
        await asyncio.to_thread(self._listening.end)
        await self._finished(asyncio.create_task(self._do(close, None, is_probe=True)))
        self._urgent.shutdown(wait=True)
        self._threads.shutdown(wait=True)

    async def run(self, call: partial[R], session: Session | None = None) -> R:
        """Run one step, also to its end where nobody waits for it any more."""
        task = asyncio.create_task(self._do(call, session))
        if session is not None:
            session.running.add(task)
            task.add_done_callback(session.running.discard)
        return await self._finished(task)

    def wait_for(self, running: set[asyncio.Task[Any]]) -> None:
        """Begin no step of another session before these have ended."""
        self._ending |= running
        for task in running:
            task.add_done_callback(self._ending.discard)

    async def _finished(self, task: asyncio.Task[R]) -> R:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                task.add_done_callback(_report)
            raise

    async def _do(self, call: Callable[[], R], session: Session | None, *, is_probe: bool = False) -> R:
        lease = next((one for one in getattr(call, "args", ()) if isinstance(one, Lease)), None)
        if session is not None and self._ending:
            await asyncio.wait([*self._ending])
        if lease is None:
            return await self._attempt(call, session, is_probe=is_probe)
        async with self._turns.setdefault(lease.name, asyncio.Lock()):
            return await self._attempt(call, session, is_probe=is_probe)

    async def _attempt(self, call: Callable[[], R], session: Session | None, *, is_probe: bool) -> R:
        refused = self._outage if not is_probe else None
        if session is not None and session.is_over:
            refused = refused or Unavailable("what this step rests on is not in the state: it is read again")
        if refused is not None:
            raise refused
        return await self._on(self._threads, call)

    async def _on(self, threads: ThreadPoolExecutor, call: Callable[[], R]) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, _tried, call)
        except Unavailable as error:
            self._outage = self._outage or error
            self._failing.set()
            raise


def _tried(call: Callable[[], R]) -> R:
    """Run a step, again where two steps were in each other's way. Raises StateError for errors of the database."""
    for left in range(TRIES, 0, -1):
        try:
            return call()
        except psycopg.Error as error:
            if error.sqlstate in AGAIN and left > 1:
                continue
            ours = translated(error)
            if isinstance(ours, StateError):
                raise ours from error
            raise
    raise AssertionError


def _report(task: asyncio.Task[Any]) -> None:
    """Report what a step has raised for which nobody waits any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        told = {"message": "a step of the store failed that nobody waits for", "exception": error}
        task.get_loop().call_exception_handler(told)


class Session:
    """The writer as one holder of memory has it. See `state.steps.Session`."""

    def __init__(self, writer: Writer) -> None:
        self.running: set[asyncio.Task[Any]] = set()
        self.is_over = False
        self._writer = writer

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writer.run(partial(step, *args, **kwargs), self)

    async def read(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Steps`."""
        return await self._writer.run(partial(step, *args, **kwargs), self)

    async def unhurried(self, step: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> S:
        """See `Steps`."""
        return await self._writer.run(partial(step, *args, **kwargs), self)

    def close(self) -> None:
        """Refuse every further step, also those that wait; the next session begins after those under way."""
        self.is_over = True
        self._writer.wait_for(self.running)
