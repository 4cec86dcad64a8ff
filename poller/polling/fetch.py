"""Doing what was chosen: asking, and seeing to what comes of it, good or bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import httpx
import structlog
from msgspec import structs

from poller.clock import Clock
from poller.polling.boundary import failed_poll, reason_of
from poller.polling.children import Following
from poller.polling.endpoint import Watching
from poller.polling.health import HealthUpdate
from poller.polling.on_demand import Flying
from poller.polling.results import Polled
from poller.polling.source import DISCOVER, ITEM, Run
from state.errors import PollerError
from state.polls import Suspect
from state.sqlite.store import Store
from state.sqlite.writer import Write

log = structlog.get_logger("poller")


class Worker:
    """Asks for units, for items, and for what a source must know first."""

    def __init__(
        self,
        flying: Flying,
        following: Following,
        *,
        store: Store,
        write: Write,
        clock: Clock,
        polled: Callable[[Polled], None],
    ) -> None:
        self._flying = flying
        self._following = following
        self._store = store
        self._write = write
        self._clock = clock
        self._polled = polled
        self._said: dict[tuple[str, str, str], str] = {}  # by unit: the failure that was said last

    async def discover(self, run: Run) -> None:
        """Ask what the source must know before its first poll."""
        try:
            steps = run.source.discover()
            try:
                request = next(steps)
                while True:
                    request = steps.send(await run.ask(request))
            except StopIteration:
                pass
        except Exception as error:
            if (failure := failed_poll(error, source=run.name)) is None:
                raise
            run.discover_failures += 1
            update = await self._failed(run, DISCOVER, DISCOVER, failure, run.discover_failures)
            run.discover_at = update.retry_at or self._clock.now() + 5.0
            return
        run.discovered, run.discover_failures = True, 0
        await self.take(run, run.health.succeeded(DISCOVER, DISCOVER, self._clock.now()))
        log.info("source.ready", source=run.name)
        self._release(run)

    async def poll(self, run: Run, w: Watching, key: str) -> None:
        """Poll a unit, and learn from it."""
        unit = run.unit(w, key)
        run.last_begun = self._clock.now()
        try:
            outcome = await run.polling.poll(w, key, run.ask, waits=run.waits(w))
        except BaseException as error:
            if (failure := failed_poll(error, source=run.name)) is None:
                run.lane.planner.released(unit)
                raise
            await self._poll_failed(run, w, key, failure)
            self._polled(Polled(source=run.name, endpoint=w.name, unit=key, error=reason_of(failure)))
            return
        finally:
            self._flying.discard((run.name, w.name, key))
        now = self._clock.now()
        run.last_poll = now
        run.lane.went_well()
        if outcome.aside:
            run.lane.planner.defer(unit, now + 1.0)
        if key in w.units:
            run.lane.planner.add(run.unit(w, key), now=now)
        run.lane.planner.observe(unit, now, outcome.changed)
        self._said.pop((run.name, w.name, key), None)
        await self.take(run, run.health.succeeded(w.name, key, now))
        await self._following.followed(run, w, outcome)
        self._polled(
            Polled(
                source=run.name,
                endpoint=w.name,
                unit=key,
                calls=outcome.calls,
                changed=outcome.changed,
                events=tuple(outcome.events),
            )
        )

    async def _poll_failed(self, run: Run, w: Watching, key: str, error: PollerError) -> None:
        failures = (w.units[key].failures if key in w.units else 0) + 1
        update = await self._failed(run, w.name, key, error, failures)
        retry_at = update.retry_at or self._clock.now() + 5.0
        known = w.units.get(key)  # as it is by now: another unit may have shown its objects meanwhile
        if known is None:
            await self._following.forget(run, w, [key])
        else:
            reason = reason_of(error)
            w.put(structs.replace(known, failures=failures, retry_at=retry_at, error=reason))
            fail = partial(self._store.polls.fail, known.id, failures=failures, retry_at=retry_at, error=reason)
            await self._write(fail)
        run.lane.planner.defer(run.unit(w, key), retry_at)

    async def _failed(self, run: Run, endpoint: str, unit: str, error: PollerError, failures: int) -> HealthUpdate:
        status, reason = getattr(error, "status", None), reason_of(error)
        said = self._said.get((run.name, endpoint, unit)) == reason
        self._said[run.name, endpoint, unit] = reason
        say = log.debug if said else log.warning  # the same failure of the same unit is no news
        say("poll.failed", source=run.name, endpoint=endpoint, unit=unit, failures=failures, error=reason)
        update = run.health.failed(
            endpoint,
            unit,
            self._clock.now(),
            reason=reason,
            status=status,
            retry_after=getattr(error, "retry_after", None),
            failures=failures,
            not_before=run.lane.throttled_until(),
        )
        if status == httpx.codes.TOO_MANY_REQUESTS and (told := run.lane.throttled(reason)) is not None:
            update = replace(update, notices=(told, *update.notices))
        await self.take(run, update)
        return update

    async def confirm(self, run: Run, w: Watching, suspect: Suspect) -> None:
        """Ask for a suspect's own URL."""
        object_id = suspect.snapshot.object_id
        try:
            outcome = await run.polling.confirm(w, suspect, run.ask)
        except Exception as error:
            if (failure := failed_poll(error, source=run.name)) is None:
                raise
            await self._failed(run, w.name, ITEM, failure, 1)
            return
        finally:
            run.confirming.discard((w.name, object_id))
            if not run.suspects.get(w.name):
                run.stale_suspects.add(w.name)
        await self.take(run, run.health.succeeded(w.name, ITEM, self._clock.now()))
        await self._following.followed(run, w, outcome)

    async def take(self, run: Run, update: HealthUpdate) -> None:
        """Tell what the source's health has to say, and let poll what is free again."""
        await self._following.say(run, update)
        if update.reopened:
            self._release(run)

    def _release(self, run: Run) -> None:
        now = self._clock.now()
        for w in run.watchings.values():
            for key, unit in list(w.units.items()):
                if unit.retry_at is None or unit.retry_at <= now:
                    run.lane.planner.defer(run.unit(w, key), now)
        run.lane.refresh()
