"""The poll loop of one budget: wait for permission, choose, spend, send. Each answer wakes it again."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from poller.budget.budget import Budget
from poller.budget.limiter import Paused, Permit, RateLimiter
from poller.clock import Clock
from poller.planner.planner import Planner
from poller.polling.pace import Pace
from poller.polling.pauses import Pauses
from poller.polling.promises import Promises
from poller.polling.tasks import Tasks
from state.errors import LeaseLost

PATIENCE = 60.0  # seconds for which chosen work waits for a server that wants no call
PER_CALL = 6  # polls under way for each call in flight; the others wait to be recorded together


W = TypeVar("W")


class WorkQueue(Protocol[W]):
    """The work of a budget. Times are Unix seconds."""

    def next_work(self, now: float, /) -> W | None:
        """Take the most urgent work; it is not chosen again until it has ended. None if there is none."""
        ...

    def put_back(self, work: W, /) -> None:
        """Make work that was taken available again: it was not begun."""
        ...

    def do(self, work: W, /) -> Awaitable[None]:
        """Execute a piece of work."""
        ...

    def due(self, now: float, /) -> float | None:
        """When there may be work; None if only an answer can bring some."""
        ...

    def is_hurried(self) -> bool:
        """Whether a first sweep is under way: it is not paced, and uses at most a quarter of the longest window."""
        ...


class PollLoop:
    """The calls of one budget. `poke` is called whenever `next_at` may have become earlier."""

    def __init__(
        self, name: str, *, planner: Planner, limiter: RateLimiter, clock: Clock, queue: WorkQueue[Any]
    ) -> None:
        self.name = name
        self.planner = planner
        self.limiter = limiter
        self.pauses = Pauses(limiter.budget, clock)  # pauses that the server asks for
        self.pace = Pace(limiter.budget, planner, clock, is_hurried=queue.is_hurried)
        self.promises = Promises(limiter.budget, planner)
        self.tasks = Tasks(name, ended=self.refresh)
        self.poke: Callable[[], None] = lambda: None
        limiter.freed, limiter.paid = self._freed, self.pace.paid
        self._clock = clock
        self._queue = queue
        self._draining = False
        self._idle_until: float | None = None  # Unix seconds: no work before then

    @property
    def budget(self) -> Budget:
        """The windows that the limiter spends."""
        return self.limiter.budget

    def time(self) -> float:
        """The planner's time, in Unix seconds."""
        return self._clock.now()

    def next_at(self) -> float:
        """Steady time of the next wake; infinite if only an answer can bring work."""
        steady = self._clock.steady()
        at = steady + self.budget.wait(steady)
        most = self.budget.concurrency
        if self.budget.in_flight >= most or len(self.tasks) >= most * PER_CALL:
            return math.inf
        at = max(at, self.pace.due(steady))
        if self._idle_until is not None:
            at = max(at, steady + self._idle_until - self.time())
        return at

    async def wake(self) -> None:
        """Begin all work that may begin now."""
        if self._draining or self.tasks.is_over:
            return
        self._draining = True
        try:
            self._idle_until = None
            while not self.tasks.is_over and self.next_at() <= self._clock.steady():
                work = self._queue.next_work(self.time())
                if work is None:
                    due = self._queue.due(self.time())
                    self._idle_until = math.inf if due is None else due
                    break
                try:
                    permit = await self.limiter.permit(patience=PATIENCE)
                except Paused:  # that began since the work was chosen: what is best then is chosen when it is over
                    self._queue.put_back(work)
                    break
                except LeaseLost as lost:
                    self.tasks.lose(lost)
                    break
                if self.tasks.is_over:
                    permit.done()
                    break
                self.tasks.begin(self._do(work, permit))
        finally:
            self._draining = False

    def refresh(self) -> None:
        """Look for new work."""
        self._idle_until = None
        self.poke()

    async def _do(self, work: object, permit: Permit) -> None:
        async with permit:
            await self._queue.do(work)

    def _freed(self) -> None:
        """A call was answered: its poll continues, and if all calls were in flight another may be sent."""
        if self.budget.in_flight == self.budget.concurrency - 1:
            self.poke()
