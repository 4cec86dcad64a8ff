"""Calls of a budget as steps of the store: each is written down, under the lease of the budget, before it leaves."""

from __future__ import annotations

from poller.budget.limiter import Answers
from poller.clock import Clock, SystemClock
from poller.polling.budgets import PolledBudget
from poller.polling.unchanged import give_back, take_unchanged
from state.errors import LeaseLost
from state.steps import Steps
from state.store import CallStore


class CallSteps:
    """Writes the calls of one budget, and with each call the unchanged polls that are still to be written."""

    def __init__(self, name: str, store: CallStore, write: Steps, clock: Clock) -> None:
        self.budget: PolledBudget | None = None  # once it is built
        self._name = name
        self._store = store
        self._write = write
        self._clock = clock

    async def spend(self, answers: Answers) -> int:
        """Write a call, with the answers known by then. Returns its id."""
        budget = self.budget
        if budget is None or budget.lease is None:
            raise LeaseLost(f"budget/{self._name}: no lease was taken")
        anchor = str(self._clock.anchor()) if isinstance(self._clock, SystemClock) else ""
        steady, times = self._clock.steady(), take_unchanged(budget.sources.values())
        try:
            return await self._write(
                self._store.spend,
                budget.lease,
                steady,
                answers=answers,
                unchanged=[one for _, found in times for one in found.values()],
                anchor=anchor,
            )
        except BaseException:
            give_back(times)
            raise

    async def flush(self, answers: Answers) -> None:
        """Write answers that no later call took along."""
        await self._write(self._store.answered, answers)

    async def throttle(self, until: float) -> None:
        """Write until when the server wants no call."""
        await self._write(self._store.throttle, self._name, until)
