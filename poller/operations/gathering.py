"""Gathers the status from the state, and from a running daemon what only it knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from msgspec import structs

from poller.budget.budget import Budget
from poller.changes.certainty import ASIDE, LATE, Uncertainty, load_claims
from poller.changes.exemptions import Exemptions
from poller.clock import SystemClock
from poller.config.models import BudgetConfig, Config
from poller.hooks.loading import Failed
from poller.late import late
from poller.operations.planners import infeasible_budgets, planner_states
from poller.operations.program import BudgetView, Live, Watched
from poller.operations.status import (
    BudgetStatus,
    EndpointState,
    EndpointStatus,
    Held,
    LimitStatus,
    Owned,
    PluginFailure,
    SourceStatus,
    Status,
    SubscriptionStatus,
    WorkerStatus,
)
from poller.planner.feasibility import Infeasible
from poller.polling.health import EndpointHealth, HealthReport, SourceHealth
from poller.rendering.counting import failing_of
from state.deliveries import SubscriptionState
from state.leases import Lease, WorkerState, budget_lease
from state.open import is_there
from state.open import open_reader as open_reader
from state.records import source_uri
from state.status import MeasuredDelay, Retrying
from state.store import Reader

if TYPE_CHECKING:
    import poller.planner.report as reports
else:
    reports = late("poller.planner.report")

DAY = 86400.0
MOST_NOTED = 10  # units of one endpoint whose notes are shown
Row = Mapping[str, Any]  # an endpoint's row of the state
WELL = HealthReport(state="ok")


def status(reader: Reader, config: Config, *, now: float, live: Live | None = None) -> Status:
    """The whole status.

    Without `live` the status has only what the state knows: no delay to expect where nobody polls.
    """
    health = _health(reader, config, live)
    budgets = _budgets(reader, config, live, now)
    health = _held_back(health, config, budgets)
    endpoints = _endpoints(reader, config, live, health, now)
    subscriptions = _subscriptions(reader, now)
    return Status(
        time=_time(now),
        running=live is not None,
        log_id=reader.log.id,
        last_seq=reader.log.last_seq(),
        budgets=budgets,
        sources=_sources(endpoints, health, live),
        endpoints=endpoints,
        subscriptions=subscriptions,
        workers=_workers(reader, subscriptions),
        plugins_failed=tuple(_failed(plugin) for plugin in (live.failed_plugins if live else ())),
        state_error=live.state_error if live else None,
        config_error=live.config_error if live else None,
    )


def read_status(config: Config, *, now: float) -> Status:
    """The status from the file alone; an empty one if there is no state yet. Raises StateError."""
    if not is_there(config.poller.state):
        return _unborn(config, now)
    with open_reader(config.poller.state) as reader:
        return status(reader, config, now=now)


def _unborn(config: Config, now: float) -> Status:
    budgets = tuple(_budget(name, _unspent(name, budget, now)) for name, budget in config.budgets.items())
    sources = _sources((), dict.fromkeys(config.sources, WELL), None)
    return Status(time=_time(now), running=False, log_id=None, last_seq=0, budgets=budgets, sources=sources)


def _unspent(name: str, budget: BudgetConfig, now: float) -> BudgetView:
    return BudgetView(usage=Budget(name, budget.limits, share=budget.share).usage(now), throttled_until=None)


# Budgets.


def _budgets(reader: Reader, config: Config, live: Live | None, now: float) -> tuple[BudgetStatus, ...]:
    if live is not None and not live.is_shared:
        return tuple(_budget(name, view) for name, view in live.budgets.items())
    known = {} if live is None else live.budgets
    broken = {one.budget: one for one in infeasible_budgets(config, reader.sums)}
    return tuple(
        _budget(name, known.get(name) or _spent(reader, name, budget, now, broken.get(name)))
        for name, budget in config.budgets.items()
    )


def _spent(reader: Reader, name: str, settings: BudgetConfig, now: float, infeasible: Infeasible | None) -> BudgetView:
    """Usage of the windows by recorded calls."""
    steady = SystemClock.resume(reader.sums.anchor(), wall=lambda: now).steady()
    budget = Budget(name, settings.limits, share=settings.share, concurrency=settings.concurrency)
    longest = max(limit.seconds for limit in settings.limits)
    budget.restore(reader.sums.calls(name, since=steady - longest - 1.0), steady)
    until = reader.sums.throttled_until(name)
    wall = now + until - steady if until is not None and until > steady else None
    return BudgetView(usage=budget.usage(steady), throttled_until=wall, infeasible=infeasible)


def _budget(name: str, view: BudgetView) -> BudgetStatus:
    return BudgetStatus(
        name=name,
        limits=tuple(
            LimitStatus(rate=usage.rate, used=usage.used, remaining=usage.remaining, foreign=usage.foreign)
            for usage in view.usage
        ),
        throttled_until=_at(view.throttled_until),
        broken_promise=None if view.infeasible is None else str(view.infeasible),
    )


# Sources.


def _health(reader: Reader, config: Config, live: Live | None) -> Mapping[str, HealthReport]:
    """The health of every source: from the running program, otherwise as it was stored."""
    if live is not None and not live.is_shared:
        return live.sources
    known = {} if live is None else live.sources
    return {name: known.get(name) or _kept_health(reader, name) for name in config.sources}


def _kept_health(reader: Reader, source: str) -> HealthReport:
    """The source's episodes, as stored by a daemon."""
    health = SourceHealth(source)
    saved = reader.sums.learned(f"health:{source}")
    if saved is not None:
        try:
            health.recall(saved)
        except ValueError:  # the daemon that runs on the state reports it
            return WELL
    return health.snapshot()


