"""How everything stands, in one document: from the state file alone, and with what only the running daemon knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from poller.budget.budget import Budget, Usage
from poller.clock import SystemClock
from poller.config.models import BudgetConfig, Config
from poller.events.cloudevents import iso
from poller.events.events import source_uri
from poller.hooks.loading import Failed
from poller.operations.planners import shortfalls, situations
from poller.planner.feasibility import Shortfall
from poller.planner.report import Report, report
from poller.polling.health import HealthReport
from state.deliveries import SubscriptionState
from state.sqlite.read_status import MeasuredDelay
from state.sqlite.store import Reader, open_reader

DAY = 86400.0
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """One budget now."""

    usage: tuple[Usage, ...]
    throttled_until: float | None  # Unix seconds
    polls: int = 0  # begun since the start
    calls: int = 0  # left since the start, those of logins and redirects included
    refused: int = 0  # answered 429 since the start
    shortfall: Shortfall | None = None  # `max_staleness` that it cannot keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What only the running program knows, at one moment."""

    budgets: Mapping[str, BudgetView]
    sources: Mapping[str, HealthReport]
    endpoints: Mapping[tuple[str, str], Mapping[str, Any]]  # what an operator must see of each that is watched
    expected_delays: Mapping[tuple[str, str], float] = field(default_factory=dict)  # seconds
    last_polls: Mapping[str, float | None] = field(default_factory=dict)
    failed_plugins: Sequence[Failed] = ()


def status(reader: Reader, config: Config, *, now: float, live: Live | None = None) -> Row:
    """The whole status, ready for JSON: times are ISO text in UTC, spans seconds (`..._s`). Never a secret.

    Without `live` it tells what the file knows: nothing of pages aside, and what was learned a minute
    ago.
    """
    endpoints = _endpoints(reader, config, live, now)
    return {
        "time": iso(now),
        "running": live is not None,
        "log_id": reader.log.id,
        "last_seq": reader.log.last_seq(),
        "budgets": _budgets(reader, config, live, now),
        "sources": _sources(config, endpoints, live),
        "endpoints": endpoints,
        "subscriptions": _subscriptions(reader, now),
        "plugins_failed": [_failed(plugin) for plugin in (live.failed_plugins if live else ())],
    }


def read_status(config: Config, *, now: float) -> Row:
    """The status from the file alone; of a state that is not there yet, that nothing is known. Raises StateError."""
    if not config.poller.state.exists():
        return _unborn(config, now)
    with open_reader(config.poller.state) as reader:
        return status(reader, config, now=now)


def _unborn(config: Config, now: float) -> Row:
    budgets = [_budget(name, _unspent(name, budget, now)) for name, budget in config.budgets.items()]
    sources = _sources(config, [], None)
    known: Row = {"time": iso(now), "running": False, "log_id": None, "last_seq": 0, "budgets": budgets}
    return {**known, "sources": sources, "endpoints": [], "subscriptions": [], "plugins_failed": []}


def _unspent(name: str, budget: BudgetConfig, now: float) -> BudgetView:
    return BudgetView(usage=Budget(name, budget.limits, share=budget.share).usage(now), throttled_until=None)


# Budgets.


def _budgets(reader: Reader, config: Config, live: Live | None, now: float) -> list[Row]:
    if live is not None:
        return [_budget(name, view) for name, view in live.budgets.items()]
    broken = {one.budget: one for one in shortfalls(config, reader.sums.units())}
    return [
        _budget(name, _spent(reader, name, budget, now, broken.get(name))) for name, budget in config.budgets.items()
    ]


def _spent(reader: Reader, name: str, settings: BudgetConfig, now: float, shortfall: Shortfall | None) -> BudgetView:
    """How the windows stand by the calls that are written down."""
    steady = SystemClock.resume(reader.sums.anchor(), wall=lambda: now).steady()
    budget = Budget(name, settings.limits, share=settings.share, concurrency=settings.concurrency)
    longest = max(limit.seconds for limit in settings.limits)
    budget.restore(reader.sums.calls(name, since=steady - longest - 1.0), steady)
    until = reader.sums.throttled_until(name)
    wall = now + until - steady if until is not None and until > steady else None
    return BudgetView(usage=budget.usage(steady), throttled_until=wall, shortfall=shortfall)


def _budget(name: str, view: BudgetView) -> Row:
    return {
        "name": name,
        "limits": [
            {"rate": usage.rate, "used": usage.used, "remaining": usage.remaining, "foreign": usage.foreign}
            for usage in view.usage
        ],
        "throttled_until": _iso(view.throttled_until),
        "broken_promise": None if view.shortfall is None else str(view.shortfall),
    }


# Sources and endpoints.


