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
    """The budgets by name. `loops` and `sources` are replaced by new dictionaries, so no iteration is disturbed.

    `order`: the names of all sources of the configuration.
    """

    def __init__(self, order: Sequence[str]) -> None:
        self.loops: dict[str, PollLoop] = {}
        self.sources: dict[str, ActiveSource] = {}
        self._order = order
        self._budgets: dict[str, PolledBudget] = {}

    def __iter__(self) -> Iterator[PolledBudget]:
        return iter(list(self._budgets.values()))

    def __getitem__(self, name: str) -> PolledBudget:
        return self._budgets[name]

    def add(self, budget: PolledBudget) -> None:
        """Add a budget, and the sources that it has by now."""
        self._budgets[budget.name] = budget
        self.loops = {**self.loops, budget.name: budget.poll_loop}
        found = self.sources | budget.sources
        self.sources = {name: found[name] for name in self._order if name in found}

    async def drop(self, name: str) -> None:
        """Remove a budget, and close it."""
        budget = self._budgets.pop(name, None)
        if budget is None:
            return
        self.loops = {other: one for other, one in self.loops.items() if other != name}
        self.sources = {other: one for other, one in self.sources.items() if other not in budget.sources}
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