def _held_back(
    health: Mapping[str, HealthReport], config: Config, budgets: Sequence[BudgetStatus]
) -> dict[str, HealthReport]:
    """Health in which no source is polled before its budget allows a call."""
    throttled = {one.name: one.throttled_until.timestamp() for one in budgets if one.throttled_until is not None}
    found = {}
    for name, one in health.items():
        until = throttled.get(config.sources[name].budget) if name in config.sources else None
        found[name] = one if until is None else one.not_before(until)
    return found


def _sources(
    endpoints: Sequence[EndpointStatus], health: Mapping[str, HealthReport], live: Live | None
) -> tuple[SourceStatus, ...]:
    polled = {} if live is None else live.last_polls
    return tuple(
        _source(name, one, [mine for mine in endpoints if mine.source == name], polled.get(name))
        for name, one in health.items()
    )


def _source(
    name: str, health: HealthReport, endpoints: Sequence[EndpointStatus], last_poll: float | None
) -> SourceStatus:
    """A source's status from its health; never ok while all of its units fail."""
    units, failing = sum(one.units for one in endpoints), sum(one.failing for one in endpoints)
    state, reason = health.state, health.reason
    if state == "ok" and units and failing >= units:
        state, reason = "failing", next((one.error for one in endpoints if one.error), None)
    return SourceStatus(
        name=name,
        state=state,
        reason=reason,
        since=_at(health.since),
        next_probe=_at(health.next_probe),
        last_poll=_at(last_poll),
        units=units,
        failing=failing,
    )


# Endpoints.


def _endpoints(
    reader: Reader, config: Config, live: Live | None, health: Mapping[str, HealthReport], now: float
) -> tuple[EndpointStatus, ...]:
    measured = {(one.source, one.endpoint): one for one in reader.sums.measured_delays(since=now - DAY)}
    expected = _expected(reader, config, now) if live is None or live.is_shared else {}
    expected |= {} if live is None else live.expected_delays
    noted = _noted(reader)
    found = []
    for row in reader.polls.endpoints():
        name = row["source"], row["endpoint"]
        if _is_watched(config, live, *name):
            watched = Watched() if live is None else live.endpoints.get(name, Watched())
            watched = structs.replace(watched, notes={**noted.get(name, {}), **watched.notes})
            delay = measured.get((source_uri(name[0]), name[1]))
            found.append(_endpoint(row, watched, health.get(name[0], WELL), expected.get(name), delay, now))
    outage = live.state_error if live is not None else None
    return tuple(found) if outage is None else tuple(_unrecorded(one, outage) for one in found)


