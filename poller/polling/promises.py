"""Promises of `max_staleness`: whether a budget can still keep them after its lists have grown."""

from __future__ import annotations

import structlog

from poller.budget.budget import Budget
from poller.planner.feasibility import Infeasible, infeasible
from poller.planner.planner import Planner

log = structlog.get_logger("poller")


class Promises:
    """The `max_staleness` of the units of one budget."""

    def __init__(self, budget: Budget, planner: Planner) -> None:
        self.broken: Infeasible | None = None  # why they cannot all be kept
        self._budget = budget
        self._planner = planner

    def check(self) -> None:
        """Log once that they can no longer be kept, and once that they can be kept again."""
        budget, before = self._budget, self.broken
        promised = self._planner.units.promised
        self.broken = infeasible(promised, budget=budget.name, limits=budget.limits, share=budget.share)
        if self.broken is not None and before is None:
            log.warning("promises.broken", budget=budget.name, why=str(self.broken), hint=self.broken.problem.hint)
        elif self.broken is None and before is not None:
            log.info("promises.kept", budget=budget.name)
