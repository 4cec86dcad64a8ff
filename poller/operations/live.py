"""What only the running program knows: throttling, health, what is set aside, what the planners expect."""

from __future__ import annotations

from poller.app import App
from poller.operations.gathering import BudgetView, Live, Watched, expected_delays
from poller.planner.report import PlannerState, Report, WhatIf, report
from poller.polling.endpoint import status_of


def live_of(app: App, plan: Report | None = None) -> Live:
    """What the running program knows now; `plan` spares asking the planners again."""
    steady = app.clock.steady()
    runs = app.engine.runs
    budgets = {}
    for name, lane in app.engine.lanes.items():
        budgets[name] = BudgetView(
            usage=lane.budget.usage(steady),
            throttled_until=lane.throttled_until(),
            polls=lane.calls,
            calls=lane.gate.calls,
            refused=lane.gate.refused,
            infeasible=lane.infeasible,
        )
    return Live(
        budgets=budgets,
        sources={name: run.health.snapshot() for name, run in runs.items()},
        endpoints={
            (name, w.name): Watched(**status_of(w)) for name, run in runs.items() for w in run.watchings.values()
        },
        expected_delays=expected_delays(plan or plan_of(app)),
        last_polls={name: run.times.latest for name, run in runs.items()},
        failed_plugins=tuple(app.plugins.failed),
        state_error=None if app.write.outage is None else str(app.write.outage),
        config_error=app.refused,
    )


def plan_of(app: App, what_if: WhatIf | None = None) -> Report:
    """What the planners expect of every unit, endpoint and budget, and what the changes would bring."""
    states = [
        PlannerState(budget=name, limits=lane.budget.limits, share=lane.share, planner=lane.planner, now=lane.time())
        for name, lane in app.engine.lanes.items()
    ]
    return report(states, what_if)
