"""The engine: builds sources, budgets and planners, polls what is due, and does what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Protocol

import httpx
import structlog
from msgspec import structs

from poller.budget.budget import Budget
from poller.budget.limiter import CallRecords, RateLimiter
from poller.changes.endpoint_rules import EndpointRules
from poller.clock import Clock, SystemClock
from poller.config.models import Config, SourceConfig
from poller.hooks.loading import Plugins, said
from poller.hooks.payloads import Polled
from poller.planner.planner import Planner
from poller.polling.children import FollowUp
from poller.polling.choice import BudgetWork
from poller.polling.deletions import Deletions
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.fetch import Fetcher, asked_again_if_refused
from poller.polling.health import HealthUpdate, SourceHealth
from poller.polling.holds import say_rebaselined
from poller.polling.interventions import Interventions
from poller.polling.loop import PollLoop
from poller.polling.on_demand import Begun, OnDemandSweep
from poller.polling.poll import Polling, do, take
from poller.polling.recorder import Recorder
from poller.polling.source import (
    ActiveSource,
    Discovery,
    PollTimes,
    kept_episode,
    kept_health,
    recall_health,
    rules_of,
    shape_of,
)
from poller.polling.stall import StallWatch, due_since
from poller.polling.stall import Turns as PlannerTurns
from poller.polling.threads import Apart, SourceThread
from poller.polling.turn import Turns
from poller.polling.unit_keys import first_units
from poller.sources.transport import Network, build_client, fetch, system_trust
from state.errors import PollerError
from state.leases import FOREVER, LOCAL, Lease, Worker, budget_lease
from state.polls import EndpointSpec, Marks, UnitTimes
from state.steps import Steps
from state.store import PollingStore

log = structlog.get_logger("poller")


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
        self.config = config
        self.loops: dict[str, PollLoop] = {}
        self.sources: dict[str, ActiveSource] = {}
        self.recorder = Recorder(store.polls, write, reloaded=self._sync_planner)
        self.follow_up = FollowUp(self.recorder, store.notices, clock=clock, recorded=listener.recorded)
        self.polling = Polling(
            recorder=self.recorder, follow_up=self.follow_up, in_flight=set(), clock=clock, polled=listener.polled
        )
        self.interventions = Interventions(self.recorder, self.follow_up, clock)
        self._plugins = plugins
        self._store = store
        self._write = write
        self._clock = clock
        self._transport = transport  # None: the network
        self._clients: dict[str, httpx.AsyncClient] = {}  # by source
        self._worker = worker
        # Steady time until which this worker certainly owns what it polls; it sends no call after that. If given, there
        # are other workers: budgets are added by `adopt`, and removed by `release` and `drop`.
        self._valid_until = valid_until
        self._rules: dict[
            str, list[tuple[EndpointRules, str]]
        ] = {}  # by source: its endpoints, built but not opened yet
        self._is_over = False
        self._apart = apart  # the thread for plugin code, by source
        self._works: dict[str, BudgetWork] = {}
        self._leases: dict[str, Lease] = {}  # by budget

    def prepare(self) -> None:
        """Build every budget, source, client and rule without reading the state.

        Raises PollerError if a plugin or rule is unusable. Every error that the configuration alone can cause is raised
        here.
        """
        system_trust.cache_clear()  # a reload reads the certificates again
        for name in self.config.budgets:
            self._prepare_budget(name)

    def _prepare_budget(self, name: str) -> None:
        """Build a budget with its sources. Raises PollerError."""
        budget = self.config.budgets[name]
        self.loops = {**self.loops, name: self._poll_loop(name, budget.limits, budget.share, budget.concurrency)}
        for source in self.config.sources.values():
            if source.budget != name:
                continue
            try:
                self._build_source(source)
            except PollerError:
                raise
            except Exception as error:  # plugin code may raise anything, and the source is to blame
                raise PollerError(
                    f"sources.{source.name}: cannot be set up: {said(error)}", hint="poller check says the same"
                ) from error

    async def open(self, before: Engine | None = None, *, moved: float = 0.0) -> None:
        """Read the state and be ready to poll. Raises PollerError.

        `before` is the engine that is replaced; what only it has in memory is taken over (pauses that servers asked
        for, and what the planners learned since they were saved). `moved` is by how many seconds the clock was set
        since. A state written by a clock that was ahead is moved back first.
        """
        back = await self._write(self._store.rewind, now=self._clock.now(), by=min(moved, 0.0))
        if back < min(moved, 0.0):
            log.warning("state.moved_back", seconds=round(-back, 1), why="it was written by a clock that was ahead")
        if not self.loops:
            self.prepare()
        if self._valid_until is not None:
            for name in self.loops:
                await self.drop(name)
            return
        wanted = [budget_lease(name) for name in self.loops]
        for lease in await self._write(self._store.leases.take, self._worker, wanted, most=len(wanted), ttl=FOREVER):
            await self._open_budget(lease, before, moved=moved or back)

    async def adopt(self, lease: Lease) -> PollLoop:
        """Begin to poll a budget, as after a restart. If this raises PollerError, the budget is not polled."""
        try:
            self._prepare_budget(lease.subject)
            await self._open_budget(lease, None, moved=0.0)
        except BaseException:
            await self.drop(lease.subject)
            raise
        return self.loops[lease.subject]

    async def release(self, name: str, *, seconds: float) -> None:
        """Stop polling a budget: give running polls that much time, and save what was learned."""
        poll_loop = self.loops[name]
        await poll_loop.tasks.finish(seconds)
        await self.save([name])
        await self.save_times([name])
        await poll_loop.limiter.flush()
        await self.drop(name)

    async def drop(self, name: str) -> None:
        """Stop polling a budget without writing to the state, because another worker owns it."""
        poll_loop, lost = self.loops.get(name), [one for one in self.sources.values() if one.config.budget == name]
        self.loops = {other: one for other, one in self.loops.items() if other != name}
        self.sources = {other: one for other, one in self.sources.items() if one not in lost}
        if poll_loop is not None:
            await poll_loop.tasks.finish(0.0)
        for active in lost:
            self._rules.pop(active.name, None)
            active.apart.close()
            if (client := self._clients.pop(active.name, None)) is not None:  # the engine may be over meanwhile
                await client.aclose()
        self._works.pop(name, None)
        self._leases.pop(name, None)

    async def _open_budget(self, lease: Lease, before: Engine | None, *, moved: float) -> None:
        """Read the state of a budget that was prepared."""
        self._leases[lease.subject] = lease
        poll_loop = self.loops[lease.subject]
        await self._restore(poll_loop, before)
        for active in list(self.sources.values()):
            if active.poll_loop is poll_loop:
                await self._open_source(active)
        await self._recall(poll_loop, before, moved=moved)

    async def close(self, seconds: float = 5.0) -> None:
        """Let running polls end, and save what was learned."""
        try:
            await asyncio.gather(*(poll_loop.tasks.finish(seconds) for poll_loop in self.loops.values()))
            if not self._is_over:
                await self.save()
                await self.save_times()
                await asyncio.gather(*(poll_loop.limiter.flush() for poll_loop in self.loops.values()))
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Stop without writing to the state: answers under way are not recorded."""
        self._is_over = True
        await asyncio.gather(*(poll_loop.tasks.finish(0.0) for poll_loop in self.loops.values()))
        for active in self.sources.values():
            active.apart.close()
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    def _poll_loop(self, name: str, limits: Any, share: float, concurrency: int) -> PollLoop:
        budget = Budget(name, limits, share=share, concurrency=concurrency)

        async def spend(answers: list[tuple[int, float]]) -> int:
            anchor = str(self._clock.anchor()) if isinstance(self._clock, SystemClock) else ""
            steady, times = self._clock.steady(), _take_unchanged(work.sources.values())
            try:
                return await self._write(
                    self._store.calls.spend,
                    self._leases[name],
                    steady,
                    answers=answers,
                    unchanged=[one for _, found in times for one in found.values()],
                    anchor=anchor,
                )
            except BaseException:
                _give_back(times)
                raise

        async def flush(answers: list[tuple[int, float]]) -> None:
            await self._write(self._store.calls.answered, answers)

        async def throttle(until: float) -> None:
            await self._write(self._store.calls.throttle, name, until)

        limiter = RateLimiter(budget, self._clock, CallRecords(spend=spend, flush=flush, throttle=throttle))
        limiter.valid_until = self._valid_until
        planner = Planner([], now=self._clock.now())
        work = self._works[name] = BudgetWork(
            name, planner, self.polling.in_flight, self._clock, do=partial(do, self.polling)
        )
        return PollLoop(name, planner=planner, limiter=limiter, clock=self._clock, queue=work)

    async def _restore(self, poll_loop: PollLoop, before: Engine | None) -> None:
        """Restore the calls that the windows still count, and the end of the server's pause."""
        name, budget, asked = poll_loop.name, poll_loop.budget, self._clock.steady()
        longest = max(limit.seconds for limit in budget.limits)
        calls = await self._write(self._store.calls.restore, name, since=asked - longest - 1, now=asked)
        # A database says how long ago a call was answered when it looks, which is later than it was asked.
        late = (steady := self._clock.steady()) - asked
        calls = [(sent, answered + late) for sent, answered in calls]
        until = await self._write(self._store.calls.throttled_until, name)
        if before is not None and name in before.loops:
            until = max(until or 0.0, before.loops[name].budget.throttled_until(steady) or 0.0)
        budget.restore(calls, steady, throttled_until=until or None)
        poll_loop.limiter.noted = until or poll_loop.limiter.noted

    def _build_source(self, config: SourceConfig) -> None:
        source = config.build()
        poll_loop = self.loops[config.budget]
        client = build_client(_network_of(config), limiter=poll_loop.limiter, auth=source.auth, inner=self._transport)
        self._clients[config.name] = client
        ask = asked_again_if_refused(partial(fetch, client, most=config.max_answer))
        apart = self._apart(config.name)
        fetcher = Fetcher(source, ask, store=self._store.polls, steps=self._write, clock=self._clock, apart=apart)
        active = ActiveSource(
            config=config,
            source=source,
            poll_loop=poll_loop,
            fetcher=fetcher,
            turns=Turns(self.recorder, apart),
            deletions=Deletions(fetcher, self.recorder, apart, self._clock),
            health=SourceHealth(config.name),
            stall=StallWatch(config.name),
            discovery=Discovery(not source.asks_first()),
            times=PollTimes(self._clock.now()),
            apart=apart,
        )
        self._works[config.budget].sources[config.name] = active
        built = {**self.sources, config.name: active}  # a new dictionary, so that current iterations are not disturbed
        self.sources = {name: built[name] for name in self.config.sources if name in built}
        self._rules[config.name] = [
            (rules_of(config, endpoint, self._plugins), shape_of(source, endpoint, config.endpoint(endpoint.name)))
            for endpoint in config.chosen(source.endpoints())
        ]

    async def _open_source(self, active: ActiveSource) -> None:
        poll_loop, now = active.poll_loop, self._clock.now()
        for rules, shape in self._rules.pop(active.name):
            spec = EndpointSpec(
                source=active.name, name=rules.endpoint.name, shape=shape, units=first_units(rules.endpoint)
            )
            opened = await self._write(self._store.polls.open, spec, now=now)
            w = active.endpoints[rules.endpoint.name] = WatchedEndpoint(
                rules, opened, self._leases[active.config.budget]
            )
            for age in opened.deletions:
                w.turnover.deleted(self._clock.steady() - age)
            for age in opened.creations:
                w.turnover.created(self._clock.steady() - age)
            active.deletions.queue.forget(w.name)
            if opened.is_reshaped:
                log.info("endpoint.rebaselined", endpoint=w.label, why="its path, id or excluded fields changed")
                _, recorded = await self.recorder.change(w, partial(_reshaped, w, now))
                self.follow_up.announce(recorded.notices)
        for w in active.endpoints.values():
            parent = active.endpoints.get(w.rules.endpoint.parent or "")
            if parent is not None:
                parents = await self._write(self._store.polls.parents, parent.state.id)
                await self.follow_up.sync(w, parents)
            for key in w.units:
                poll_loop.planner.add(active.unit(w, key), now=poll_loop.time())
        active.health = SourceHealth(
            active.name, seen={w.name: at for w in active.endpoints.values() if (at := _last_seen(w)) is not None}
        )
        recall_health(active, {key: await self._write(self._store.learned.load, key) for key in kept_health(active)})

    def _sync_planner(self, w: WatchedEndpoint) -> None:
        """Give the planner exactly the units of an endpoint that was read again."""
        active = self.sources[w.state.source]
        wanted = {active.unit(w, key) for key in w.units}
        for unit in active.poll_loop.planner.units:
            if (unit.source, unit.endpoint) == (active.name, w.name) and unit not in wanted:
                active.poll_loop.planner.remove(unit)
        for unit in wanted:
            active.poll_loop.planner.add(unit, now=active.poll_loop.time())

    async def _recall(self, poll_loop: PollLoop, before: Engine | None, *, moved: float) -> None:
        if before is not None and poll_loop.name in before.loops:
            saved: bytes | None = before.loops[poll_loop.name].planner.dump()
        else:
            saved = await self._write(self._store.learned.load, f"planner:{poll_loop.name}")
        if saved is not None:
            try:
                poll_loop.planner.load(saved, moved=moved)
            except ValueError as error:
                log.warning("planner.forgotten", budget=poll_loop.name, why=str(error))
        for active in self.sources.values():
            if active.poll_loop is poll_loop:
                for w in active.endpoints.values():
                    self._recall_times(active, w)

    def _recall_times(self, active: ActiveSource, w: WatchedEndpoint) -> None:
        """Correct a planner that was saved up to a minute before a crash by what the state knows."""
        now = active.poll_loop.time()
        for key, unit in w.units.items():
            if unit.answered_at is not None:
                active.poll_loop.planner.polled(active.unit(w, key), unit.answered_at)
            # Gates of the source ended with the process: only failures of the unit count.
            active.poll_loop.planner.defer(active.unit(w, key), max(unit.retry_at or 0.0, now))

    async def begin_sweeps(self, endpoints: Collection[tuple[str, str]] | None = None) -> OnDemandSweep:
        """Begin a complete sweep of every endpoint, or of those named (source, endpoint), and poll nothing else."""
        began = {}
        for active in self.sources.values():
            for w in active.endpoints.values():
                if endpoints is None or (active.name, w.name) in endpoints:
                    self._forgive(active, w)
                    await self.recorder.change(w, partial(_begin_sweep, w, self._clock.now()))
                    began[active.name, w.name] = Begun(w.state.sweep, w.state.sweep_order)
        sweeping = OnDemandSweep(self.sources, self.polling.in_flight, began)
        for work in self._works.values():
            work.sweeping = sweeping
        return sweeping

    def _forgive(self, active: ActiveSource, w: WatchedEndpoint) -> None:
        """Poll failed units as if they had never failed: a command always polls, and reports current errors."""
        for key, unit in list(w.units.items()):
            if unit.failures:
                w.put(structs.replace(unit, failures=0, retry_at=None, error=None))
                active.poll_loop.planner.defer(active.unit(w, key), active.poll_loop.time())

    def end_sweeps(self) -> None:
        """Let the planners choose again."""
        for work in self._works.values():
            work.sweeping = None

    def probe_now(self) -> None:
        """Poll at once whatever waits after a failure, because an operator has fixed the cause."""
        for active in self.sources.values():
            _probe(active)

    async def resume(self, budget: str) -> float | None:
        """End a pause that a server asked for, and poll the budget's sources at once. Returns when the pause would have
        ended (Unix seconds), or None if there was none. The budget's own limits still apply.
        """
        poll_loop = self.loops[budget]
        until = poll_loop.pauses.until()
        await poll_loop.limiter.resume()
        poll_loop.pauses.over()
        await self._write(self._store.learned.save, {kept_episode(poll_loop): poll_loop.pauses.dump()})
        for active in self._works[budget].sources.values():
            _probe(active)
        return until

    # Housekeeping.

    async def save(self, budgets: Collection[str] | None = None) -> None:
        """Save what the planners learned, and the reported failures, of all budgets or of those named."""
        chosen = self.loops if budgets is None else budgets
        learned = {f"planner:{name}": self.loops[name].planner.dump() for name in chosen}
        for active in self.sources.values():
            if active.config.budget in chosen:
                learned |= kept_health(active)
        await self._write(self._store.learned.save, learned)

    async def save_times(self, budgets: Collection[str] | None = None) -> None:
        """Save the times of polls that found nothing new, so that the state seen by others is nearly up to date."""
        chosen = self.loops if budgets is None else budgets
        times = _take_unchanged(active for active in self.sources.values() if active.config.budget in chosen)
        if times:
            try:
                await self._write(self._store.polls.touch, [one for _, found in times for one in found.values()])
            except BaseException:
                _give_back(times)
                raise

    async def forget_calls(self) -> None:
        """Delete calls that no window counts any more."""
        steady = self._clock.steady()
        for poll_loop in self.loops.values():
            longest = max(limit.seconds for limit in poll_loop.budget.limits)
            await self._write(self._store.calls.forget, poll_loop.name, before=steady - longest - 60)

    def is_well(self) -> bool:
        """Whether every source can be polled."""
        return all(
            active.discovery.is_done and active.health.snapshot().state == "ok" for active in self.sources.values()
        )

    async def watch(self) -> None:
        """Report sources that are due but not polled, and promises that can no longer be kept because lists grew."""
        now = self._clock.now()
        for poll_loop in self.loops.values():
            poll_loop.promises.check()
        for active in self.sources.values():
            due = due_since(self._turns(active, now), now)
            stalled = active.stall.check(now, due_since=due, last_poll=active.times.begun_at)
            await take(self.polling, active, HealthUpdate(notices=() if stalled is None else (stalled,)))

    def _turns(self, active: ActiveSource, now: float) -> PlannerTurns:
        first = active.poll_loop.planner.choose(now)
        beside = [other for other in self.sources.values() if other.poll_loop is active.poll_loop]
        return PlannerTurns(
            is_free=active.poll_loop.next_at() <= self._clock.steady() + 1.0,
            is_first=first is not None and first.source == active.name,
            due=active.poll_loop.planner.next_due(now, active.name),
            latest=max(other.times.begun_at or other.times.opened_at for other in beside),
        )


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


