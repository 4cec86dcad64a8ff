"""Runs the steps of a database, each on a thread with its own connection, in the order that leases require."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import psycopg

from state.errors import LeaseLost, StateError, Unavailable
from state.leases import Lease
from state.postgres.failures import AGAIN, translated
from state.threads import Threads

THREADS: Final = 4  # connections that write, of one worker
URGENT: Final = 2  # connections for leases: one renews them while the other looks for free ones
TRIES: Final = 5  # attempts of a step that failed because of another one, for example by a deadlock

R = TypeVar("R")


class UnderWay:
    """The steps under way of one session."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.is_over = False  # no further step is run, not even one that waits


class StepRunner:
    """Runs steps, and knows whether the state can be written. Steps under one lease keep their order."""

    def __init__(self, threads: int = THREADS) -> None:
        self.outage: Unavailable | None = None  # why the state cannot be written
        self.failing = asyncio.Event()  # set when an outage has begun
        self._threads = Threads(threads, "store")
        self._urgent = Threads(URGENT, "leases")
        self._turns: dict[str, asyncio.Lock] = {}  # by lease
        self._ending: set[asyncio.Task[Any]] = set()  # steps under way of sessions that are over

    async def run(self, call: partial[R], session: UnderWay | None = None) -> R:
        """Run one step to its end, even if nobody waits for it any more."""
        task = asyncio.create_task(self._do(call, session))
        if session is not None:
            session.tasks.add(task)
            task.add_done_callback(session.tasks.discard)
        return await _finished(task)

    async def run_urgently(self, call: Callable[[], R]) -> R:
        """Run one step on a connection that only such steps use."""
        if self.outage is not None:
            raise self.outage
        return await self._on(self._urgent, call)

    async def probe(self, call: Callable[[], None]) -> None:
        """Run one step in spite of an outage, which ends if the step succeeds. Raises Unavailable if it fails."""
        try:
            await _finished(asyncio.create_task(self._on(self._threads, call)))
        except Unavailable as error:  # the latest reason: a lost connection says less than what prevents a new one
            self.outage = error
            raise
        self.outage = None

    def end(self, session: UnderWay) -> None:
        """Run no further step of a session, and no step of another session before those under way have ended."""
        session.is_over = True
        self._ending |= session.tasks
        for task in session.tasks:
            task.add_done_callback(self._ending.discard)

    async def close(self, close: Callable[[], None]) -> None:
        """Run a last step, also during an outage, and end the threads."""
        await _finished(asyncio.create_task(self._on(self._threads, close)))
        self._urgent.shutdown(wait=True)
        self._threads.shutdown(wait=True)

    async def _do(self, call: partial[R], session: UnderWay | None) -> R:
        lease = next((one for one in call.args if isinstance(one, Lease)), None)
        # A step of a session that is over may be among the awaited ones: it waits for none, and is refused.
        if session is not None and self._ending and not session.is_over:
            await asyncio.wait([*self._ending])
        if lease is None:
            return await self._attempt(call, session)
        async with self._turns.setdefault(lease.name, asyncio.Lock()):
            return await self._attempt(call, session)

    async def _attempt(self, call: Callable[[], R], session: UnderWay | None) -> R:
        refused = self.outage
        if session is not None and session.is_over:
            refused = refused or Unavailable(
                "an earlier step that this one depends on is not in the state: it is read again"
            )
        if refused is not None:
            raise refused
        return await self._on(self._threads, call)

    async def _on(self, threads: Threads, call: Callable[[], R]) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, _tried, call)
        except Unavailable as error:
            self.outage = self.outage or error
            self.failing.set()
            raise


async def _finished(task: asyncio.Task[R]) -> R:
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.add_done_callback(_report)
        raise


def _tried(call: Callable[[], R]) -> R:
    """Run a step, and again if another step got in its way. Raises StateError for errors of the database."""
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
    """Log the error of a step for which nobody waits any more, unless its lease had been lost, or the state cannot be
    written, which is reported anyway.
    """
    if task.cancelled() or (error := task.exception()) is None:
        return
    if not isinstance(error, LeaseLost | Unavailable):
        told = {"message": "a step of the store failed that nobody waits for", "exception": error}
        task.get_loop().call_exception_handler(told)
