"""The daemon's timers: regular jobs, and budgets that are woken when they may make calls.

They count elapsed seconds rather than wall-clock times, so setting the clock neither delays nor repeats anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from poller.clock import Clock
from poller.polling.loop import PollLoop
from state.errors import PollerError, Unavailable

LOOK_AGAIN: Final = 60.0  # seconds after which a budget is woken in any case
SHORTEST: Final = 0.001  # shortest time between two wakes of a budget

log = structlog.get_logger("poller")


class Timers:
    """Jobs and budgets, each in a separate task. `may_run` says whether jobs may run now."""

    def __init__(self, clock: Clock, *, may_run: Callable[[], bool]) -> None:
        self._clock = clock
        self._may_run = may_run
        self._jobs: list[asyncio.Task[None]] = []
        self._drains: list[asyncio.Task[None]] = []

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` every so many seconds from now on. Its exceptions are logged and end nothing."""
        self._jobs.append(asyncio.create_task(self._repeat(seconds, name, work), name=name))

    def wake(self, loops: Iterable[PollLoop]) -> None:
        """Wake these budgets from now on, each when it may make calls, and stop waking the previous ones."""
        for drain in self._drains:
            drain.cancel()
        self._drains = []
        self.add(loops)

    def add(self, loops: Iterable[PollLoop]) -> None:
        """Wake these budgets as well, until they are over."""
        self._drains = [drain for drain in self._drains if not drain.done() or drain.cancelled() or drain.exception()]
        self._drains += [
            asyncio.create_task(self._drain(poll_loop), name=f"budget {poll_loop.name}") for poll_loop in loops
        ]

    def raise_failures(self) -> None:
        """Raise the exception that has ended the waking of a budget, unless it is an outage of the state."""
        for drain in self._drains:
            error = drain.exception() if drain.done() and not drain.cancelled() else None
            if error is not None and not isinstance(error, Unavailable):
                raise error

    async def close(self) -> None:
        """End all tasks."""
        tasks = [*self._jobs, *self._drains]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        failed: str | None = None
        while True:
            await asyncio.sleep(seconds)
            if not self._may_run():
                continue
            try:
                await work()
                failed = None
            except Unavailable:
                continue  # outages are handled elsewhere
            except PollerError as error:
                if failed != repr(error):  # once, not at every run
                    log.error("job.failed", job=name, error=str(error), hint=error.hint)
                failed = repr(error)
            except Exception as error:  # one job's failure is logged and does not end the others
                if failed != repr(error):
                    log.error("job.failed", job=name, exc_info=error)
                failed = repr(error)

    async def _drain(self, poll_loop: PollLoop) -> None:
        due = asyncio.Event()
        poll_loop.poke = due.set
        while not poll_loop.tasks.is_over:
            seconds = min(poll_loop.next_at() - self._clock.steady(), LOOK_AGAIN)
            if seconds > 0 or not due.is_set():
                await _wait(due, max(seconds, SHORTEST))
            due.clear()
            await poll_loop.wake()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, at most so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
