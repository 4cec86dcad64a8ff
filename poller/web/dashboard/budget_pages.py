"""Pages of budgets: use of their windows over the last hour, and the effect of other settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from poller.operations.history import Sample
from poller.operations.program import Live
from poller.options.quantities import parse_rate
from poller.planner.report import BudgetPlan, Expectation, Report, WhatIf, parse_weight
from poller.web.dashboard import charts
from poller.web.dashboard.html import Shown
from poller.web.parameters import Context
from state.errors import PollerError

HOUR: Final = 3600.0
WIDTH, HEIGHT = 720.0, 64.0  # of a chart
Texts = Annotated[list[str], Query(max_length=100)]

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One window of a budget."""

    rate: str
    used: int
    limit: int  # calls that it allows, after `share`
    path: str  # path of the chart
    peak: int  # highest use that the chart shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The expected delay of one endpoint in seconds: now, and with other settings."""

    name: str
    now: float
    then: float
    share_now: float  # relative to the longest bar
    share_then: float


@router.get("/budgets")
async def budgets(context: Context, page: Shown) -> Response:
    """Every budget."""
    live, status = context.live(), await context.status()
    now = context.program.now()
    windows = {name: _windows(live, name, context.program.history.samples(name), now) for name in live.budgets}
    past = {name: _past(context.program.history.samples(name), now) for name in live.budgets}
    sources = {
        name: [one.name for one in context.program.config.sources.values() if one.budget == name]
        for name in live.budgets
    }
    return page.render(
        "budgets.html.j2",
        budgets=status.budgets,
        live=live.budgets,
        windows=windows,
        sources=sources,
        width=WIDTH,
        past=past,
    )


@router.get("/plan")
async def plan(
    context: Context,
    page: Shown,
    share: Annotated[float | None, Query(gt=0, le=1)] = None,
    weight: Texts = [],  # noqa: B006
    limits: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """How often units are polled, and the effect of other settings."""
    report = context.plan()
    asked = _what_if(report, share, weight, limits)
    hypothetical = None if asked is None else context.plan(asked)
    chosen = {} if asked is None else dict(asked.weights)
    return page.render(
        "plan.html.j2",
        report=report,
        budgets=[(one, _compared(one, hypothetical)) for one in report.budgets],
        then={} if hypothetical is None else {one.name: one.expectations[-1] for one in hypothetical.budgets},
        share=report.budgets[0].share if share is None and report.budgets else share,
        limits=limits,
        weights={(label := f"{one.source}/{one.endpoint}"): chosen.get(label, one.weight) for one in report.endpoints},
        is_what_if=asked is not None,
    )


def _windows(live: Live, name: str, samples: list[Sample], now: float) -> list[Window]:
    found, past = [], _past(samples, now)
    for at, usage in enumerate(live.budgets[name].usage):
        limit = usage.used + usage.remaining
        points = [(1 - (now - one.at) / past, float(one.used[at])) for one in samples if now - one.at <= past]
        points.append((1.0, float(usage.used)))
        found.append(
            Window(
                rate=usage.rate,
                used=usage.used,
                limit=limit,
                path=charts.area(points, width=WIDTH, height=HEIGHT, top=limit),
                peak=int(max(value for _, value in points)),
            )
        )
    return found


def _past(samples: list[Sample], now: float) -> float:
    """Seconds that a chart shows: an hour, or since the first sample."""
    return min(HOUR, max(1.0, now - samples[0].at)) if samples else HOUR


def _what_if(report: Report, share: float | None, weights: list[str], limits: str) -> WhatIf | None:
    """The settings that differ from the current ones; None if none does. Raises PollerError."""
    present = {f"{one.source}/{one.endpoint}": one.weight for one in report.endpoints}
    try:
        asked = dict(map(parse_weight, weights))
        rates = tuple(parse_rate(text) for text in limits.replace(",", " ").split())
    except (ValueError, OverflowError) as error:
        raise PollerError(str(error), hint="limits are written as 5/s 200/min 20000/day") from error
    changed = {name: value for name, value in asked.items() if not math.isclose(value, present.get(name, math.nan))}
    if share is not None and all(math.isclose(share, one.share) for one in report.budgets):
        share = None
    return None if share is None and not changed and not rates else WhatIf(share=share, limits=rates, weights=changed)


def _compared(budget: BudgetPlan, hypothetical: Report | None) -> list[Compared]:
    now = budget.expectations[0]
    then = now if hypothetical is None else _last(hypothetical, budget.name)
    longest = max((_finite(one) for one in (*now.expected_delays.values(), *then.expected_delays.values())), default=0)
    return [
        Compared(
            name=name,
            now=delay,
            then=then.expected_delays.get(name, math.nan),
            share_now=_finite(delay) / (longest or 1),
            share_then=_finite(then.expected_delays.get(name, 0.0)) / (longest or 1),
        )
        for name, delay in now.expected_delays.items()
    ]


def _last(report: Report, budget: str) -> Expectation:
    return next(one for one in report.budgets if one.name == budget).expectations[-1]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
