"""One poll from its request to its follow-up, and the calls that are not polls."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import msgspec
import structlog
from msgspec import structs

from poller.clock import Clock
from poller.hooks.payloads import Polled
from poller.polling.boundary import failed_poll, reason_of
from poller.polling.children import FollowUp
from poller.polling.draft import Draft
from poller.polling.endpoint import PendingAnswer, WatchedEndpoint
from poller.polling.failing_lists import give_up
from poller.polling.fetch import RefusedInText
from poller.polling.health import HealthUpdate
from poller.polling.recorder import Recorder
from poller.polling.results import InFlight, PollResult
from poller.polling.source import DISCOVER, ITEM, ActiveSource
from poller.polling.unit_keys import CHILD
from poller.polling.work import ConfirmDeletion, Discover, PollUnit, Work
from poller.tracing import span
from state.errors import PollerError
from state.polls import FailedPoll, Suspect

log = structlog.get_logger("poller")


class Polling(msgspec.Struct, frozen=True, kw_only=True):
    """What polls need besides their source: the recorder, the follow-up and the listener."""

    recorder: Recorder
    follow_up: FollowUp
    in_flight: InFlight
    clock: Clock
    polled: Callable[[Polled], None]
    said: dict[tuple[str, str, str], str] = msgspec.field(default_factory=dict)  # by unit: the last logged failure


async def do(polling: Polling, work: Work) -> None:
    """Execute a piece of work."""
    match work:
        case PollUnit(active, w, key):
            await poll(polling, active, w, key)
        case ConfirmDeletion(active, w, suspect):
            await confirm(polling, active, w, suspect)
        case Discover(active):
            await discover(polling, active)


async def poll(polling: Polling, active: ActiveSource, w: WatchedEndpoint, key: str) -> None:
    """Poll a unit: fetch it, compare it with what is known, record, and learn from the result."""
    unit, planner = active.unit(w, key), active.poll_loop.planner
    active.times.begun_at = polling.clock.now()
    try:
        with w.requests.asking(key) as order, span("poll", source=active.name, endpoint=w.name, unit=key):
            result = await _asked(active, w, key, order)
    except BaseException as error:
        if (failure := failed_poll(error, source=active.name)) is None:
            planner.released(unit)
            raise
        await _poll_failed(polling, active, w, key, failure)
        polling.polled(Polled(source=active.name, endpoint=w.name, unit=key, error=reason_of(failure)))
        return
    finally:
        polling.in_flight.discard((active.name, w.name, key))
    now = active.poll_loop.time()
    active.times.latest = polling.clock.now()
    active.poll_loop.pauses.went_well()
    if result.aside:
        planner.defer(unit, now + 1.0)
    if key in w.units:
        planner.add(active.unit(w, key), now=now)
    planner.observe(unit, now, result.changed)
    polling.said.pop((active.name, w.name, key), None)
    await take(polling, active, active.health.succeeded(w.name, key, polling.clock.now()))
    await polling.follow_up.follow(active, w, result)
    polling.polled(
        Polled(
            source=active.name,
            endpoint=w.name,
            unit=key,
            calls=result.calls,
            changed=result.changed,
            events=tuple(result.events),
        )
    )


async def _asked(active: ActiveSource, w: WatchedEndpoint, key: str, order: int) -> PollResult:
    """Fetch a unit and record its answer: read what is known, decide, write (`Turns`)."""
    fetched = await active.fetcher.fetch(w, key, order)
    if fetched is None:
        return PollResult(aside=True)  # it, or its parent, is gone
    return await active.turns.settle(w, PendingAnswer(key, fetched, sweep_waits=active.waits(w)))


async def _poll_failed(
    polling: Polling, active: ActiveSource, w: WatchedEndpoint, key: str, error: PollerError
) -> None:
    if isinstance(error, RefusedInText):
        await active.poll_loop.limiter.heed(error.status or 0, {}, is_refusal=True)
    failures = (w.units[key].failures if key in w.units else 0) + 1
    update = await _failed(polling, active, w.name, key, error, failures)
    now, reason = polling.clock.now(), reason_of(error)
    retry_at = _next_try(polling, update)

    def decide() -> Draft:
        known = w.units.get(key)  # the current unit: another unit may have shown its objects meanwhile
        if known is None:
            return Draft(at=now)
        unit = structs.replace(known, failures=failures, retry_at=retry_at, error=reason)
        w.put(unit)
        failed = FailedPoll(unit=known.id, failures=failures, retry_at=retry_at, error=reason)
        draft = Draft(at=now, failures=[failed])
        give_up(w, unit, draft, sweep_waits=active.waits(w))
        return draft

    baseline = w.in_baseline
    draft, recorded = await polling.recorder.change(w, decide)
    if not draft.failures:
        await polling.follow_up.forget(active, w, [key])
    elif draft.marks.ended is not None:
        ended = PollResult(swept=True, baseline=baseline, events=recorded.notices)
        await polling.follow_up.follow(active, w, ended)
    active.poll_loop.planner.defer(active.unit(w, key), retry_at)


async def _failed(
    polling: Polling, active: ActiveSource, endpoint: str, unit: str, error: PollerError, failures: int
) -> HealthUpdate:
    status, reason = getattr(error, "status", None), reason_of(error)
    is_known = polling.said.get((active.name, endpoint, unit)) == reason
    polling.said[active.name, endpoint, unit] = reason
    say = log.debug if is_known else log.warning  # an unchanged failure is logged only at debug level
    say("poll.failed", source=active.name, endpoint=endpoint, unit=unit, failures=failures, error=reason)
    update = active.health.failed(
        endpoint,
        unit,
        polling.clock.now(),
        reason=reason,
        status=status,
        retry_after=getattr(error, "retry_after", None),
        failures=failures,
        not_before=active.poll_loop.pauses.until(),
        per_parent=unit.startswith(CHILD),
    )
    if status == httpx.codes.TOO_MANY_REQUESTS and (throttled := active.poll_loop.pauses.refused(reason)) is not None:
        update = structs.replace(update, notices=(throttled, *update.notices))
    await take(polling, active, update)
    return update


def _next_try(polling: Polling, update: HealthUpdate) -> float:
    """When a request that failed is to be repeated."""
    return update.retry_at or polling.clock.now() + 5.0


async def confirm(polling: Polling, active: ActiveSource, w: WatchedEndpoint, suspect: Suspect) -> None:
    """Request a suspect's own URL."""
    try:
        result = await active.deletions.confirm(w, suspect)
    except Exception as error:
        if (failure := failed_poll(error, source=active.name)) is None:
            raise
        update = await _failed(polling, active, w.name, ITEM, failure, 1)
        active.deletions.queue.again(w.name, suspect, _next_try(polling, update))
        return
    finally:
        active.deletions.queue.finished(w.name, suspect)
    await take(polling, active, active.health.succeeded(w.name, ITEM, polling.clock.now()))
    await polling.follow_up.follow(active, w, result)


