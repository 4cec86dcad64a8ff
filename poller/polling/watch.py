"""Watches over sources and budgets that should do what they do not."""

from __future__ import annotations

from collections.abc import Sequence

from poller.polling.budgets import Budgets
from poller.polling.health import HealthUpdate
from poller.polling.poll import Polling, take
from poller.polling.source import ActiveSource
from poller.polling.stall import Turns, due_since


class Watch:
    """Watches the sources and budgets of one engine."""

    def __init__(self, budgets: Budgets, polling: Polling) -> None:
        self._budgets = budgets
        self._polling = polling

    def is_well(self) -> bool:
        """Whether every source can be polled."""
        return all(
            active.discovery.is_done and active.health.snapshot().state == "ok"
            for active in self._budgets.sources.values()
        )

    async def check(self) -> None:
        """Report sources that are due but not polled, and promises that can no longer be kept because lists grew."""
        now = self._polling.clock.now()
        for poll_loop in self._budgets.loops.values():
            poll_loop.promises.check()
        beside: dict[str, list[ActiveSource]] = {}
        for active in self._budgets.sources.values():
            beside.setdefault(active.poll_loop.name, []).append(active)
        for active in self._budgets.sources.values():
            due = due_since(self._turns(active, beside[active.poll_loop.name], now), now)
            stalled = active.stall.check(now, due_since=due, last_poll=active.times.begun_at)
            await take(self._polling, active, HealthUpdate(notices=() if stalled is None else (stalled,)))

    def _turns(self, active: ActiveSource, beside: Sequence[ActiveSource], now: float) -> Turns:
        first = active.poll_loop.planner.choose(now)
        return Turns(
            is_free=active.poll_loop.next_at() <= self._polling.clock.steady() + 1.0,
            is_first=first is not None and first.source == active.name,
            due=active.poll_loop.planner.next_due(now, active.name),
            latest=max(other.times.begun_at or other.times.opened_at for other in beside),
        )
