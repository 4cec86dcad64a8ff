"""The daemon's timers: jobs every so many seconds, and budgets woken when they may call.

They count seconds that pass, not times of the wall clock: a clock that is set back or ahead, by however much, holds up
nothing and makes nothing up for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from poller.clock import Clock
from poller.polling.loop import PollLoop
from state.errors import Unavailable

LOOK_AGAIN: Final = 60.0  # seconds after which a budget is woken though nothing asked for it
SHORTEST: Final = 0.001  # seconds between two looks at a budget that nothing has woken

log = structlog.get_logger("poller")


class Timers:
    """Jobs and budgets, each in a task of its own. `may_run`: says whether jobs are done at present."""

    def __init__(self, clock: Clock, *, may_run: Callable[[], bool]) -> None:
        self._clock = clock
        self._may_run = may_run
        self._jobs: list[asyncio.Task[None]] = []
        self._drains: list[asyncio.Task[None]] = []

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` every so many seconds from now on. What it raises is told, and ends nothing."""
        self._jobs.append(asyncio.create_task(self._repeat(seconds, name, work), name=name))

    def wake(self, loops: Iterable[PollLoop]) -> None:
        """Wake these budgets from now on, each when it may call, and those of before no more."""
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
        """Raise what has ended the waking of a budget; an outage of the state is seen through elsewhere."""
        for drain in self._drains:
            error = drain.exception() if drain.done() and not drain.cancelled() else None
            if error is not None and not isinstance(error, Unavailable):
                raise error

    async def close(self) -> None:
        """End all of them."""
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
                continue  # seen through elsewhere
            except Exception as error:  # one job's failure is told, and does not end the others
                if failed != repr(error):  # once, not at every turn
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
    """Until it is set, so many seconds at most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
