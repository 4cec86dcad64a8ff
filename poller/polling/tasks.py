"""Tasks of a budget: the pieces of work that were begun and have not ended."""

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
        self.failure: BaseException | None = None  # what one of them raised: an error of this program
        self.is_over = False  # nothing more is begun
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
        """Begin nothing more: another worker owns the budget by now."""
        if not self.is_over:
            log.warning("budget.lease_lost", budget=self._budget, error=str(lost))
        self.is_over = True

    async def finish(self, seconds: float) -> None:
        """Begin nothing more; let what is under way end within that time, then cancel it."""
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
