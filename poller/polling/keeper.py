"""Keeps in the state what an engine knows: what planners learned, reported failures, and times of unchanged polls."""

from __future__ import annotations

from collections.abc import Collection

from poller.clock import Clock
from poller.polling.budgets import Budgets
from poller.polling.source import kept_health
from poller.polling.unchanged import give_back, take_unchanged
from state.steps import Steps
from state.store import PollingStore


class Keeper:
    """Writes what must outlive an engine, and deletes what no window counts any more."""

    def __init__(self, budgets: Budgets, store: PollingStore, write: Steps, clock: Clock) -> None:
        self._budgets = budgets
        self._store = store
        self._write = write
        self._clock = clock

    async def save(self, budgets: Collection[str] | None = None) -> None:
        """Save what the planners learned, and the reported failures, of all budgets or of those named."""
        chosen = self._budgets.loops if budgets is None else budgets
        learned = {f"planner:{name}": self._budgets.loops[name].planner.dump() for name in chosen}
        for active in self._budgets.sources.values():
            if active.config.budget in chosen:
                learned |= kept_health(active)
        await self._write(self._store.learned.save, learned)

    async def save_times(self, budgets: Collection[str] | None = None) -> None:
        """Save the times of polls that found nothing new, so that the state seen by others is nearly up to date."""
        chosen = self._budgets.loops if budgets is None else budgets
        times = take_unchanged(active for active in self._budgets.sources.values() if active.config.budget in chosen)
        if times:
            try:
                await self._write(self._store.polls.touch, [one for _, found in times for one in found.values()])
            except BaseException:
                give_back(times)
                raise

    async def forget_calls(self) -> None:
        """Delete calls that no window counts any more."""
        steady = self._clock.steady()
        for poll_loop in self._budgets.loops.values():
            longest = max(limit.seconds for limit in poll_loop.budget.limits)
            await self._write(self._store.calls.forget, poll_loop.name, before=steady - longest - 60)