def _sources(config: Config, endpoints: Sequence[Row], live: Live | None) -> list[Row]:
    if live is not None:
        return [_source(name, health, live.last_polls.get(name)) for name, health in live.sources.items()]
    errors = {row["source"]: row["error"] for row in reversed(endpoints) if row["error"]}
    return [
        {
            "name": name,
            "state": "failing" if name in errors else "ok",
            "reason": errors.get(name),
            "since": None,
            "next_probe": None,
            "last_poll": None,
        }
        for name in config.sources
    ]


def _source(name: str, health: HealthReport, last_poll: float | None) -> Row:
    return {
        "name": name,
        "state": health.state,
        "reason": health.reason,
        "since": _iso(health.since),
        "next_probe": _iso(health.next_probe),
        "last_poll": _iso(last_poll),
    }


def _endpoints(reader: Reader, config: Config, live: Live | None, now: float) -> list[Row]:
    measured = {(one.source, one.endpoint): one for one in reader.sums.measured_delays(since=now - DAY)}
    expected = live.expected_delays if live is not None else _expected(reader, config, now)
    return [
        _endpoint(
            row,
            live,
            expected.get((row["source"], row["endpoint"])),
            measured.get((source_uri(row["source"]), row["endpoint"])),
            now,
        )
        for row in reader.polls.endpoints()
        if _is_watched(config, live, row["source"], row["endpoint"])
    ]


def _is_watched(config: Config, live: Live | None, source: str, endpoint: str) -> bool:
    if live is not None:
        return (source, endpoint) in live.endpoints
    settings = config.sources.get(source)
    return settings is not None and (not settings.endpoints or endpoint in settings.endpoints)


def _expected(reader: Reader, config: Config, now: float) -> dict[tuple[str, str], float]:
    """What the planners expect by what they saved."""
    return expected_delays(report(situations(config, reader.sums, now=now)))


def expected_delays(plan: Report) -> dict[tuple[str, str], float]:
    """Of each endpoint, seconds."""
    return {
        (one.source, one.endpoint): one.expected_delay for one in plan.endpoints if math.isfinite(one.expected_delay)
    }


def _endpoint(row: Row, live: Live | None, expected: float | None, measured: MeasuredDelay | None, now: float) -> Row:
    name = (row["source"], row["endpoint"])
    oldest = row["oldest_asked_at"]
    staleness = None if oldest is None else max(0.0, now - oldest)
    return {
        "source": row["source"],
        "endpoint": row["endpoint"],
        "units": row["units"],
        "objects": row["objects"],
        "last_sweep": _iso(row["last_sweep"]),
        "staleness_s": _seconds(staleness),
        "expected_delay_s": _seconds(expected),
        "measured_delay_s": None if measured is None else _seconds(measured.mean),
        "measured_delay_p95_s": None if measured is None else _seconds(measured.p95),
        "measured_events": 0 if measured is None else measured.events,
        "baseline": bool(row["baseline"]),
        "suspects": row["suspects"],
        "held": None if row["held"] is None else _held(row["held"]),
        "failing": row["failing"],
        "error": row["error"],
        **(live.endpoints[name] if live is not None else {}),
        **_health(live, *name),
    }


def _held(raw: bytes) -> Row:
    held: Row = orjson.loads(raw)
    return {**held, "since": _iso(held.get("since"))}


def _health(live: Live | None, source: str, endpoint: str) -> Row:
    """What the source's health says of an endpoint that fails."""
    found = live.sources[source].endpoints if live is not None and source in live.sources else ()
    for one in found:
        if one.endpoint == endpoint:
            return {
                "blocked": one.blocked,
                "failing_since": _iso(one.since),
                "next_try": _iso(one.next_try),
                "error": one.reason,
            }
    return {}


# Subscriptions.


def _subscriptions(reader: Reader, now: float) -> list[Row]:
    waiting = reader.sums.oldest_waiting()
    return [
        _subscription(one, waiting.get(one.name), now)
        for one in reader.deliveries.subscriptions()
        if one.state != "removed"
    ]


def _subscription(one: SubscriptionState, oldest: float | None, now: float) -> Row:
    return {
        "name": one.name,
        "state": one.state,
        "reason": one.reason or None,
        "cursor": one.cursor,
        "lag": one.lag,
        "pending": one.pending,
        "dead": one.dead,
        "oldest_waiting_s": None if oldest is None else _seconds(max(0.0, now - oldest)),
        "failures": one.health.failures,
        "next_probe": _iso(one.next_probe),
        "filter_errors": one.filter_errors,
        "last_error": one.last_error,
    }


def _failed(plugin: Failed) -> Row:
    return {"name": plugin.name, "origin": plugin.origin, "error": plugin.error}


def _iso(time: float | None) -> str | None:
    return None if time is None else iso(time)


def _seconds(span: float | None) -> float | None:
    return None if span is None else round(span, 3)
