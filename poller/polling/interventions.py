"""Operators' decisions: hold, release or rebaseline an endpoint, sweep or poll at once, end a pause."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

from msgspec import structs

from poller.polling import holds
from poller.polling.budgets import Budgets
from poller.polling.certainty import accept_doubts
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.on_demand import Begun, OnDemandSweep
from poller.polling.poll import Polling
from poller.polling.results import PollResult, UnitNews
from poller.polling.source import ActiveSource, kept_episode
from state.polls import Marks, Recorded
from state.store import LearnedStore


class Interventions:
    """Executes operators' decisions; those about an endpoint in a turn of it."""

    def __init__(self, budgets: Budgets, polling: Polling, learned: LearnedStore) -> None:
        self._budgets = budgets
        self._recorder = polling.recorder
        self._follow_up = polling.follow_up
        self._in_flight = polling.in_flight
        self._clock = polling.clock
        self._learned = learned

    async def hold(self, active: ActiveSource, w: WatchedEndpoint) -> bool:
        """Hold an endpoint. False if it was held already."""
        suspects = await self._recorder.suspect_count(w)

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            holds.hold(w, draft, suspects)
            return draft

        _, recorded = await self._recorder.change(w, decide)
        await self._follow(active, w, recorded)
        return bool(recorded.notices)

    async def release(
        self, active: ActiveSource, w: WatchedEndpoint, *, why: str, accept: bool = False, emit: bool = False
    ) -> None:
        """End a hold, see `holds.release`."""
        before = list(w.units)

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            holds.release(w, draft, why=why, accept=accept, emit=emit)
            return draft

        _, recorded = await self._recorder.change(w, decide)
        await self._follow(active, w, recorded, dropped=before if accept else [])

    async def accept_doubts(self, w: WatchedEndpoint) -> None:
        """Accept the contradictions of the latest sweep as normal for this list."""

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            accept_doubts(w, draft)
            return draft

        await self._recorder.change(w, decide)

    async def rebaseline(self, active: ActiveSource, w: WatchedEndpoint) -> None:
        """Take the next sweep as it is, without events for its objects."""
        before = list(w.units)

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            holds.rebaseline(w, draft)
            return draft

        _, recorded = await self._recorder.change(w, decide)
        await self._follow(active, w, recorded, dropped=before)

    async def begin_sweeps(self, endpoints: Collection[tuple[str, str]] | None = None) -> OnDemandSweep:
        """Begin a complete sweep of every endpoint, or of those named (source, endpoint), and poll nothing else."""
        chosen = [
            (active, w)
            for active in self._budgets.sources.values()
            for w in active.endpoints.values()
            if endpoints is None or (active.name, w.name) in endpoints
        ]
        for active, w in chosen:
            _forgive(active, w)
        # Steps that wait together share a commit.
        await asyncio.gather(
            *(self._recorder.change(w, partial(_begin_sweep, w, self._clock.now())) for _, w in chosen)
        )
        began = {(active.name, w.name): Begun(w.state.sweep, w.state.sweep_order) for active, w in chosen}
        sweeping = OnDemandSweep(self._budgets.sources, self._in_flight, began)
        for budget in self._budgets:
            budget.work.sweeping = sweeping
        return sweeping

    def end_sweeps(self) -> None:
        """Let the planners choose again."""
        for budget in self._budgets:
            budget.work.sweeping = None

    def probe_now(self) -> None:
        """Poll at once whatever waits after a failure, because an operator has fixed the cause."""
        for active in self._budgets.sources.values():
            _probe(active)

    async def resume(self, budget: str) -> float | None:
        """End a pause that a server asked for, and poll the budget's sources at once. Returns when the pause would have
        ended (Unix seconds), or None if there was none. The budget's own limits still apply.
        """
        poll_loop = self._budgets.loops[budget]
        until = poll_loop.pauses.until()
        await poll_loop.limiter.resume()
        poll_loop.pauses.over()
        await self._recorder.steps(self._learned.save, {kept_episode(poll_loop): poll_loop.pauses.dump()})
        for active in self._budgets[budget].sources.values():
            _probe(active)
        return until

    async def _follow(
        self, active: ActiveSource, w: WatchedEndpoint, recorded: Recorded, *, dropped: list[str] | None = None
    ) -> None:
        added = [unit.key for unit in recorded.units]
        result = PollResult(events=recorded.notices, units=UnitNews(added=added, dropped=dropped or []))
        await self._follow_up.follow(active, w, result)


def _forgive(active: ActiveSource, w: WatchedEndpoint) -> None:
    """Poll failed units as if they had never failed: a command always polls, and reports current errors."""
    for key, unit in list(w.units.items()):
        if unit.failures:
            w.put(structs.replace(unit, failures=0, retry_at=None, error=None))
            active.poll_loop.planner.defer(active.unit(w, key), active.poll_loop.time())


def _probe(active: ActiveSource) -> None:
    """Let whatever waits after a failure be polled at once."""
    active.health.probe_now()
    for w in active.endpoints.values():
        for key, unit in list(w.units.items()):
            if unit.failures:
                w.put(structs.replace(unit, retry_at=None))
            active.poll_loop.planner.defer(
                active.unit(w, key), active.poll_loop.time()
            )  # including units that the source's gate held back
    active.poll_loop.refresh()


def _begin_sweep(w: WatchedEndpoint, now: float) -> Draft:
    if w.guards.recount is not None:
        w.guards.recount.seen.clear()
    return Draft(at=now, marks=Marks(begin_sweep=(now, w.requests.next())))
