"""Tasks of a budget: the running pieces of work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from state.errors import LeaseLost

log = structlog.get_logger("poller")


class Tasks:
    """The tasks of one budget. `ended` is called after each."""

    def __init__(self, budget: str, *, ended: Callable[[], None]) -> None:
        self.begun = 0
        self.failure: BaseException | None = None  # an exception of one of them, which is an error of Poller
        self.is_over = False  # no more work is begun
        self._budget = budget
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Begin a piece of work."""
        self.begun += 1
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def lose(self, lost: LeaseLost) -> None:
        """Begin no more work, because another worker owns the budget now."""
        if not self.is_over:
            log.warning("budget.lease_lost", budget=self._budget, error=str(lost))
        self.is_over = True

    async def finish(self, seconds: float) -> None:
        """Begin no more work; let running work end within that time, then cancel it."""
        self.is_over = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LeaseLost):
            self.lose(error)
        elif error is not None:
            self.failure = error
        self._ended()
