"""Pace of a budget: the time between its calls, chosen so that they last for its longest window."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from poller.budget.budget import Budget
from poller.clock import Clock
from poller.planner.planner import Planner

CREDIT: Final = 2.0  # seconds of pace that may be caught up
CAUGHT_UP: Final = 4  # calls that may be caught up: a larger burst returns, after a gap as long, in every window


class Pace:
    """When the next call of a budget is due. `is_hurried`: a first sweep is under way, which is not paced."""

    def __init__(self, budget: Budget, planner: Planner, clock: Clock, *, is_hurried: Callable[[], bool]) -> None:
        self.hurry = False  # an on-demand sweep: limited only by the short windows
        self._budget = budget
        self._planner = planner
        self._clock = clock
        self._is_hurried = is_hurried
        self._paid_at = -math.inf  # steady: when the latest call was due

    def due(self, steady: float) -> float:
        """Steady time at which the next call is due; a past time means now."""
        return -math.inf if self._is_unpaced(steady) else self._paid_at + self._interval(steady)

    def paid(self) -> None:
        """Note that a call was written down, the first of a poll or a further one: the next poll keeps its distance."""
        steady = self._clock.steady()
        if self._is_unpaced(steady):
            self._paid_at = steady
        else:
            interval = self._interval(steady)
            self._paid_at = max(self._paid_at + interval, steady - min(CREDIT, CAUGHT_UP * interval))

    def _is_unpaced(self, steady: float) -> bool:
        return self.hurry or (self._is_hurried() and self._budget.burst_left(steady) > 0)

    def _interval(self, steady: float) -> float:
        forecast = self._budget.forecast(steady)
        if forecast.seconds <= 0:
            return 0.0
        rate = max(self._planner.pace(self._clock.now(), forecast.left, forecast.seconds), forecast.least)
        return 1.0 / rate if rate > 0 else forecast.seconds
