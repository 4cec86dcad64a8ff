"""Explanations of a unit's polling interval: the planner's figures and a reason in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from poller.planner.learning import DAY

if TYPE_CHECKING:
    from poller.planner.unit import Unit
    from poller.planner.units import Floats, Table


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Explanation of how often a unit is polled: rates per second, times in Unix seconds, spans in seconds."""

    unit: Unit
    mean_rate: float  # learned mean, changes per second, including the bursts that changes bring
    rate: float  # expected now, given the hour of the week and recent changes
    unseen: float  # changes expected since the last poll
    last_poll: float | None
    staleness: float | None
    rank: int  # 1 is polled next
    score: float  # weighted delay accumulated per call, seconds
    interval: float  # between two polls at the current pace
    next_poll: float
    reason: str

    @property
    def expected_delay(self) -> float:
        """The mean delay of a change."""
        return self.interval / 2

    @property
    def calls_per_day(self) -> float:
        """The calls that the polls of a day take."""
        return self.unit.cost * DAY / self.interval


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of every slot at one instant; calls and rates per second."""

    now: float
    score: Floats
    rate: Floats
    mean: Floats
    calls: float


def explained(units: Iterable[tuple[int, Unit]], table: Table, figures: Figures) -> list[Explanation]:
    """Explain the units in the given slots."""
    top, now = table.top, figures.now
    eligible = np.where(table.ready[:top] > now, -1.0, figures.score)
    ranks = np.empty(top, np.intp)
    ranks[np.argsort(-eligible, kind="stable")] = np.arange(1, top + 1)
    # At the optimum, T = sqrt(2 m c / (w l)) and sum c/T = B, where m is the score at which a unit is polled. Removed
    # units have weight 0.
    bar = float(np.sqrt(table.weight[:top] * figures.mean * table.cost[:top]).sum()) ** 2 / (2 * figures.calls**2)
    return [_explanation(unit, slot, table, figures, int(ranks[slot]), bar) for slot, unit in units]


def _explanation(unit: Unit, slot: int, table: Table, figures: Figures, rank: int, bar: float) -> Explanation:
    now, mean, rate = figures.now, float(figures.mean[slot]), float(figures.rate[slot])
    last, ready = float(table.last[slot]), float(table.ready[slot])
    never = math.isnan(last)
    age = None if never else max(now - last, 0.0)
    interval, promised = _interval(unit, mean, bar), unit.max_staleness or math.inf
    due = now if never else max(last + min(_interval(unit, rate, bar), promised), now)
    reason = _reason(never=never, ready=ready, now=now, kept=promised < interval, burst=rate > 2 * mean)
    interval = min(interval, promised)
    return Explanation(
        unit=unit,
        mean_rate=mean,
        rate=rate,
        unseen=rate * (age or 0.0),
        last_poll=None if never else last,
        staleness=age,
        rank=rank,
        score=math.inf if never else float(figures.score[slot]),
        interval=interval,
        next_poll=due if ready == math.inf else max(due, ready),
        reason=reason,
    )


def _interval(unit: Unit, rate: float, bar: float) -> float:
    worth = unit.weight * rate
    return math.sqrt(2 * bar * unit.cost / worth) if worth > 0 else math.inf


def _reason(*, never: bool, ready: float, now: float, kept: bool, burst: bool) -> str:
    if ready == math.inf:
        return "in flight"
    if ready > now:
        return "deferred after a failure"
    if never:
        return "never polled: it goes first"
    if kept:
        return "max_staleness requires more polls than its rate"
    return "more changes are expected now than usual" if burst else "its rate and weight per call"
