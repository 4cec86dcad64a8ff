"""Plan report: learned rates, planned polls, and the effect of another budget, share or weight. Pure.

All expectations follow from one rule. The optimal intervals T_i are proportional to sqrt(c_i / (w_i l_i)) and use all
calls, sum c_i / T_i = B; a change waits T_i / 2 on average. A unit with a shorter `max_staleness` is polled at that
interval, and the other units share the remaining calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from msgspec import structs

from poller.budget.limits import Limit, allowed
from poller.events.cloudevents import iso
from poller.options.problems import NotThere, nearest
from poller.planner.feasibility import infeasible
from poller.planner.learning import DAY, HOURS
from poller.planner.planner import Explanation, Planner, explanations
from poller.planner.unit import Unit
from poller.planner.units import Floats

_THURSDAY = 3  # weekday of the Unix epoch; Monday is 0
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerState:
    """State of one budget's planner: the planner, its limits and the time."""

    budget: str
    limits: tuple[Limit, ...]
    share: float
    planner: Planner
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Hypothetical settings: another share, other limits, other weights (by endpoint or source/endpoint)."""

    share: float | None = None
    limits: tuple[Limit, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """Expected polling of one endpoint; spans in seconds."""

    source: str
    endpoint: str
    units: int
    changes_per_day: float
    calls_per_day: float
    expected_delay: float  # of a change, mean
    staleness: float | None  # of the unit polled longest ago; None if one was never polled
    next_poll: float
    busiest: str  # the busiest hour of the week in UTC, and how busy it is
    rhythm: tuple[float, ...]  # level of each hour from Monday midnight UTC, with mean 1
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Expected mean delay for given calls and weights, overall and by source/endpoint."""

    label: str
    calls_per_day: float
    expected_delay: float
    keeps_promises: bool  # whether every `max_staleness` is kept
    expected_delays: Mapping[str, float]  # by source/endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """One limit of a budget, and the calls that it allows in the long run."""

    limit: str
    calls_per_day: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlan:
    """Plan of one budget: its windows, and the expected delays, first with the current settings."""

    name: str
    windows: tuple[WindowPlan, ...]
    share: float
    calls_per_day: float  # of the tightest window
    broken_promise: str | None  # the `max_staleness` that the budget cannot keep
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Report of `poller plan`."""

    budgets: tuple[BudgetPlan, ...]
    endpoints: tuple[EndpointPlan, ...]
    units: tuple[Explanation, ...]


def intervals(units: Sequence[Unit], rates: Floats, calls_per_second: float) -> Floats:
    """Seconds between polls of each unit by the square-root rule, capped by `max_staleness`."""
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


def report(states: Iterable[PlannerState], what_if: WhatIf | None = None) -> Report:
    """Report on every unit, endpoint and budget, and on the hypothetical settings.

    Raises NotThere if a weight names an endpoint that does not exist.
    """
    budgets, endpoints, units = [], [], []
    states = list(states)
    check_names(states, what_if or WhatIf())
    for state in states:
        calls = allowed(state.limits, state.share)
        found = explanations(state.planner, state.now, calls_per_second=calls)
        units += found
        endpoints += _endpoints(state, found)
        budgets.append(_budget(state, found, what_if or WhatIf()))
    return Report(budgets=tuple(budgets), endpoints=tuple(endpoints), units=tuple(units))


def rows(found: Report) -> Iterator[dict[str, Any]]:
    """The report as JSON rows, one per budget, endpoint and unit: names of spans end in `_s`, times are ISO text."""
    for budget in found.budgets:
        expectations = [_in_seconds(asdict(one)) for one in budget.expectations]
        yield {"kind": "budget", **asdict(budget), "expectations": expectations}
    for endpoint in found.endpoints:
        yield {"kind": "endpoint", **_in_seconds(asdict(endpoint))}
    for one in found.units:
        unit = one.unit
        identity = {"source": unit.source, "endpoint": unit.endpoint, "key": unit.key}
        settings = {"cost": unit.cost, "weight": unit.weight, "max_staleness": unit.max_staleness}
        figures = {name: value for name, value in structs.asdict(one).items() if name != "unit"}
        figures |= {"expected_delay": one.expected_delay, "calls_per_day": one.calls_per_day}
        yield {"kind": "unit", **identity, **_in_seconds(settings | figures)}


_TIMES = ("last_poll", "next_poll")
_SPANS = ("expected_delay", "expected_delays", "staleness", "interval", "max_staleness")


def _in_seconds(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename spans to end in `_s` and write times as ISO text. orjson writes infinity and NaN as null."""
    told = {f"{name}_s" if name in _SPANS else name: value for name, value in values.items()}
    return told | {name: iso(at) for name in _TIMES if (at := told.get(name)) is not None and math.isfinite(at)}