async def discover(polling: Polling, active: ActiveSource) -> None:
    """Make the calls that the source needs before its first poll."""
    discovery = active.discovery
    try:
        await active.source.discover(active.ask)
    except Exception as error:
        if (failure := failed_poll(error, source=active.name)) is None:
            raise
        discovery.failures += 1
        update = await _failed(polling, active, DISCOVER, DISCOVER, failure, discovery.failures)
        discovery.at = _next_try(polling, update)
        return
    discovery.is_done, discovery.failures = True, 0
    await take(polling, active, active.health.succeeded(DISCOVER, DISCOVER, polling.clock.now()))
    log.info("source.ready", source=active.name)
    _release(polling, active)


async def take(polling: Polling, active: ActiveSource, update: HealthUpdate) -> None:
    """Report changes of the source's health and its server's pauses, and let units be polled that are free again."""
    if (paused := active.poll_loop.pauses.unreported()) is not None:
        update = structs.replace(update, notices=(*update.notices, paused))
    await polling.follow_up.say(active, update)
    if update.reopened:
        _release(polling, active)


def _release(polling: Polling, active: ActiveSource) -> None:
    now = polling.clock.now()
    for w in active.endpoints.values():
        for key, unit in w.units.items():
            if unit.retry_at is None or unit.retry_at <= now:
                active.poll_loop.planner.defer(active.unit(w, key), active.poll_loop.time())
    active.poll_loop.refresh()
