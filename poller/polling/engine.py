"""The engine: builds sources, budgets and planners, polls what is due, and does what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httpx

from poller.clock import Clock
from poller.config.models import Config, SourceConfig
from poller.hooks.loading import Plugins
from poller.hooks.payloads import Polled
from poller.polling.budgets import Budgets
from poller.polling.builder import Builder
from poller.polling.children import FollowUp
from poller.polling.interventions import Interventions
from poller.polling.keeper import Keeper
from poller.polling.loop import PollLoop
from poller.polling.opener import Opener
from poller.polling.poll import Polling
from poller.polling.recorder import Recorder
from poller.polling.source import ActiveSource
from poller.polling.threads import Apart, SourceThread
from poller.polling.watch import Watch
from poller.sources.transport import system_trust
from state.leases import LOCAL, Lease, Worker, budget_lease
from state.steps import Steps
from state.store import PollingStore


class Listener(Protocol):
    """Receives what an engine does, after the fact."""

    def recorded(self, numbers: list[int]) -> None:
        """Events with these numbers are in the log."""
        ...

    def polled(self, poll: Polled) -> None:
        """A poll has ended."""
        ...


class Engine:
    """Polls every source of a configuration, each within its budget, from `open` to `close`."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        *,
        store: PollingStore,
        write: Steps,
        clock: Clock,
        listener: Listener,
        transport: httpx.AsyncBaseTransport | None = None,
        apart: Callable[[str], Apart] = SourceThread,
        worker: Worker = LOCAL,
        valid_until: Callable[[], float] | None = None,
    ) -> None:
        """`valid_until`: steady time until which this worker certainly owns what it polls; it sends no call after that.
        If given, there are other workers: budgets are added by `adopt`, and removed by `release` and `drop`.
        """
        self.config = config
        self._sources_of: dict[str, list[SourceConfig]] = {name: [] for name in config.budgets}
        for source in config.sources.values():
            self._sources_of[source.budget].append(source)
        self.budgets = Budgets(list(config.sources))
        recorder = Recorder(store.polls, write, reloaded=self.budgets.sync_planner)
        follow_up = FollowUp(recorder, store.notices, clock=clock, recorded=listener.recorded)
        self.polling = Polling(
            recorder=recorder, follow_up=follow_up, in_flight=set(), clock=clock, polled=listener.polled
        )
        self.interventions = Interventions(self.budgets, self.polling, store.learned)
        self.keeper = Keeper(self.budgets, store, write, clock)
        self.watch = Watch(self.budgets, self.polling)
        self._builder = Builder(
            plugins, self.polling, calls=store.calls, transport=transport, apart=apart, valid_until=valid_until
        )
        self._opener = Opener(store, self.polling)
        self._worker = worker
        self._is_alone = valid_until is None
        self._is_over = False

    @property
    def loops(self) -> dict[str, PollLoop]:
        """The loop of each budget."""
        return self.budgets.loops

    @property
    def sources(self) -> dict[str, ActiveSource]:
        """The sources by name, as the configuration lists them."""
        return self.budgets.sources

    async def prepare(self) -> None:
        """Build every budget, source, client and rule without reading the state.

        Raises PollerError if a plugin or rule is unusable. Every error that the configuration alone can cause is raised
        here. Other tasks run between two budgets: a thousand of them take seconds, and leases must be renewed.
        """
        system_trust.cache_clear()  # a reload reads the certificates again
        for name in self.config.budgets:
            if budget_lease(name) not in self.config.lacks:
                self._prepare_budget(name)
                await asyncio.sleep(0)

    def _prepare_budget(self, name: str) -> None:
        """Build a budget with its sources. Raises PollerError."""
        budget = self._builder.budget(name, self.config.budgets[name])
        self.budgets.add(budget)
        for source in self._sources_of[name]:
            self._builder.add(budget, source)
        self.budgets.add(budget)

    async def open(self, before: Engine | None = None, *, moved: float = 0.0) -> None:
        """Read the state and be ready to poll. Raises PollerError.

        `before` is the engine that is replaced; what only it has in memory is taken over (pauses that servers asked
        for, and what the planners learned since they were saved). `moved` is by how many seconds the clock was set
        since. A state written by a clock that was ahead is moved back first.
        """
        back = await self._opener.rewind(moved)
        if not self.loops:
            await self.prepare()
        if not self._is_alone:
            for name in self.loops:
                await self.drop(name)
            return
        for lease in await self._opener.take(self._worker, self.loops):
            known = None if before is None else before.loops.get(lease.subject)
            await self._opener.open(self.budgets[lease.subject], lease, known, moved=moved or back)

    async def adopt(self, lease: Lease) -> PollLoop:
        """Begin to poll a budget, as after a restart. If this raises PollerError, the budget is not polled."""
        try:
            self._prepare_budget(lease.subject)
            budget = self.budgets[lease.subject]
            await self._opener.open(budget, lease, None, moved=0.0)
        except BaseException:
            await self.drop(lease.subject)
            raise
        return budget.poll_loop

    async def release(self, name: str, *, seconds: float) -> None:
        """Stop polling a budget: give running polls that much time, and save what was learned."""
        poll_loop = self.loops[name]
        await poll_loop.tasks.finish(seconds)
        await self.keeper.save([name])
        await self.keeper.save_times([name])
        await poll_loop.limiter.flush()
        await self.drop(name)

    async def drop(self, name: str) -> None:
        """Stop polling a budget without writing to the state, because another worker owns it."""
        await self.budgets.drop(name)

    async def close(self, seconds: float = 5.0) -> None:
        """Let running polls end, and save what was learned."""
        try:
            await asyncio.gather(*(poll_loop.tasks.finish(seconds) for poll_loop in self.loops.values()))
            if not self._is_over:
                await self.keeper.save()
                await self.keeper.save_times()
                await asyncio.gather(*(poll_loop.limiter.flush() for poll_loop in self.loops.values()))
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Stop without writing to the state: answers under way are not recorded."""
        self._is_over = True
        await self.budgets.close()