def parse_weight(text: str) -> tuple[str, float]:
    """Parse `"projects=5"` to ("projects", 5.0). Raises ValueError."""
    name, _, number = text.partition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not name or not 0 < weight < math.inf:
        raise ValueError(f"{text!r} is not ENDPOINT=N with a number N above 0")
    return name, weight


def check_names(states: Sequence[PlannerState], what_if: WhatIf) -> None:
    """Raise NotThere if a weight names an endpoint that does not exist."""
    units = [unit for state in states for unit in state.planner.units] if what_if.weights else []
    known = {unit.endpoint for unit in units} | {f"{unit.source}/{unit.endpoint}" for unit in units}
    for name in what_if.weights:
        if name not in known:
            raise NotThere(f"no endpoint is named {name!r}", hint=nearest(name, known))


def _endpoints(state: PlannerState, found: Sequence[Explanation]) -> list[EndpointPlan]:
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
            busiest=busiest(rhythm := _from_monday(state.planner.models.rhythm(source))),
            rhythm=tuple(rhythm),
            weight=max(one.unit.weight for one in group),
        )
        for (source, endpoint), group in sorted(groups.items())
    ]


def _stalest(group: Sequence[Explanation]) -> float | None:
    stale = [one.staleness for one in group if one.staleness is not None]
    return max(stale) if len(stale) == len(group) else None


def _from_monday(levels: Sequence[float]) -> list[float]:
    """Rotate the planner's week, which starts on a Thursday like the Unix epoch, to start on Monday."""
    monday = HOURS - _THURSDAY * 24
    return [*levels[monday:], *levels[:monday]]


def busiest(levels: Sequence[float]) -> str:
    """The hour of the week (from Monday, UTC) with the highest level, as text; "even" if no hour is 20 % above the
    mean.
    """
    hour = max(range(HOURS), key=lambda at: levels[at])
    if levels[hour] < 1.2:
        return "even"
    day, hour_of_day = divmod(hour, 24)
    return f"{_DAYS[day]} {hour_of_day:02}:00 UTC, {levels[hour]:.1f} times the mean"


def _mean_delay(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of delays, weighted by how many changes have each."""
    pairs = list(pairs)
    rates = sum(rate for rate, _ in pairs)
    return sum(rate * delay for rate, delay in pairs) / rates if rates else math.nan


def _budget(state: PlannerState, found: Sequence[Explanation], what_if: WhatIf) -> BudgetPlan:
    calls = allowed(state.limits, state.share)
    broken = infeasible(state.planner.units.promised, budget=state.budget, limits=state.limits, share=state.share)
    return BudgetPlan(
        name=state.budget,
        windows=tuple(
            WindowPlan(limit=str(limit), calls_per_day=allowed([limit], state.share) * DAY) for limit in state.limits
        ),
        share=state.share,
        calls_per_day=calls * DAY,
        broken_promise=None if broken is None else str(broken),
        expectations=tuple(_expectations(state, found, calls, what_if)),
    )


def _expectations(
    state: PlannerState, found: Sequence[Explanation], calls: float, what_if: WhatIf
) -> Iterator[Expectation]:
    yield _expect("current settings", found, calls, {})
    yield _expect("+10 % calls", found, calls * 1.1, {})
    other = calls
    if what_if.limits or what_if.share is not None:
        share = state.share if what_if.share is None else what_if.share
        label = f"share {share:g} {' '.join(map(str, what_if.limits))}".strip()
        other = allowed(what_if.limits or state.limits, share)
        yield _expect(label, found, other, {})
    for name, weight in what_if.weights.items():
        yield _expect(f"weight {name}={weight:g}", found, calls, {name: weight})
    if len(what_if.weights) > (other == calls):
        yield _expect("all of these", found, other, what_if.weights)


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
        keeps_promises=sum(unit.cost / unit.max_staleness for unit in units if unit.max_staleness) < calls,
        expected_delays={name: _mean_delay(group) for name, group in sorted(groups.items())},
    )


def _weighted(unit: Unit, weights: Mapping[str, float]) -> Unit:
    weight = weights.get(f"{unit.source}/{unit.endpoint}", weights.get(unit.endpoint))
    return unit if weight is None else replace(unit, weight=weight)