Times = list[tuple[WatchedEndpoint, dict[int, UnitTimes]]]


def _take_unchanged(sources: Iterable[ActiveSource]) -> Times:
    """Take the unwritten unchanged polls from their endpoints."""
    found = []
    for active in sources:
        for w in active.endpoints.values():
            if w.unchanged:
                found.append((w, w.unchanged))
                w.unchanged = {}
    return found


def _give_back(times: Times) -> None:
    """Return polls to their endpoints after writing them failed."""
    for w, found in times:
        w.unchanged = found | w.unchanged


def _reshaped(w: WatchedEndpoint, now: float) -> Draft:
    draft = Draft(at=now)
    say_rebaselined(w, draft)
    return draft


def _begin_sweep(w: WatchedEndpoint, now: float) -> Draft:
    if w.guards.recount is not None:
        w.guards.recount.seen.clear()
    return Draft(at=now, marks=Marks(begin_sweep=(now, w.requests.next())))


def _last_seen(w: WatchedEndpoint) -> float | None:
    return max((unit.asked_at for unit in w.units.values() if unit.asked_at is not None), default=None)


def _network_of(config: SourceConfig) -> Network:
    return Network(
        source=config.name,
        timeout=config.timeout,
        most=config.max_answer,
        verify=config.verify,
        ca_file=config.ca_file,
        proxy=config.proxy,
    )
