"""One budget at work: wait for permission, then choose, spend and send; each answer asks again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import structlog

from poller.budget.budget import Budget
from poller.budget.limiter import Permit, RateLimiter
from poller.clock import Clock
from poller.planner.feasibility import Infeasible, infeasible
from poller.planner.planner import Planner
from poller.polling.pauses import Pauses
from state.errors import LeaseLost

log = structlog.get_logger("poller")

CREDIT = 2.0  # seconds by which the pace may be made up for
PER_CALL = 3  # polls under way for each call in flight: while one is asked for, others wait to be recorded together


W = TypeVar("W")


class WorkQueue(Protocol[W]):
    """The work of a budget. Times are Unix seconds."""

    def next_work(self, now: float, /) -> W | None:
        """The most urgent work, taken: it is not chosen again until it ended. None when there is none."""
        ...

    def do(self, work: W, /) -> Awaitable[None]:
        """Do what was chosen."""
        ...

    def due(self, now: float, /) -> float | None:
        """When there may be work; None when only an answer can bring some."""
        ...

    def is_hurried(self) -> bool:
        """A first sweep is under way: not paced, with at most a quarter of the longest window."""
        ...


class PollLoop:
    """The calls of one budget. `poke` is called whenever `next_at` may have become earlier."""

    def __init__(
        self,
        *,
        name: str,
        budget: Budget,
        share: float,
        planner: Planner,
        limiter: RateLimiter,
        clock: Clock,
        queue: WorkQueue[Any],
    ) -> None:
        self.name = name
        self.budget = budget
        self.share = share
        self.planner = planner
        self.limiter = limiter
        self.pauses = Pauses(budget, clock)  # that the server asks for
        limiter.freed, limiter.paid = self._freed, self._paid
        self.poke: Callable[[], None] = lambda: None
        self.hurry = False  # a sweep on command: paced by the short windows alone
        self.calls = 0  # pieces of work begun
        self._clock = clock
        self._queue = queue
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._stopping = False
        self._paced_at = -math.inf  # steady
        self._idle_until: float | None = None  # Unix seconds: there is no work before
        self.failure: BaseException | None = None
        self.infeasible: Infeasible | None = None  # `max_staleness` that cannot be kept since lists grew

    @property
    def is_over(self) -> bool:
        """Whether nothing more is asked for here."""
        return self._stopping

    @property
    def in_flight(self) -> int:
        """Work under way."""
        return len(self._tasks)

    def time(self) -> float:
        """The time that the planner goes by, Unix seconds."""
        return self._clock.now()

    def next_at(self) -> float:
        """Steady time at which the lane should be woken; infinite when only an answer can bring work."""
        steady = self._clock.steady()
        at = steady + self.budget.wait(steady)
        most = self.budget.concurrency
        if self.budget.in_flight >= most or len(self._tasks) >= most * PER_CALL:
            return math.inf
        if not self._is_unpaced(steady):
            at = max(at, self._paced_at + self._interval(steady))
        if self._idle_until is not None:
            at = max(at, steady + self._idle_until - self.time())
        return at

    async def wake(self) -> None:
        """Send all that may be sent now."""
        if self._draining or self._stopping:
            return
        self._draining = True
        try:
            self._idle_until = None
            while not self._stopping and self.next_at() <= self._clock.steady():
                work = self._queue.next_work(self.time())
                if work is None:
                    due = self._queue.due(self.time())
                    self._idle_until = math.inf if due is None else due
                    break
                try:
                    permit = await self.limiter.permit()
                except LeaseLost as lost:
                    self._drop(lost)
                    break
                if self._stopping:
                    permit.done()
                    break
                self.calls += 1
                self._begin(work, permit)
        finally:
            self._draining = False

    def refresh(self) -> None:
        """There may be new work."""
        self._idle_until = None
        self.poke()

    def check_promises(self) -> None:
        """Say once when lists have grown so that their `max_staleness` cannot be kept, and once when it can again."""
        before, self.infeasible = self.infeasible, self._infeasible()
        if self.infeasible is not None and before is None:
            log.warning(
                "promises.broken", budget=self.name, why=str(self.infeasible), hint=self.infeasible.problem.hint
            )
        elif self.infeasible is None and before is not None:
            log.info("promises.kept", budget=self.name)

    def _infeasible(self) -> Infeasible | None:
        return infeasible(self.planner.units.promised, budget=self.name, limits=self.budget.limits, share=self.share)

    async def finish(self, seconds: float) -> None:
        """Begin nothing more; let what is under way end within that time, then cancel it."""
        self._stopping = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _freed(self) -> None:
        """A call was answered: its poll goes on, and where all calls were in flight another may leave."""
        if self.budget.in_flight == self.budget.concurrency - 1:
            self.poke()

    def _begin(self, work: object, permit: Permit) -> None:
        async def run() -> None:
            async with permit:
                await self._queue.do(work)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LeaseLost):
            self._drop(error)
        elif error is not None:
            self.failure = error
        self.refresh()

    def _drop(self, lost: LeaseLost) -> None:
        """Another worker owns the budget by now: nothing more is asked for here."""
        if not self._stopping:
            log.warning("budget.lease_lost", budget=self.name, error=str(lost))
        self._stopping = True

    def _paid(self) -> None:
        """A call was written down, be it the first of a poll or a further one: the next poll keeps its distance."""
        steady = self._clock.steady()
        if self._is_unpaced(steady):
            self._paced_at = steady
        else:
            self._paced_at = max(self._paced_at + self._interval(steady), steady - CREDIT)

    def _is_unpaced(self, steady: float) -> bool:
        return self.hurry or (self._queue.is_hurried() and self.budget.burst_left(steady) > 0)

    def _interval(self, steady: float) -> float:
        forecast = self.budget.forecast(steady)
        if forecast.seconds <= 0:
            return 0.0
        rate = self.planner.pace(self.time(), forecast.left, forecast.seconds)
        return 1.0 / rate if rate > 0 else forecast.seconds
