"""Opens budgets: reads from the state what their windows, planners, sources and endpoints must know."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import structlog

from poller.polling.budgets import BuiltEndpoint, PolledBudget
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.health import SourceHealth
from poller.polling.holds import say_rebaselined
from poller.polling.loop import PollLoop
from poller.polling.poll import Polling
from poller.polling.source import ActiveSource, kept_health, recall_health
from poller.polling.unit_keys import first_units
from state.leases import FOREVER, Lease, Worker, budget_lease
from state.polls import EndpointSpec
from state.store import PollingStore

log = structlog.get_logger("poller")


class Opener:
    """Opens the budgets of one engine."""

    def __init__(self, store: PollingStore, polling: Polling) -> None:
        self._store = store
        self._write = polling.recorder.steps
        self._clock = polling.clock
        self._recorder = polling.recorder
        self._follow_up = polling.follow_up

    async def rewind(self, moved: float) -> float:
        """Move back a state that was written by a clock ahead of this one. Returns by how many seconds, below zero."""
        back = await self._write(self._store.rewind, now=self._clock.now(), by=min(moved, 0.0))
        if back < min(moved, 0.0):
            log.warning("state.moved_back", seconds=round(-back, 1), why="it was written by a clock that was ahead")
        return back

    async def take(self, worker: Worker, budgets: Collection[str]) -> list[Lease]:
        """Take the leases of budgets for ever: there is no other worker."""
        wanted = [budget_lease(name) for name in budgets]
        return await self._write(self._store.leases.take, worker, wanted, most=len(wanted), ttl=FOREVER)

    async def open(self, budget: PolledBudget, lease: Lease, before: PollLoop | None, *, moved: float) -> None:
        """Read the state of a budget that was built. What only `before` has in memory is taken over."""
        budget.lease = lease
        await self._restore(budget.poll_loop, before)
        learned = await self._learned(budget)
        for active in list(budget.sources.values()):
            await self._open_source(active, lease, budget.built.pop(active.name), learned)
        saved = learned.get(_planner_key(budget)) if before is None else before.planner.dump()
        self._recall(budget, saved, moved=moved)

    async def _learned(self, budget: PolledBudget) -> dict[str, bytes]:
        """What was saved of the budget's planner and of the health of its sources: one step for all of it."""
        keys = [key for active in budget.sources.values() for key in kept_health(active)]
        return await self._write(self._store.learned.load_all, [_planner_key(budget), *dict.fromkeys(keys)])

    async def _restore(self, poll_loop: PollLoop, before: PollLoop | None) -> None:
        """Restore the calls that the windows still count, and the end of the server's pause."""
        name, budget, asked = poll_loop.name, poll_loop.budget, self._clock.steady()
        longest = max(limit.seconds for limit in budget.limits)
        calls = await self._write(self._store.calls.restore, name, since=asked - longest - 1, now=asked)
        # A database says how long ago a call was answered when it looks, which is later than it was asked.
        late = (steady := self._clock.steady()) - asked
        calls = [(sent, answered + late) for sent, answered in calls]
        until = await self._write(self._store.calls.throttled_until, name)
        if before is not None:
            until = max(until or 0.0, before.budget.throttled_until(steady) or 0.0)
        budget.restore(calls, steady, throttled_until=until or None)
        poll_loop.limiter.noted = until or poll_loop.limiter.noted

    async def _open_source(
        self, active: ActiveSource, lease: Lease, built: Sequence[BuiltEndpoint], learned: Mapping[str, bytes]
    ) -> None:
        poll_loop, now = active.poll_loop, self._clock.now()
        # Steps that wait together share a commit.
        found = await asyncio.gather(
            *(self._write(self._store.polls.open, _spec(active.name, one), now=now) for one in built)
        )
        for one, opened in zip(built, found, strict=True):
            w = WatchedEndpoint(one.rules, opened, lease, now=now)
            active.endpoints[one.rules.endpoint.name] = w
            for age in opened.deletions:
                w.turnover.deleted(self._clock.steady() - age)
            for age in opened.creations:
                w.turnover.created(self._clock.steady() - age)
            active.deletions.queue.forget(w.name)
            if opened.is_reshaped:
                log.info("endpoint.rebaselined", endpoint=w.label, why="its path, id or excluded fields changed")
                _, recorded = await self._recorder.change(w, partial(_reshaped, w, now))
                self._follow_up.announce(recorded.notices)
        foreign = [(w, await self._follow_up.drop_foreign(w)) for w in active.endpoints.values()]
        for w in active.endpoints.values():
            parent = active.endpoints.get(w.rules.endpoint.parent or "")
            if parent is not None:
                parents = await self._write(self._store.polls.parents, parent.state.id)
                await self._follow_up.sync(w, parents)
            for key in w.units:
                poll_loop.planner.add(active.unit(w, key), now=poll_loop.time())
        active.health = SourceHealth(
            active.name, seen={w.name: at for w in active.endpoints.values() if (at := _last_seen(w)) is not None}
        )
        recall_health(active, learned)
        for w, keys in foreign:
            await self._follow_up.forget(active, w, keys)

    def _recall(self, budget: PolledBudget, saved: bytes | None, *, moved: float) -> None:
        poll_loop = budget.poll_loop
        if saved is not None:
            try:
                poll_loop.planner.load(saved, moved=moved)
            except ValueError as error:
                log.warning("planner.forgotten", budget=poll_loop.name, why=str(error))
        for active in budget.sources.values():
            for w in active.endpoints.values():
                _recall_times(active, w)


def _planner_key(budget: PolledBudget) -> str:
    return f"planner:{budget.name}"


def _spec(source: str, one: BuiltEndpoint) -> EndpointSpec:
    endpoint = one.rules.endpoint
    return EndpointSpec(source=source, name=endpoint.name, shape=one.shape, units=first_units(endpoint))


def _recall_times(active: ActiveSource, w: WatchedEndpoint) -> None:
    """Correct a planner that was saved up to a minute before a crash by what the state knows."""
    now = active.poll_loop.time()
    for key, unit in w.units.items():
        if unit.answered_at is not None:
            active.poll_loop.planner.polled(active.unit(w, key), unit.answered_at)
        # Gates of the source ended with the process: only failures of the unit count.
        active.poll_loop.planner.defer(active.unit(w, key), max(unit.retry_at or 0.0, now))


def _reshaped(w: WatchedEndpoint, now: float) -> Draft:
    draft = Draft(at=now)
    say_rebaselined(w, draft)
    return draft


def _last_seen(w: WatchedEndpoint) -> float | None:
    return max((unit.asked_at for unit in w.units.values() if unit.asked_at is not None), default=None)
