"""Pure: what the planner has learned, what it will do with it, and what another budget or weight would change.

All expectations come from one rule: at the best intervals T_i in proportion to sqrt(c_i / (w_i l_i)) the calls are
used up, sum c_i / T_i = B, and a change waits T_i / 2; a unit whose `max_staleness` is shorter is polled that often,
and the others share what remains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from poller.budget import HOUR, Limit
from poller.learning import DAY, HOURS, Floats
from poller.planner import Explanation, Planner, Unit
from state.errors import PollerError

_THURSDAY = 3  # the epoch's weekday, Monday is 0
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Unkeepable(PollerError):
    """The budget cannot keep what `max_staleness` promises; `least` is the calls per second that could."""

    def __init__(self, message: str, *, least: float, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.least = least


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One budget and the planner that spends it."""

    budget: str
    limits: tuple[Limit, ...]
    share: float
    planner: Planner
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What if: another share, other limits, other weights (by endpoint or source/endpoint)."""

    share: float | None = None
    limits: tuple[Limit, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """What to expect of one endpoint; spans in seconds."""

    source: str
    endpoint: str
    units: int
    changes_per_day: float
    calls_per_day: float
    expected_delay: float  # of a change, on average
    staleness: float | None  # of the unit that was polled longest ago; None: one was never polled
    next_poll: float
    busiest: str  # hour of the week, UTC, and how much busier than the average
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Mean delay under some calls and weights, overall and by source/endpoint."""

    label: str
    calls_per_day: float
    expected_delay: float
    endpoints: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlan:
    """What the windows allow, and what a change of them or of weights would bring: the first is as things are."""

    name: str
    limits: tuple[str, ...]
    share: float
    calls_per_day: float
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything `poller plan` tells."""

    budgets: tuple[BudgetPlan, ...]
    endpoints: tuple[EndpointPlan, ...]
    units: tuple[Explanation, ...]


def allowed(limits: Iterable[Limit], share: float) -> float:
    """Calls per second that all windows together allow for good; `share` counts for those of an hour or longer."""
    return min(limit.calls * (share if limit.seconds >= HOUR else 1.0) / limit.seconds for limit in limits)


def check_promises(units: Iterable[Unit], *, budget: str, calls_per_second: float) -> None:
    """Raise Unkeepable unless sum c / max_staleness stays below the calls there are."""
    asked: dict[str, float] = {}
    for unit in units:
        if unit.max_staleness is not None:
            name = f"{unit.source}/{unit.endpoint}"
            asked[name] = asked.get(name, 0.0) + unit.cost / unit.max_staleness
    least = sum(asked.values())
    if least < calls_per_second:
        return
    most = sorted(asked, key=lambda name: -asked[name])[:3]
    needs = ", ".join(f"{name} {math.ceil(asked[name] * DAY)}" for name in most)
    raise Unkeepable(
        f"budget {budget}: max_staleness needs {math.ceil(least * DAY)} calls a day ({needs}),"
        f" the limits allow {math.floor(calls_per_second * DAY)}",
        least=least,
        hint=f"allow more than {math.ceil(least * DAY)} calls a day, or raise max_staleness of {most[0]}",
    )


def intervals(units: Sequence[Unit], rates: Floats, calls_per_second: float) -> Floats:
    """Seconds between polls of each unit: the square-root rule, cut where `max_staleness` is shorter."""
    cost = np.array([float(unit.cost) for unit in units])
    limit = np.array([math.inf if unit.max_staleness is None else unit.max_staleness for unit in units])
    worth = np.maximum(np.array([unit.weight for unit in units]) * rates, 1e-15)
    found = limit.copy()
    free = np.ones(len(units), bool)
    calls = calls_per_second
    while free.any():
        found[free] = np.sqrt(cost[free] / worth[free]) * np.sqrt(worth * cost)[free].sum() / max(calls, 1e-9)
        short = free & (found > limit)
        if not short.any():
            break
        found[short] = limit[short]
        calls -= float((cost[short] / limit[short]).sum())
        free &= ~short
    return found


def report(situations: Iterable[Situation], changes: Changes | None = None) -> Report:
    """Explain every unit, endpoint and budget, and what the changes asked for would bring."""
    budgets, endpoints, units = [], [], []
    for situation in situations:
        calls = allowed(situation.limits, situation.share)
        found = situation.planner.explanations(situation.now, calls_per_second=calls)
        units += found
        endpoints += _endpoints(situation, found)
        budgets.append(_budget(situation, found, changes or Changes()))
    return Report(budgets=tuple(budgets), endpoints=tuple(endpoints), units=tuple(units))


def _endpoints(situation: Situation, found: Sequence[Explanation]) -> list[EndpointPlan]:
    groups: dict[tuple[str, str], list[Explanation]] = {}
    for one in found:
        groups.setdefault((one.unit.source, one.unit.endpoint), []).append(one)
    return [
        EndpointPlan(
            source=source,
            endpoint=endpoint,
            units=len(group),
            changes_per_day=sum(one.mean_rate for one in group) * DAY,
            calls_per_day=sum(one.calls_per_day for one in group),
            expected_delay=_mean_delay([(one.mean_rate, one.expected_delay) for one in group]),
            staleness=_stalest(group),
            next_poll=min(one.next_poll for one in group),
            busiest=busiest(situation.planner.rhythm(source)),
            weight=max(one.unit.weight for one in group),
        )
        for (source, endpoint), group in sorted(groups.items())
    ]


def _stalest(group: Sequence[Explanation]) -> float | None:
    stale = [one.staleness for one in group if one.staleness is not None]
    return max(stale) if len(stale) == len(group) else None


def busiest(levels: Sequence[float]) -> str:
    """The hour of the week (UTC) with the highest level, as text; "even" while nothing stands out."""
    hour = max(range(HOURS), key=lambda at: levels[at])
    if levels[hour] < 1.2:
        return "even"
    day, hour_of_day = divmod(hour + _THURSDAY * 24, 24)
    return f"{_DAYS[day % 7]} {hour_of_day:02}:00 UTC, {levels[hour]:.1f} times the mean"


def _mean_delay(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of delays, each counted as often as changes have it."""
    pairs = list(pairs)
    rates = sum(rate for rate, _ in pairs)
    return sum(rate * delay for rate, delay in pairs) / rates if rates else math.nan


