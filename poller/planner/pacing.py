"""The pace of a budget: how many calls per second to spend now, given how many changes are expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from poller.planner.learning import DAY, HOUR

if TYPE_CHECKING:
    from poller.planner.models import Models
    from poller.planner.rates import Expected
    from poller.planner.units import Table

_PACE = (0.3, 3.0)  # least and most, relative to the even pace
_RECENT = HOUR


class Pacing:
    """How many calls were answered lately, and how much demand there is now beside the usual demand."""

    def __init__(self, table: Table, models: Models, *, now: float) -> None:
        self._table = table
        self._models = models
        self._calls = 0.0  # answered calls, discounted over an hour
        self._began: float | None = None
        self._answered = now
        self._swell = 1.0  # by how much bursts raise the sum of root rates, averaged over a day
        self._swelled: float | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the demand: it is measured again with the next ranking."""
        self._roots: list[float] = []
        self._current = 0.0
        self.needed = 0.0  # calls per second that `max_staleness` requires

    def answered(self, now: float, cost: int) -> None:
        """Count the calls of a poll."""
        if self._began is None:
            self._began = now - 1.0
        elapsed = max(now - self._answered, 0.0)
        self._calls = self._calls * math.exp(-elapsed / _RECENT) + cost
        self._answered = max(now, self._answered)

    @property
    def calls_per_second(self) -> float:
        """Answered calls per second, averaged over about the last hour."""
        if self._began is None:
            return 0.0
        span = _RECENT * (1 - math.exp(-(self._answered - self._began) / _RECENT))
        return self._calls / span if span > 0 else 0.0

    def memory(self, units: int) -> float:
        """The time constant of the discounting, in seconds; longer where polls are rare."""
        polls_a_day = self.calls_per_second * DAY / max(units, 1)
        return 7 * DAY if polls_a_day >= 5 else 30 * DAY

    def demand(self, now: float, expected: Expected) -> None:
        """Record the current demand and the sources' root rates, from which the usual demand of any hour follows."""
        table, top = self._table, self._table.top
        weighted = table.weight[:top] * table.cost[:top]
        weighted[expected.never] = 0.0
        roots = np.sqrt(weighted * expected.base)
        self._roots = np.bincount(table.source[:top], roots, len(list(self._models))).tolist()
        usual = sum(
            root * math.sqrt(model.rhythm.at(now)) for root, model in zip(self._roots, self._models, strict=True)
        )
        self._current = float(np.sqrt(weighted * expected.rate).sum())
        elapsed = 0.0 if self._swelled is None else max(now - self._swelled, 0.0)
        if usual:
            self._swell += (self._current / usual - self._swell) * (1 - math.exp(-elapsed / DAY))
        self._swelled = now

    def pace(self, now: float, left: int, seconds: float) -> float:
        """Calls per second to spend now, of `left` in the next `seconds`."""
        even = left / seconds
        factor = min(max(self._drive(now, seconds), _PACE[0]), _PACE[1])
        return min(max(even * factor, 1.02 * self.needed), even * _PACE[1])

    def dump(self) -> list[float | None]:
        """What is saved across a restart."""
        return [self._calls, self._began, self._answered, self._swell, self._swelled]

    def load(self, saved: Sequence[float | None]) -> None:
        """Restore what `dump` returned."""
        self._calls, self._began, self._answered, self._swell, self._swelled = saved  # type: ignore[assignment]

    def _drive(self, now: float, seconds: float) -> float:
        """Demand now relative to the average demand of the next `seconds`."""
        coming = sum(
            root * model.rhythm.mean_root(now, seconds) for root, model in zip(self._roots, self._models, strict=False)
        )
        return self._current / (coming * self._swell) if coming else 1.0
