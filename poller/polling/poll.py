"""One poll, from the request to what follows from its answer; and the calls that are no polls."""

from __future__ import annotations

from collections.abc import Callable, MutableSet
from dataclasses import dataclass, field, replace

import httpx
import structlog
from msgspec import structs

from poller.clock import Clock
from poller.polling.boundary import failed_poll, reason_of
from poller.polling.children import Following
from poller.polling.endpoint import Waiting, Watching
from poller.polling.health import HealthUpdate
from poller.polling.recorder import Draft, Recorder
from poller.polling.results import Polled, PollResult
from poller.polling.source import DISCOVER, ITEM, Run
from state.errors import PollerError
from state.polls import FailedPoll, Suspect

log = structlog.get_logger("poller")

InFlight = MutableSet[tuple[str, str, str]]  # units being asked for: source, endpoint, key


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """What polls need beside their source: who records, what follows, who hears of it."""

    recorder: Recorder
    following: Following
    in_flight: InFlight
    clock: Clock
    polled: Callable[[Polled], None]
    said: dict[tuple[str, str, str], str] = field(default_factory=dict)  # by unit: the failure that was logged last


async def poll(polling: Polling, run: Run, w: Watching, key: str) -> None:
    """Poll a unit: ask, compare with what is known, record, and learn from it."""
    unit, planner = run.unit(w, key), run.lane.planner
    run.times.begun_at = polling.clock.now()
    try:
        with w.requests.asking(key) as order:
            result = await _asked(run, w, key, order)
    except BaseException as error:
        if (failure := failed_poll(error, source=run.name)) is None:
            planner.released(unit)
            raise
        await _poll_failed(polling, run, w, key, failure)
        polling.polled(Polled(source=run.name, endpoint=w.name, unit=key, error=reason_of(failure)))
        return
    finally:
        polling.in_flight.discard((run.name, w.name, key))
    now = run.lane.time()
    run.times.latest = polling.clock.now()
    run.lane.went_well()
    if result.aside:
        planner.defer(unit, now + 1.0)
    if key in w.units:
        planner.add(run.unit(w, key), now=now)
    planner.observe(unit, now, result.changed)
    polling.said.pop((run.name, w.name, key), None)
    await take(polling, run, run.health.succeeded(w.name, key, polling.clock.now()))
    await polling.following.followed(run, w, result)
    polling.polled(
        Polled(
            source=run.name,
            endpoint=w.name,
            unit=key,
            calls=result.calls,
            changed=result.changed,
            events=tuple(result.events),
        )
    )


async def _asked(run: Run, w: Watching, key: str, order: int) -> PollResult:
    """Ask for a unit, and record what it shows: read what is known, decide, write (`Turns`)."""
    fetched = await run.fetcher.fetch(w, key, order)
    if fetched is None:
        return PollResult(aside=True)  # it, or its parent, has just gone
    return await run.turns.settle(w, Waiting(key, fetched, sweep_waits=run.waits(w)))


async def _poll_failed(polling: Polling, run: Run, w: Watching, key: str, error: PollerError) -> None:
    failures = (w.units[key].failures if key in w.units else 0) + 1
    update = await _failed(polling, run, w.name, key, error, failures)
    now, reason = polling.clock.now(), reason_of(error)
    retry_at = update.retry_at or now + 5.0

    def decide() -> Draft:
        known = w.units.get(key)  # as it is by now: another unit may have shown its objects meanwhile
        if known is None:
            return Draft(at=now)
        w.put(structs.replace(known, failures=failures, retry_at=retry_at, error=reason))
        failed = FailedPoll(unit=known.id, failures=failures, retry_at=retry_at, error=reason)
        return Draft(at=now, failures=[failed])

    draft, _ = await polling.recorder.change(w, decide)
    if not draft.failures:
        await polling.following.forget(run, w, [key])
    run.lane.planner.defer(run.unit(w, key), retry_at)


async def _failed(
    polling: Polling, run: Run, endpoint: str, unit: str, error: PollerError, failures: int
) -> HealthUpdate:
    status, reason = getattr(error, "status", None), reason_of(error)
    is_known = polling.said.get((run.name, endpoint, unit)) == reason
    polling.said[run.name, endpoint, unit] = reason
    say = log.debug if is_known else log.warning  # the same failure of the same unit is no news
    say("poll.failed", source=run.name, endpoint=endpoint, unit=unit, failures=failures, error=reason)
    update = run.health.failed(
        endpoint,
        unit,
        polling.clock.now(),
        reason=reason,
        status=status,
        retry_after=getattr(error, "retry_after", None),
        failures=failures,
        not_before=run.lane.throttled_until(),
    )
    if status == httpx.codes.TOO_MANY_REQUESTS and (throttled := run.lane.throttled(reason)) is not None:
        update = replace(update, notices=(throttled, *update.notices))
    await take(polling, run, update)
    return update


async def confirm(polling: Polling, run: Run, w: Watching, suspect: Suspect) -> None:
    """Ask for a suspect's own URL."""
    try:
        result = await run.deletions.confirm(w, suspect)
    except Exception as error:
        if (failure := failed_poll(error, source=run.name)) is None:
            raise
        await _failed(polling, run, w.name, ITEM, failure, 1)
        return
    finally:
        run.deletions.finished(w.name, suspect)
    await take(polling, run, run.health.succeeded(w.name, ITEM, polling.clock.now()))
    await polling.following.followed(run, w, result)


async def discover(polling: Polling, run: Run) -> None:
    """Ask what the source must know before its first poll."""
    discovery = run.discovery
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
        discovery.failures += 1
        update = await _failed(polling, run, DISCOVER, DISCOVER, failure, discovery.failures)
        discovery.at = update.retry_at or polling.clock.now() + 5.0
        return
    discovery.is_done, discovery.failures = True, 0
    await take(polling, run, run.health.succeeded(DISCOVER, DISCOVER, polling.clock.now()))
    log.info("source.ready", source=run.name)
    _release(polling, run)


async def take(polling: Polling, run: Run, update: HealthUpdate) -> None:
    """Report what the source's health has to say, and let poll what is free again."""
    await polling.following.say(run, update)
    if update.reopened:
        _release(polling, run)


def _release(polling: Polling, run: Run) -> None:
    now = polling.clock.now()
    for w in run.watchings.values():
        for key, unit in w.units.items():
            if unit.retry_at is None or unit.retry_at <= now:
                run.lane.planner.defer(run.unit(w, key), run.lane.time())
    run.lane.refresh()