def _budget(situation: Situation, found: Sequence[Explanation], changes: Changes) -> BudgetPlan:
    calls = allowed(situation.limits, situation.share)
    expectations = [_expect("as it is", found, calls, {}), _expect("+10 % calls", found, calls * 1.1, {})]
    if changes.limits or changes.share is not None:
        share = situation.share if changes.share is None else changes.share
        other = allowed(changes.limits or situation.limits, share)
        words = " ".join(map(str, changes.limits))
        expectations.append(_expect(f"share {share:g} {words}".strip(), found, other, {}))
    for name, weight in changes.weights.items():
        expectations.append(_expect(f"weight {name}={weight:g}", found, calls, {name: weight}))
    return BudgetPlan(
        name=situation.budget,
        limits=tuple(map(str, situation.limits)),
        share=situation.share,
        calls_per_day=calls * DAY,
        expectations=tuple(expectations),
    )


def _expect(label: str, found: Sequence[Explanation], calls: float, weights: Mapping[str, float]) -> Expectation:
    units = [_weighted(one.unit, weights) for one in found]
    rates = np.array([one.mean_rate for one in found], float)
    delays = intervals(units, rates, calls) / 2
    groups: dict[str, list[tuple[float, float]]] = {}
    for unit, rate, delay in zip(units, rates.tolist(), delays.tolist(), strict=True):
        groups.setdefault(f"{unit.source}/{unit.endpoint}", []).append((rate, delay))
    return Expectation(
        label=label,
        calls_per_day=calls * DAY,
        expected_delay=_mean_delay(pair for group in groups.values() for pair in group),
        endpoints={name: _mean_delay(group) for name, group in sorted(groups.items())},
    )


def _weighted(unit: Unit, weights: Mapping[str, float]) -> Unit:
    weight = weights.get(f"{unit.source}/{unit.endpoint}", weights.get(unit.endpoint))
    return unit if weight is None else replace(unit, weight=weight)