def _noted(reader: Reader) -> dict[tuple[str, str], dict[str, str]]:
    """What was set aside of the latest answers of the units of each endpoint, as it is stored."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for unit in reader.polls.claims(ASIDE):
        notes = found.setdefault((unit.source, unit.endpoint), {})
        if len(notes) < MOST_NOTED and (aside := load_claims(unit.claims).aside):
            notes[unit.key] = "; ".join(aside)
    return found


def _unrecorded(one: EndpointStatus, outage: str) -> EndpointStatus:
    """An endpoint while the state cannot be written: it is not polled, so it is not known to be ok."""
    return replace(one, state="uncertain", reason=f"not polled: {outage}") if one.state == "ok" else one


def _is_watched(config: Config, live: Live | None, source: str, endpoint: str) -> bool:
    if live is not None and not live.is_shared:
        return (source, endpoint) in live.endpoints
    settings = config.sources.get(source)
    return settings is not None and (not settings.endpoints or endpoint in settings.endpoints)


def _expected(reader: Reader, config: Config, now: float) -> dict[tuple[str, str], float]:
    """Delays that the planners of other workers expect, from what they saved."""
    if not reader.leases.shares().workers:
        return {}
    return expected_delays(reports.report(planner_states(config, reader.sums, now=now)))


def expected_delays(plan: reports.Report) -> dict[tuple[str, str], float]:
    """Expected delay of each endpoint, in seconds."""
    return {
        (one.source, one.endpoint): one.expected_delay for one in plan.endpoints if math.isfinite(one.expected_delay)
    }


def _endpoint(
    row: Row, watched: Watched, health: HealthReport, expected: float | None, measured: MeasuredDelay | None, now: float
) -> EndpointStatus:
    ill = next((one for one in health.endpoints if one.endpoint == row["endpoint"]), None)
    held = None if row["held"] is None else _held(row["held"])
    state, reason = _state(row, watched, health, ill, held)
    oldest = row["oldest_asked_at"]
    return EndpointStatus(
        source=row["source"],
        endpoint=row["endpoint"],
        state=state,
        reason=reason,
        units=row["units"],
        objects=row["objects"],
        last_sweep=_at(row["last_sweep"]),
        staleness_s=None if oldest is None else _seconds(max(0.0, now - oldest)),
        expected_delay_s=_seconds(expected) if _is_seen(row, state) else None,
        measured_delay_s=None if measured is None else _seconds(measured.mean),
        measured_delay_p95_s=None if measured is None else _seconds(measured.p95),
        measured_events=0 if measured is None else measured.events,
        baseline=bool(row["baseline"]),
        suspects=row["suspects"],
        unlisted=row["unlisted"],
        held=held,
        failing=row["failing"],
        error=_error(row, ill),
        blocked=ill is not None and ill.blocked,
        failing_since=None if ill is None else _at(ill.since),
        next_try=None if ill is None else _at(ill.next_try),
        in_doubt_since=_at(watched.in_doubt_since),
        aside={
            unit: {path: str(shape) for path, shape in one.shift.fields.items()}
            for unit, one in Exemptions.load(row["accepted"]).quarantine.items()
        },
        notes=watched.notes,
        ignore_candidates=tuple(watched.ignore_candidates),
    )


def _error(row: Row, ill: EndpointHealth | None) -> str | None:
    error: str | None = row["error"] if ill is None else ill.reason
    return error


def _is_seen(row: Row, state: EndpointState) -> bool:
    """Whether changes are seen now: a list that is refused, held or fails as a whole has no expected delay."""
    return state not in ("blocked", "held") and not (state == "failing" and row["failing"] >= row["units"])


def _state(
    row: Row, watched: Watched, health: HealthReport, ill: EndpointHealth | None, held: Held | None
) -> tuple[EndpointState, str | None]:
    """State and reason of an endpoint. A list that may be incomplete is never ok."""
    source, error = row["source"], _error(row, ill)
    if held is not None:
        return "held", held.why
    if ill is not None and ill.blocked:
        return "blocked", ill.reason
    if health.state in ("blocked", "probing"):
        return "blocked", f"source {source} is {health.state}: {health.reason}"
    if error is not None:
        noun = "list" if row["per_parent"] else "unit"
        many = f"{failing_of(row['failing'], row['units'], noun)}: " if row["failing"] else ""
        return "failing", f"{many}{error}"
    if health.is_whole:
        return "failing", f"source {source} is {health.state}: {health.reason}"
    if (doubt := _doubt(row, watched)) is not None:
        return "uncertain", doubt
    return "ok", None


def _doubt(row: Row, watched: Watched) -> str | None:
    """Why it is not known whether the list is complete; None if it is."""
    uncertain = Uncertainty.load(row["uncertain"])
    if uncertain is not None:
        return f"its latest sweep contradicts itself: {uncertain.text}"
    if row["last_sweep"] is None:
        return "the first sweep is not complete yet"
    if row["baseline"]:
        return "a new baseline is not complete yet"
    if watched.in_doubt_since is not None:
        return "most of its objects are missing: every unit is being counted first"
    known = Exemptions.load(row["accepted"])
    if known.quarantine:
        return f"set aside until other pages decide: {', '.join(known.quarantine)}"
    notes = [known.misleading.text] if known.misleading is not None else []
    notes += [known.unlisted.text] if known.unlisted.text is not None else []
    missing = (f"{unit}: {note}" for unit, note in watched.notes.items() if unit != LATE)  # what is late was seen
    return "; ".join([*notes, *missing]) or None


def _held(raw: bytes) -> Held:
    """A hold as stored."""
    kept = orjson.loads(raw)
    return msgspec.convert({**kept, "since": _at(kept.get("since"))}, Held)


# Subscriptions.


def _subscriptions(reader: Reader, now: float) -> tuple[SubscriptionStatus, ...]:
    waiting = reader.sums.oldest_waiting()
    retrying = {one.subscription: one for one in reader.sums.retrying()}
    return tuple(
        _subscription(one, waiting.get(one.name), retrying.get(one.name), now)
        for one in reader.deliveries.subscriptions()
        if one.state != "removed"
    )


def _subscription(
    one: SubscriptionState, oldest: float | None, retrying: Retrying | None, now: float
) -> SubscriptionStatus:
    return SubscriptionStatus(
        name=one.name,
        state=one.state,
        reason=one.reason or None,
        cursor=one.cursor,
        lag=one.lag,
        pending=one.pending,
        dead=one.dead,
        oldest_waiting_s=None if oldest is None else _seconds(max(0.0, now - oldest)),
        retrying=0 if retrying is None else retrying.deliveries,
        next_attempt=None if retrying is None else _at(retrying.next),
        retry_status=None if retrying is None else retrying.status,
        failures=one.health.failures,
        next_probe=_at(one.next_probe),
        filter_errors=one.filter_errors,
        last_error=one.last_error,
    )


# Workers.


def _workers(reader: Reader, subscriptions: Sequence[SubscriptionStatus]) -> tuple[WorkerStatus, ...]:
    shares = reader.leases.shares()
    lags = {one.name: one.lag for one in subscriptions}
    owned = {
        one.name: [lease for lease in shares.owners.values() if lease.worker == one.name] for one in shares.workers
    }
    return tuple(_worker(one, owned[one.name], lags) for one in shares.workers)


def _worker(one: WorkerState, leases: Sequence[Lease], lags: Mapping[str, int]) -> WorkerStatus:
    owned: dict[bool, list[Owned]] = {True: [], False: []}  # by whether it is a budget
    for lease in sorted(leases, key=lambda lease: lease.name):
        owned[lease.name == budget_lease(lease.subject)].append(Owned(name=lease.subject, epoch=lease.epoch))
    return WorkerStatus(
        name=one.name,
        version=one.version,
        digest=one.digest,
        listen=one.listen,
        since=_time(one.since),
        lease_left_s=round(one.left, 3),
        budgets=tuple(owned[True]),
        subscriptions=tuple(owned[False]),
        lag=sum(lags.get(lease.name, 0) for lease in owned[False]),
        lacks=one.lacks,
    )


def _failed(plugin: Failed) -> PluginFailure:
    return PluginFailure(name=plugin.name, origin=plugin.origin, error=plugin.error)


def _at(time: float | None) -> datetime | None:
    return None if time is None else _time(time)


def _time(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC)


def _seconds(span: float | None) -> float | None:
    return None if span is None else round(span, 3)
