"""Sources, budgets and planners put together: what is due is polled, and what follows from it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Any, Protocol

import httpx
import structlog
from msgspec import structs

from poller.budget.budget import Budget
from poller.changes.page import Watch
from poller.clock import Clock, SystemClock
from poller.config.models import Config, SourceConfig
from poller.hooks.loading import Plugins, said
from poller.planner.planner import Planner
from poller.polling.children import Following
from poller.polling.endpoint import Watching
from poller.polling.fetch import Worker
from poller.polling.health import HealthUpdate, SourceHealth, StallWatch, Turns, due_since
from poller.polling.loop import Lane
from poller.polling.on_demand import Flying, Sweeping
from poller.polling.poll import Polling
from poller.polling.recording import Settling
from poller.polling.results import Outcome, Polled
from poller.polling.source import (
    Run,
    kept_health,
    open_watching,
    recall_health,
    shape_of,
    sync_children,
    watch_of,
)
from poller.polling.work import Chooser
from poller.sources.transport import Gate, build_client, fetch
from state.errors import PollerError
from state.sqlite.store import Store
from state.sqlite.writer import Write

log = structlog.get_logger("poller")


class Listener(Protocol):
    """Who hears what an engine does, after the fact."""

    def recorded(self, numbers: list[int]) -> None:
        """Events with these numbers are in the log."""
        ...

    def polled(self, poll: Polled) -> None:
        """A poll is over."""
        ...


class Engine:
    """Polls every source of a configuration, each within its budget. Use as `async with Engine(...) as engine`."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        *,
        store: Store,
        write: Write,
        clock: Clock,
        listener: Listener,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.config = config
        self.lanes: dict[str, Lane] = {}
        self.runs: dict[str, Run] = {}
        self.settling = Settling(store.polls)
        self.following = Following(self.settling, store=store, write=write, clock=clock, recorded=listener.recorded)
        self._plugins = plugins
        self._store = store
        self._write = write
        self._clock = clock
        self._transport = transport  # None: the network
        self._clients: list[httpx.AsyncClient] = []
        self._watches: dict[str, list[tuple[Watch, str]]] = {}  # by source: its endpoints, built and not opened yet
        self._is_over = False
        self._flying: Flying = set()
        self._worker = Worker(
            self._flying, self.following, store=store, write=write, clock=clock, polled=listener.polled
        )
        self._chooser = Chooser(self.runs, self._flying, worker=self._worker, clock=clock)

    def prepare(self) -> None:
        """Build every budget, source, client and rule, without a look at the state.

        Raises PollerError where a plugin or rule is unusable. Whatever a configuration alone can do wrong fails here.
        """
        for name, budget in self.config.budgets.items():
            self.lanes[name] = self._lane(name, budget.limits, budget.share, budget.concurrency)
        for source in self.config.sources.values():
            try:
                self._build_source(source)
            except PollerError:
                raise
            except Exception as error:  # a plugin, or what it was given, may raise anything: it is the source's fault
                raise PollerError(
                    f"sources.{source.name}: cannot be set up: {said(error)}", hint="poller check says the same"
                ) from error

    async def open(self, before: Engine | None = None, *, moved: float = 0.0) -> None:
        """Read from the state how everything stands, and be ready to poll. Raises PollerError.

        `before` is the engine that is replaced: what only its memory knew (a server's word on its calls, what the
        planners have learned since they were saved) is taken over. `moved` is by how many seconds the clock was set
        since. A state that was written by a clock ahead of this one is moved back first.
        """
        back = await self._write(self._store.rewind, now=self._clock.now(), by=min(moved, 0.0))
        if back < min(moved, 0.0):
            log.warning("state.moved_back", seconds=round(-back, 1), why="it was written by a clock that was ahead")
        if not self.lanes:
            self.prepare()
        for lane in self.lanes.values():
            await self._restore(lane, before)
        for run in self.runs.values():
            await self._open_source(run)
        for lane in self.lanes.values():
            await self._recall(lane, before, moved=moved or back)

    async def close(self, seconds: float = 5.0) -> None:
        """Let what is under way end, and keep what was learned."""
        try:
            await asyncio.gather(*(lane.finish(seconds) for lane in self.lanes.values()))
            if not self._is_over:
                await self.save()
                await asyncio.gather(*(lane.gate.flush() for lane in self.lanes.values()))
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """End without a word to the state: answers that are under way are not recorded."""
        self._is_over = True
        await asyncio.gather(*(lane.finish(0.0) for lane in self.lanes.values()))
        for client in self._clients:
            await client.aclose()
        self._clients.clear()

    def _lane(self, name: str, limits: Any, share: float, concurrency: int) -> Lane:
        budget = Budget(name, limits, share=share, concurrency=concurrency)

        async def spend(answers: list[tuple[int, float]]) -> int:
            anchor = str(self._clock.anchor()) if isinstance(self._clock, SystemClock) else ""
            step = partial(self._store.calls.spend, name, self._clock.steady(), answers=answers, anchor=anchor)
            return await self._write(step)

        async def flush(answers: list[tuple[int, float]]) -> None:
            await self._write(self._store.calls.answered, answers)

        async def throttle(until: float) -> None:
            await self._write(self._store.calls.throttle, name, until)

        gate = Gate(budget, self._clock, spend=spend, flush=flush, throttle=throttle)
        planner = Planner([], now=self._clock.now())
        return Lane(
            name=name, budget=budget, share=share, planner=planner, gate=gate, clock=self._clock, crew=self._chooser
        )

    async def _restore(self, lane: Lane, before: Engine | None) -> None:
        """The calls that its windows still count, and until when the server wants none."""
        name, budget, steady = lane.name, lane.budget, self._clock.steady()
        longest = max(limit.seconds for limit in budget.limits)
        restore = partial(self._store.calls.restore, name, since=steady - longest - 1, now=steady)
        calls = await self._write(restore)
        until = await self._write(self._store.calls.throttled_until, name)
        if before is not None and name in before.lanes:
            until = max(until or 0.0, before.lanes[name].budget.throttled_until(steady) or 0.0)
        budget.restore(calls, steady, throttled_until=until or None)

    def _build_source(self, config: SourceConfig) -> None:
        source = config.build()
        lane = self.lanes[config.budget]
        client = build_client(config, gate=lane.gate, auth=source.auth, inner=self._transport)
        self._clients.append(client)
        polling = Polling(
            source, settling=self.settling, reader=self._store.poll_reader, write=self._write, clock=self._clock
        )
        run = Run(
            name=config.name,
            config=config,
            source=source,
            lane=lane,
            polling=polling,
            health=SourceHealth(config.name),
            stall=StallWatch(config.name),
            opened_at=self._clock.now(),
            discovered=not source.asks_first(),
            ask=partial(fetch, client, most=config.max_answer),
        )
        self.runs[config.name] = run
        self._watches[config.name] = [
            (watch_of(config, endpoint, self._plugins), shape_of(source, endpoint, config.endpoint(endpoint.name)))
            for endpoint in config.chosen(source.endpoints())
        ]

    async def _open_source(self, run: Run) -> None:
        config, lane, now = run.config, run.lane, self._clock.now()
        for watch, shape in self._watches.pop(config.name):
            w, reshaped = await self._write(open_watching, self._store, run, watch, shape, now=now)
            run.watchings[w.name] = w
            run.stale_suspects.add(w.name)
            if reshaped:
                log.info("endpoint.rebaselined", endpoint=w.label, why="its path, id or excluded fields changed")
                outcome = Outcome()
                await self._write(self.settling.guarding.say_rebaselined, w, now, outcome)
                self.following.announce(outcome.events)
        for w in run.watchings.values():
            if w.is_child:
                await self._write(sync_children, self._store, run, w)
            for key in w.units:
                lane.planner.add(run.unit(w, key), now=now)
        run.health = SourceHealth(
            config.name, seen={w.name: at for w in run.watchings.values() if (at := _last_seen(w)) is not None}
        )
        await self._write(recall_health, self._store, run)

    async def _recall(self, lane: Lane, before: Engine | None, *, moved: float) -> None:
        if before is not None and lane.name in before.lanes:
            saved: bytes | None = before.lanes[lane.name].planner.dump()
        else:
            saved = await self._write(self._store.learned.load, f"planner:{lane.name}")
        if saved is not None:
            try:
                lane.planner.load(saved, moved=moved)
            except ValueError as error:
                log.warning("planner.forgotten", budget=lane.name, why=str(error))
        for run in self.runs.values():
            if run.lane is lane:
                for w in run.watchings.values():
                    self._recall_times(run, w)

    def _recall_times(self, run: Run, w: Watching) -> None:
        """What the state knows better than what was saved a minute before a crash."""
        for key, unit in w.units.items():
            if unit.answered_at is not None:
                run.lane.planner.polled(run.unit(w, key), unit.answered_at)
            # That the source held it back ended with the process: only its own failures count.
            run.lane.planner.defer(run.unit(w, key), max(unit.retry_at or 0.0, self._clock.now()))

    async def begin_sweeps(self, endpoints: Collection[tuple[str, str]] | None = None) -> Sweeping:
        """Begin a complete sweep of every endpoint (or those named: source, endpoint), and poll nothing else."""
        began = {}
        for run in self.runs.values():
            for w in run.watchings.values():
                if endpoints is None or (run.name, w.name) in endpoints:
                    self._forgive(run, w)
                    await self._write(self.settling.begin_sweep, w, self._clock.now())
                    began[run.name, w.name] = w.state.sweep_began
        self._chooser.sweeping = sweeping = Sweeping(self.runs, self._flying, began)
        return sweeping

    def _forgive(self, run: Run, w: Watching) -> None:
        """What failed before is asked as if it never had: a command asks always, and what it says is of now."""
        for key, unit in list(w.units.items()):
            if unit.failures:
                w.put(structs.replace(unit, failures=0, retry_at=None, error=None))
                run.lane.planner.defer(run.unit(w, key), self._clock.now())

    def end_sweeps(self) -> None:
        """Poll what the planners choose again."""
        self._chooser.sweeping = None

    def probe_now(self) -> None:
        """Ask at once whatever waits after a failure: somebody has seen to it."""
        now = self._clock.now()
        for run in self.runs.values():
            run.health.probe_now()
            for w in run.watchings.values():
                for key, unit in list(w.units.items()):
                    if unit.failures:
                        w.put(structs.replace(unit, retry_at=None))
                    run.lane.planner.defer(run.unit(w, key), now)  # what the source held back as well
            run.lane.refresh()

    # Housekeeping.

    async def save(self) -> None:
        """Keep what the planners learned, and what was told of failures."""
        learned = {f"planner:{name}": lane.planner.dump() for name, lane in self.lanes.items()}
        for run in self.runs.values():
            learned |= kept_health(run)
        await self._write(self._store.learned.save, learned)

    async def forget_calls(self) -> None:
        """Drop calls that no window counts any more."""
        steady = self._clock.steady()
        for lane in self.lanes.values():
            longest = max(limit.seconds for limit in lane.budget.limits)
            await self._write(partial(self._store.calls.forget, lane.name, before=steady - longest - 60))

    def is_well(self) -> bool:
        """Whether every source can be polled."""
        return all(run.discovered and run.health.snapshot().state == "ok" for run in self.runs.values())

    async def watch(self) -> None:
        """Raise the alarm for a source that should poll and does not, and for promises that grown lists have broken."""
        now = self._clock.now()
        for lane in self.lanes.values():
            lane.check_promises()
        for run in self.runs.values():
            stalled = run.stall.check(now, due_since=due_since(self._turns(run, now), now), last_poll=run.last_begun)
            if stalled is not None:
                await self._worker.take(run, HealthUpdate(notices=(stalled,)))

    def _turns(self, run: Run, now: float) -> Turns:
        first = run.lane.planner.choose(now)
        beside = [other for other in self.runs.values() if other.lane is run.lane]
        return Turns(
            is_free=run.lane.next_at() <= self._clock.steady() + 1.0,
            is_first=first is not None and first.source == run.name,
            due=run.lane.planner.next_due(now, run.name),
            latest=max(other.last_begun or other.opened_at for other in beside),
        )


def _last_seen(w: Watching) -> float | None:
    return max((unit.asked_at for unit in w.units.values() if unit.asked_at is not None), default=None)
