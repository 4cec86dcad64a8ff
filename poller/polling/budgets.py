"""The budgets that an engine polls, each with its sources and their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import httpx
import msgspec

from poller.changes.endpoint_rules import EndpointRules
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.loop import PollLoop
from poller.polling.source import ActiveSource
from state.leases import Lease

if TYPE_CHECKING:  # what chooses the work of a budget
    from poller.polling.budget_work import BudgetWork


class BuiltEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that was built and not opened yet."""

    rules: EndpointRules
    shape: str


class PolledBudget(msgspec.Struct, kw_only=True):
    """One budget and everything that lives with it."""

    poll_loop: PollLoop
    work: BudgetWork
    lease: Lease | None = None  # None: it was built, and nothing of the state was read
    clients: list[httpx.AsyncClient] = msgspec.field(default_factory=list)
    built: dict[str, list[BuiltEndpoint]] = msgspec.field(default_factory=dict)  # by source

    @property
    def name(self) -> str:
        """The budget's name."""
        return self.poll_loop.name

    @property
    def sources(self) -> dict[str, ActiveSource]:
        """Its sources by name."""
        return self.work.sources

    async def close(self) -> None:
        """Stop without writing to the state: answers under way are not recorded."""
        await self.poll_loop.tasks.finish(0.0)
        for active in self.sources.values():
            active.apart.close()
        clients, self.clients = self.clients, []
        for client in clients:
            await client.aclose()


class Budgets:
    """The budgets by name. `order`: the names of all sources of the configuration."""

    def __init__(self, order: Sequence[str]) -> None:
        self._order = order
        self._budgets: dict[str, PolledBudget] = {}
        self._loops: dict[str, PollLoop] | None = None  # None: to be made again, once for all that has changed
        self._sources: dict[str, ActiveSource] | None = None

    def __iter__(self) -> Iterator[PolledBudget]:
        return iter(list(self._budgets.values()))

    def __getitem__(self, name: str) -> PolledBudget:
        return self._budgets[name]

    @property
    def loops(self) -> dict[str, PollLoop]:
        """The loop of each budget. Another dictionary after each change, so that no iteration is disturbed."""
        if self._loops is None:
            self._loops = {name: budget.poll_loop for name, budget in self._budgets.items()}
        return self._loops

    @property
    def sources(self) -> dict[str, ActiveSource]:
        """The sources of all budgets, in order. Another dictionary after each change."""
        if self._sources is None:
            found = {name: active for budget in self._budgets.values() for name, active in budget.sources.items()}
            self._sources = {name: found[name] for name in self._order if name in found}
        return self._sources

    def add(self, budget: PolledBudget) -> None:
        """Add a budget, and the sources that it has by now."""
        self._budgets[budget.name] = budget
        self._loops = self._sources = None

    async def drop(self, name: str) -> None:
        """Remove a budget, and close it."""
        budget = self._budgets.pop(name, None)
        if budget is None:
            return
        self._loops = self._sources = None
        await budget.close()

    async def close(self) -> None:
        """Close all of them. They can still be looked at."""
        await asyncio.gather(*(budget.close() for budget in self))

    def sync_planner(self, w: WatchedEndpoint) -> None:
        """Give the planner exactly the units of an endpoint that was read again."""
        active = self.sources[w.state.source]
        wanted = {active.unit(w, key) for key in w.units}
        for unit in active.poll_loop.planner.units:
            if (unit.source, unit.endpoint) == (active.name, w.name) and unit not in wanted:
                active.poll_loop.planner.remove(unit)
        for unit in wanted:
            active.poll_loop.planner.add(unit, now=active.poll_loop.time())
