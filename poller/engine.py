"""Sources, budgets and planners put together: what is due is polled, and what follows from it is done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import structlog

from poller.answers import Asked, Outcome, Polled
from poller.budget import Budget
from poller.clock import Clock, SystemClock
from poller.health import SourceHealth, StallWatch, Verdict
from poller.lane import Lane
from poller.loading import Plugins
from poller.planner import Planner
from poller.polling import Polling
from poller.running import Run, add_children, drop_children, open_watching, sync_children, tell
from poller.settling import Settling
from poller.sources import PageError
from poller.sweeping import Sweeping
from poller.tables import Config, SourceConfig
from poller.transport import FetchError, Gate, build_client, fetch
from poller.watching import SINCE, Watching, child_key
from poller.writer import Write
from state.errors import PollerError
from state.polls import Suspect, Sweep
from state.sqlite.store import Store

log = structlog.get_logger("poller")

Work = Callable[[], Awaitable[None]]
MOST_BLOCKED = 500  # units found blocked in one go before others get a turn


class Engine:
    """Polls every source of a configuration, each within its budget. Use as `async with Engine(...) as engine`."""

    def __init__(self, config: Config, plugins: Plugins, *, store: Store, write: Write, clock: Clock) -> None:
        self.config = config
        self.lanes: dict[str, Lane] = {}
        self.runs: dict[str, Run] = {}
        self.settling = Settling(store.polls)
        self.recorded: Callable[[list[int]], None] = _nobody
        self.polled: Callable[[Polled], None] = _nobody
        self._plugins = plugins
        self._store = store
        self._write = write
        self._clock = clock
        self._clients: list[httpx.AsyncClient] = []
        self._confirmed_last: dict[str, bool] = {}
        self._flying: set[tuple[str, str, str]] = set()  # units being asked for: source, endpoint, key
        self.sweeping: Sweeping | None = None  # a sweep on command, instead of what the planner would choose

    async def open(self) -> None:
        """Build every source and open every endpoint. Raises PollerError where a plugin or rule is unusable."""
        for name, budget in self.config.budgets.items():
            self.lanes[name] = await self._lane(name, budget.limits, budget.share, budget.concurrency)
        for source in self.config.sources.values():
            await self._open_source(source)
        for lane in self.lanes.values():
            await self._recall(lane)

    async def close(self, seconds: float = 5.0) -> None:
        """Let what is under way end, and keep what was learned."""
        await asyncio.gather(*(lane.finish(seconds) for lane in self.lanes.values()))
        await self.save()
        await asyncio.gather(*(lane.gate.flush() for lane in self.lanes.values()))
        for client in self._clients:
            await client.aclose()

    async def _lane(self, name: str, limits: Any, share: float, concurrency: int) -> Lane:
        budget = Budget(name, limits, share=share, concurrency=concurrency)
        longest = max(limit.seconds for limit in limits)
        steady = self._clock.steady()
        restore = partial(self._store.calls.restore, name, since=steady - longest - 1, now=steady)
        budget.restore(await self._write(restore), steady)

        async def spend(answers: list[tuple[int, float]]) -> int:
            anchor = str(self._clock.anchor()) if isinstance(self._clock, SystemClock) else ""
            step = partial(self._store.calls.spend, name, self._clock.steady(), answers=answers, anchor=anchor)
            return await self._write(step)

        async def flush(answers: list[tuple[int, float]]) -> None:
            await self._write(self._store.calls.answered, answers)

        gate = Gate(budget, self._clock, spend=spend, flush=flush)
        planner = Planner([], now=self._clock.now())
        return Lane(name=name, budget=budget, share=share, planner=planner, gate=gate, clock=self._clock, crew=self)

    async def _open_source(self, config: SourceConfig) -> None:
        source = config.build()
        lane = self.lanes[config.budget]
        client = build_client(config, gate=lane.gate, auth=source.auth)
        self._clients.append(client)
        polling = Polling(
            source, settling=self.settling, reader=self._store.poll_reader, write=self._write, clock=self._clock
        )
        run = Run(
            name=config.name,
            config=config,
            source=source,
            polling=polling,
            health=SourceHealth(config.name),
            stall=StallWatch(config.name),
            opened_at=self._clock.now(),
            ask=partial(fetch, client, most=config.max_answer),
        )
        self.runs[config.name] = run
        now = self._clock.now()
        for endpoint in config.chosen(source.endpoints()):
            w, reshaped = await self._write(open_watching, self._store, run, endpoint, self._plugins, now=now)
            run.watchings[endpoint.name] = w
            run.stale_suspects.add(endpoint.name)
            if reshaped:
                log.info("endpoint.rebaselined", endpoint=w.label, why="its path, id or excluded fields changed")
                outcome = Outcome()
                await self._write(self.settling.guarding.say_rebaselined, w, now, outcome)
                self._announce(outcome.events)
        for w in run.watchings.values():
            if w.is_child:
                await self._write(sync_children, self._store, run, w)
            for key in w.units:
                lane.planner.add(run.unit(w, key), now=now)
        run.health = SourceHealth(
            config.name, seen={w.name: at for w in run.watchings.values() if (at := _last_seen(w)) is not None}
        )

    async def _recall(self, lane: Lane) -> None:
        saved = await self._write(self._store.learned.load, f"planner:{lane.name}")
        if saved is not None:
            try:
                lane.planner.load(saved)
            except ValueError as error:
                log.warning("planner.forgotten", budget=lane.name, why=str(error))
        for run in self.runs.values():
            if run.config.budget == lane.name:
                for w in run.watchings.values():
                    self._recall_times(lane, run, w)

    def _recall_times(self, lane: Lane, run: Run, w: Watching) -> None:
        """What the state knows better than what was saved a minute before a crash."""
        for key, unit in w.units.items():
            if unit.answered_at is not None:
                lane.planner.polled(run.unit(w, key), unit.answered_at)
            if unit.retry_at is not None and unit.retry_at > self._clock.now():
                lane.planner.defer(run.unit(w, key), unit.retry_at)

    async def begin_sweeps(self, endpoints: Collection[tuple[str, str]] | None = None) -> Sweeping:
        """Begin a complete sweep of every endpoint (or those named: source, endpoint), and poll nothing else."""
        began = {}
        for run in self.runs.values():
            for w in run.watchings.values():
                if endpoints is None or (run.name, w.name) in endpoints:
                    await self._write(self.settling.begin_sweep, w, self._clock.now())
                    began[run.name, w.name] = w.state.sweep_began
        self.sweeping = Sweeping(self.runs, self._flying, began)
        return self.sweeping

    # Housekeeping.

    async def save(self) -> None:
        """Keep what the planners learned."""
        learned = {f"planner:{name}": lane.planner.dump() for name, lane in self.lanes.items()}
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
            lane = self.lanes[run.config.budget]
            idle = lane.next_at() > self._clock.steady() + 1.0
            stalled = run.stall.check(
                now, due_since=None if idle else run.last_poll or run.opened_at, last_poll=run.last_poll
            )
            if stalled is not None:
                await self._take(run, Verdict(notices=(stalled,)), lane)

    # What is to be done next.

    def is_hurried(self, lane: Lane) -> bool:
        """A first sweep of an endpoint of this budget is under way."""
        return any(
            w.state.last_sweep is None and w.doubt is None
            for run in self._of(lane)
            if run.health.blocked_until("", self._clock.now()) is None
            for w in run.watchings.values()
        )

    def due(self, lane: Lane, now: float) -> float | None:
        """When there may be work again."""
        at = [run.discover_at for run in self._of(lane) if not run.discovered]
        if self.sweeping is not None and (retry := self.sweeping.next_retry(now)) is not None:
            at.append(retry)
        if (next_due := lane.planner.next_due(now)) is not None and any(run.discovered for run in self._of(lane)):
            at.append(next_due)
        return max(min(at), now + 0.05) if at else None

    def choose(self, lane: Lane, now: float) -> Work | None:
        """The most urgent work of this budget, taken."""
        for run in self._of(lane):
            if not run.discovered and now >= run.discover_at:
                run.discover_at = now + 60.0
                return partial(self._discover, lane, run)
        confirmation = None if self._confirmed_last.get(lane.name) else self._confirmation(lane, now)
        if confirmation is not None:
            self._confirmed_last[lane.name] = True
            return confirmation
        self._confirmed_last[lane.name] = False
        poll = self._poll_work(lane, now) if self.sweeping is None else self._sweep_work(self.sweeping, lane, now)
        return poll or self._confirmation(lane, now)

    def _sweep_work(self, sweeping: Sweeping, lane: Lane, now: float) -> Work | None:
        found = sweeping.next_unit(lane.name, now, self._not_before)
        return None if found is None else self._take_unit(lane, *found, now)

    def _of(self, lane: Lane) -> Iterable[Run]:
        return (run for run in self.runs.values() if run.config.budget == lane.name)

    def _poll_work(self, lane: Lane, now: float) -> Work | None:
        for _ in range(MOST_BLOCKED):
            unit = lane.planner.choose(now)
            if unit is None:
                return None
            run = self.runs[unit.source]
            w = run.watchings[unit.endpoint]
            until = self._not_before(run, w, unit.key, now)
            if until is not None:
                lane.planner.defer(unit, until)
                continue
            return self._take_unit(lane, run, w, unit.key, now)
        return None

    def _take_unit(self, lane: Lane, run: Run, w: Watching, key: str, now: float) -> Work:
        lane.planner.started(run.unit(w, key))
        run.health.started(w.name, key, now)
        self._flying.add((run.name, w.name, key))
        return partial(self._poll, lane, run, w, key)

    @staticmethod
    def _not_before(run: Run, w: Watching, key: str, now: float) -> float | None:
        if not run.discovered:
            return max(run.discover_at, now + 1.0)
        if not run.health.allows(w.name, key, now):
            return run.health.blocked_until(w.name, now) or now + 5.0
        if key == SINCE and w.state.last_sweep is None:
            return now + 5.0  # first the baseline
        return None

    def _confirmation(self, lane: Lane, now: float) -> Work | None:
        for run in self._of(lane):
            if not run.discovered:
                continue
            for name, waiting in run.suspects.items():
                w = run.watchings.get(name)
                while waiting and w is not None and run.health.allows(name, "item", now):
                    suspect = waiting.popleft()
                    if (name, suspect.snapshot.object_id) not in run.confirming:
                        run.confirming.add((name, suspect.snapshot.object_id))
                        return partial(self._confirm, lane, run, w, suspect)
        return None

    # Doing it.

    async def _discover(self, lane: Lane, run: Run) -> None:
        try:
            steps = run.source.discover()
            try:
                request = next(steps)
                while True:
                    request = steps.send(await run.ask(request))
            except StopIteration:
                pass
        except (FetchError, PageError) as error:
            run.discover_failures += 1
            verdict = await self._failed(run, "discover", "discover", error, run.discover_failures)
            run.discover_at = verdict.retry_at or self._clock.now() + 5.0
            return
        run.discovered, run.discover_failures = True, 0
        await self._take(run, run.health.succeeded("discover", "discover", self._clock.now()), lane)
        log.info("source.ready", source=run.name)
        self._release(lane, run)

    async def _poll(self, lane: Lane, run: Run, w: Watching, key: str) -> None:
        unit = run.unit(w, key)
        try:
            outcome = await run.polling.poll(w, key, run.ask, waits=run.waits(w))
        except (FetchError, PageError) as error:
            await self._poll_failed(lane, run, w, key, error)
            self.polled(Polled(source=run.name, endpoint=w.name, unit=key, error=str(error)))
            return
        except BaseException:
            lane.planner.released(unit)
            raise
        finally:
            self._flying.discard((run.name, w.name, key))
        now = self._clock.now()
        run.last_poll = now
        if outcome.aside:
            lane.planner.defer(unit, now + 1.0)
        if key in w.units:
            lane.planner.add(run.unit(w, key), now=now)
        lane.planner.observe(unit, now, outcome.changed)
        await self._take(run, run.health.succeeded(w.name, key, now), lane)
        await self.followed(run, w, outcome)
        self.polled(
            Polled(
                source=run.name,
                endpoint=w.name,
                unit=key,
                calls=outcome.calls,
                changed=outcome.changed,
                events=tuple(outcome.events),
            )
        )

    async def _poll_failed(self, lane: Lane, run: Run, w: Watching, key: str, error: PollerError) -> None:
        known = w.units.get(key)
        failures = (known.failures if known else 0) + 1
        verdict = await self._failed(run, w.name, key, error, failures)
        retry_at = verdict.retry_at or self._clock.now() + 5.0
        if known is not None:
            w.put(replace(known, failures=failures, retry_at=retry_at, error=str(error)))
            fail = partial(self._store.polls.fail, known.id, failures=failures, retry_at=retry_at, error=str(error))
            await self._write(fail)
        lane.planner.defer(run.unit(w, key), retry_at)

    async def _failed(self, run: Run, endpoint: str, unit: str, error: PollerError, failures: int) -> Verdict:
        status = getattr(error, "status", None)
        log.warning("poll.failed", source=run.name, endpoint=endpoint, unit=unit, failures=failures, error=str(error))
        verdict = run.health.failed(
            endpoint,
            unit,
            self._clock.now(),
            reason=str(error),
            status=status,
            retry_after=getattr(error, "retry_after", None),
            failures=failures,
        )
        await self._take(run, verdict, self.lanes[run.config.budget])
        return verdict

    async def _confirm(self, lane: Lane, run: Run, w: Watching, suspect: Suspect) -> None:
        object_id = suspect.snapshot.object_id
        try:
            outcome = await run.polling.confirm(w, suspect, run.ask)
        except (FetchError, PageError) as error:
            await self._failed(run, w.name, "item", error, 1)
            return
        finally:
            run.confirming.discard((w.name, object_id))
            if not run.suspects.get(w.name):
                run.stale_suspects.add(w.name)
        await self._take(run, run.health.succeeded(w.name, "item", self._clock.now()), lane)
        await self.followed(run, w, outcome)

    async def _take(self, run: Run, verdict: Verdict, lane: Lane) -> None:
        if verdict.notices:
            for note in verdict.notices:
                log.warning(note.kind, subject=note.subject, summary=note.summary)
            self._announce(await self._write(tell, self._store, verdict.notices, now=self._clock.now()))
        if verdict.reopened:
            self._release(lane, run)

    def _release(self, lane: Lane, run: Run) -> None:
        now = self._clock.now()
        for w in run.watchings.values():
            for key, unit in list(w.units.items()):
                if unit.retry_at is None or unit.retry_at <= now:
                    lane.planner.defer(run.unit(w, key), now)
        lane.refresh()

    # What follows from a poll.

    async def followed(self, run: Run, w: Watching, outcome: Outcome) -> None:
        """Units come and go, children are told of their parents, deletions are confirmed."""
        lane, now = self.lanes[run.config.budget], self._clock.now()
        for key in outcome.dropped:
            lane.planner.remove(run.unit(w, key))
        for key in outcome.added:
            lane.planner.add(run.unit(w, key), now=now)
        if not w.in_baseline:
            for new, old in outcome.heirs:
                lane.planner.inherit(run.unit(w, new), run.unit(w, old))
        self._say(w, outcome)
        self._announce(outcome.events)
        if outcome.touched or outcome.gone:
            await self._tell_children(lane, run, w, outcome, now)
        await self._suspect(lane, run, w, outcome)
        if outcome.swept:
            await self._end_empty_sweeps(run, w, now)

    async def _tell_children(self, lane: Lane, run: Run, w: Watching, outcome: Outcome, now: float) -> None:
        for child in run.children(w.name):
            keys = [child_key(object_id) for object_id in outcome.touched]
            new = [key for key in keys if key not in child.units]
            await self._write(add_children, self._store, child, new)
            for key in new:
                lane.planner.add(run.unit(child, key), now=now)
            if not w.in_baseline and not outcome.swept:
                for key in keys:
                    lane.planner.excite(run.unit(child, key), 1)
            gone = [key for object_id in outcome.gone if (key := child_key(object_id)) in child.units]
            await self._write(drop_children, self._store, child, gone, now=now)
            for key in gone:
                lane.planner.remove(run.unit(child, key))

    async def _suspect(self, lane: Lane, run: Run, w: Watching, outcome: Outcome) -> None:
        """See to what went missing: by its own URL, or by sweeps."""
        if not self.settling.may_delete(w):
            run.suspects.pop(w.name, None)
            run.stale_suspects.add(w.name)
            return
        if (outcome.missing or outcome.swept or w.name in run.stale_suspects) and not run.suspects.get(w.name):
            found = await self._write(self._store.polls.suspects, w.state.id)
            run.stale_suspects.discard(w.name)
            run.suspects[w.name] = deque(
                suspect
                for suspect in found
                if (w.name, suspect.snapshot.object_id) not in run.confirming
                and run.polling.item_request(w, suspect) is not None
            )
        if outcome.swept:
            asked = Asked(at=w.state.last_sweep_began or 0.0, answered_at=self._clock.now())
            for suspect in await self._write(self.settling.deletable, w):
                if run.polling.item_request(w, suspect) is not None:
                    continue
                told = await self._write(self.settling.delete, w, suspect, asked)
                self._announce(told.events)
                await self._tell_children(lane, run, w, told, asked.answered_at)

    async def _end_empty_sweeps(self, run: Run, w: Watching, now: float) -> None:
        """A list per parent, and no parents: there is nothing to sweep."""
        for child in run.children(w.name):
            if not child.pending and not run.waits(child) and (child.state.last_sweep is None or not child.units):
                sweep = Sweep(ended_at=now, steady=True, confirms=False)
                await self._write(self.settling.end_sweep, child, sweep)
                await self._end_empty_sweeps(run, child, now)

    def _announce(self, seqs: list[int]) -> None:
        if seqs:
            self.recorded(seqs)

    @staticmethod
    def _say(w: Watching, outcome: Outcome) -> None:
        for note in outcome.notes:
            log.warning("page.odd", endpoint=w.label, note=note)
        for path in outcome.noisy:
            log.warning(
                "field.noisy", endpoint=w.label, field=path, hint=f'changes at every poll: ignore = ["{path}"]?'
            )
        if outcome.swept:
            log.debug("sweep.complete", endpoint=w.label, sweep=w.state.sweep - 1)


def _nobody(_: object) -> None:
    """Nobody wants to know what was recorded."""


def _last_seen(w: Watching) -> float | None:
    return max((unit.asked_at for unit in w.units.values() if unit.asked_at is not None), default=None)
