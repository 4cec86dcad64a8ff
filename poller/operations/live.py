"""What only the running program knows: pauses, health, pages set aside, and expectations of the planners."""

from __future__ import annotations

from poller.app import App
from poller.operations.gathering import expected_delays
from poller.operations.program import BudgetView, Live, Watched
from poller.planner.report import PlannerState, Report, WhatIf, report
from poller.polling.endpoint import status_of


def live_of(app: App, plan: Report | None = None) -> Live:
    """What the running program knows now; `plan` avoids asking the planners again."""
    steady = app.clock.steady()
    sources = app.engine.sources
    budgets = {}
    for name, poll_loop in app.engine.loops.items():
        budgets[name] = BudgetView(
            usage=poll_loop.budget.usage(steady),
            throttled_until=poll_loop.pauses.until(),
            polls=poll_loop.tasks.begun,
            calls=poll_loop.limiter.calls,
            refused=poll_loop.limiter.refused,
            infeasible=poll_loop.promises.broken,
        )
    return Live(
        budgets=budgets,
        sources={name: active.health.snapshot() for name, active in sources.items()},
        endpoints={
            (name, w.name): Watched(**status_of(w))
            for name, active in sources.items()
            for w in active.endpoints.values()
        },
        expected_delays=expected_delays(plan or plan_of(app)),
        last_polls={name: active.times.latest for name, active in sources.items()},
        failed_plugins=tuple(app.plugins.failed),
        state_error=None if app.write.outage is None else str(app.write.outage),
        config_error=app.refused,
        is_shared=app.tenure is not None,
    )


def plan_of(app: App, what_if: WhatIf | None = None) -> Report:
    """Expectations of the planners for every unit, endpoint and budget, also with hypothetical changes."""
    states = [
        PlannerState(
            budget=name,
            limits=poll_loop.budget.limits,
            share=poll_loop.budget.share,
            planner=poll_loop.planner,
            now=poll_loop.time(),
        )
        for name, poll_loop in app.engine.loops.items()
    ]
    return report(states, what_if)
