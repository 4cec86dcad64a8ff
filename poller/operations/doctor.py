"""Findings about problems, computed from observations, and how to fix them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from poller.changes.certainty import LATE
from poller.config.models import Config
from poller.events.cloudevents import iso
from poller.operations.status import BudgetStatus, EndpointStatus, SourceStatus, Status, SubscriptionStatus
from poller.options.quantities import duration_text
from poller.options.secrets import secrets_in
from poller.rendering.counting import counted, failing_of
from poller.rendering.sentences import clause

ROOM_BAD: Final = 100_000_000  # bytes of free space: SQLite, its WAL and a log file can fill them within an hour
ROOM_WARN: Final = 1_000_000_000
BEHIND: Final = 3600.0  # seconds that an event may wait without a warning
ASK_AT_ONCE: Final = "fix the cause; poller check --online asks at once"
CLOCK_BACK: Final = 60.0  # seconds that the clock may be behind the newest event


class Level(enum.StrEnum):
    """Severity. Only BAD makes the examination fail."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    level: Level
    about: str
    what: str
    hint: str | None = None  # what to do


def ok(about: str, what: str) -> Finding:
    """A finding without a problem."""
    return Finding(level=Level.OK, about=about, what=what)


def warn(about: str, what: str, hint: str | None = None) -> Finding:
    """A problem that stops nothing."""
    return Finding(level=Level.WARN, about=about, what=what, hint=hint)


def bad(about: str, what: str, hint: str | None = None) -> Finding:
    """Something does not work, or soon will not."""
    return Finding(level=Level.BAD, about=about, what=what, hint=hint)


def of_config(config: Config) -> Iterator[Finding]:
    """Parts of a valid configuration that do nothing."""
    if not config.sources:
        yield warn("configuration", "no source: nothing is polled", "add [sources.NAME]; poller init shows one")
    if not config.subscriptions:
        yield warn("configuration", "no subscription: events are recorded, but not delivered", "add [[subscriptions]]")
    for source in config.sources.values():
        if not source.verify:
            yield warn(
                f"source {source.name}", "certificates are not verified", "ca_file = PATH instead of verify = false"
            )


def of_space(free: int, state: int) -> Finding:
    """Free space on the disk of the state: `free` bytes beside a state of `state` bytes."""
    room = f"{free / 1e9:.1f} GB" if free >= ROOM_WARN else f"{free / 1e6:.1f} MB"
    told = f"{room} free, the state has {state / 1e6:.1f} MB"
    hint = "free some space: nothing can be recorded on a full disk"
    if free < ROOM_BAD:
        return bad("disk", told, hint)
    return warn("disk", told, hint) if free < max(ROOM_WARN, state) else ok("disk", told)


def of_clock(now: float, newest: float | None) -> Finding:
    """The wall clock compared with the time of the newest event."""
    if newest is not None and now < newest - CLOCK_BACK:
        span = duration_text(round((newest - now) / 60) * 60)
        return bad(
            "clock",
            f"it is {span} behind the newest event: it is wrong now, or it was ahead then",
            "compare it with another clock; is NTP on? timedatectl",
        )
    return ok("clock", "not behind the newest event")


def of_status(status: Status, config: Config | None) -> Iterator[Finding]:
    """All failures in the status, from sources to subscriptions."""
    if status.state_error is not None:
        yield bad(
            "state", f"{status.state_error}; nothing is polled until it can be", "polling then continues by itself"
        )
    if status.config_error is not None and config is not None:  # else the file is still refused, which is said already
        what = f"refused at the latest reload, the one before is in use: {status.config_error}"
        yield bad("configuration", what, "poller check; then reload again")
    for budget in status.budgets:
        yield from _budget(budget)
    for source in status.sources:
        yield _source(source, config)
    for endpoint in status.endpoints:
        yield from _endpoint(endpoint)
        yield from _promise(endpoint, config)
    for subscription in status.subscriptions:
        yield from _subscription(subscription)
    yield from _workers(status)
    for plugin in status.plugins_failed:
        yield of_plugin(plugin.name, plugin.origin, plugin.error)


def of_plugin(name: str, origin: str, error: str) -> Finding:
    """A plugin that could not be loaded, or raised an exception."""
    return bad(f"plugin {name}", f"{error} ({origin})", "fix or remove it; poller plugins")


def summed(findings: Sequence[Finding]) -> str:
    """How many findings of each level, as text."""
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    if not counts[Level.BAD] and not counts[Level.WARN]:
        return "all is well"
    return f"{counts[Level.BAD]} bad, {counts[Level.WARN]} to look at, {counts[Level.OK]} ok"


def _workers(status: Status) -> Iterator[Finding]:
    """What workers that share a database say of themselves."""
    if status.config_differs:
        told = ", ".join(f"{one.name} {one.digest}" for one in status.workers)
        yield warn(
            "workers", f"they have different configurations: {told}", "give all the same poller.toml, and reload"
        )
    owned = {f"budget/{one.name}" for worker in status.workers for one in worker.budgets}
    owned |= {f"subscription/{one.name}" for worker in status.workers for one in worker.subscriptions}
    for worker in status.workers:
        for lease in worker.lacks:
            kind, _, name = lease.partition("/")
            hint = "its log says why: a secret that is not there, for example"
            if lease in owned:
                yield warn(f"worker {worker.name}", f"it cannot open {kind} {name}; another worker has it", hint)
            else:
                yield bad(f"worker {worker.name}", f"it cannot open {kind} {name}, and no other worker has it", hint)


def _budget(one: BudgetStatus) -> Iterator[Finding]:
    about = f"budget {one.name}"
    if one.throttled_until is not None:
        yield warn(
            about,
            f"the server wants no call before {_at(one.throttled_until)}",
            f"poller resume {one.name} polls again at once; lower limits or share if it comes back",
        )
    if one.broken_promise is not None:
        yield bad(about, one.broken_promise, "poller check says what it would take")


def of_start(config: Config | None, source: str) -> str | None:
    """What to do after a change of a secret that a running daemon has had since its start; None if it has no such."""
    options = None if config is None or source not in config.sources else config.sources[source].options
    names = " or ".join(sorted({one.place for one in secrets_in(options) if one.kind in ("env", "credential")}))
    return f"after a new value of {names} restart the daemon, which has that of its start" if names else None


def _source(one: SourceStatus, config: Config | None) -> Finding:
    about = f"source {one.name}"
    if one.state != "ok":
        since = f" since {_at(one.since)}" if one.since is not None else ""
        probe = f"; next probe {_at(one.next_probe)}" if one.next_probe is not None else ""
        why = clause(one.reason or "")
        hint = "; ".join(filter(None, (ASK_AT_ONCE, of_start(config, one.name) if one.state == "blocked" else None)))
        return bad(about, f"{one.state}{since}: {why}{probe}", hint)
    if one.failing:
        return ok(about, f"answers, but {failing_of(one.failing, one.units, 'unit')}")
    return ok(about, "answers" if one.last_poll is not None else "no problem is known")


def _endpoint(one: EndpointStatus) -> Iterator[Finding]:
    about = f"endpoint {one.label}"
    if one.state == "held":
        since = "" if one.held is None or one.held.since is None else f" since {_at(one.held.since)}"
        how = "with --accept to record the current objects without events, or --emit to report them"
        yield bad(about, f"held{since}: {one.reason}; nothing of it is recorded", f"poller release {one.label}, {how}")
    elif one.state in ("failing", "blocked"):
        yield bad(about, f"{one.state}: {one.reason}", ASK_AT_ONCE)
    elif one.last_sweep is None:
        yield warn(about, "not read completely yet", "poller run, or poller once")
    elif one.state == "uncertain":
        yield warn(about, f"not certain to be complete: {one.reason}")
    if LATE in one.notes:
        yield warn(about, one.notes[LATE])
    for path in one.ignore_candidates:
        yield warn(about, f"{path} changes at every poll", f'add ignore = ["{path}"] if nobody wants to know')


def _promise(one: EndpointStatus, config: Config | None) -> Iterator[Finding]:
    # The daemon may run an earlier configuration, with sources that this one no longer has.
    source = config.sources.get(one.source) if config is not None else None
    promised = source.endpoint(one.endpoint).max_staleness if source is not None else None
    if promised is not None and (one.staleness_s or 0.0) > promised * 1.5:
        stale = duration_text(round(one.staleness_s or 0.0))
        what = f"stale for {stale}, but max_staleness is {duration_text(promised)}"
        yield bad(f"endpoint {one.label}", what, "is the daemon running? poller plan")


def _subscription(one: SubscriptionStatus) -> Iterator[Finding]:
    name, about = one.name, f"subscription {one.name}"
    waiting = f"poller deliveries --subscription {name} --state pending"
    if one.state == "failing":
        yield bad(about, f"failing: {one.last_error}", waiting)
    elif one.state == "disabled" and one.reason != "enabled = false":
        yield bad(about, f"disabled: {one.reason}", f"poller resume {name} delivers what was kept")
    elif one.state == "paused":
        yield warn(about, f"paused with {counted(one.lag, 'event')} waiting", f"poller resume {name}")
    elif one.state == "active" and one.retrying:
        now = f"poller redeliver --subscription {name} --state pending tries them at once"
        yield warn(about, one.retry_text, f"{waiting}; {now}")
    elif one.state == "active":
        yield ok(about, f"{counted(one.lag, 'event')} to go" if one.lag else "has everything")
    if one.state == "active" and (one.oldest_waiting_s or 0.0) > BEHIND:
        waits = duration_text(round((one.oldest_waiting_s or 0.0) / 60) * 60)
        yield warn(about, f"the oldest event has been waiting for {waits}", waiting)
    if one.dead:
        look = f"poller deliveries --subscription {name} --state dead"
        letters = counted(one.dead, "dead letter")
        yield warn(about, letters, f"{look}; once fixed, poller redeliver --subscription {name}")
    if one.filter_errors:
        yield warn(about, f"`where` failed on {counted(one.filter_errors, 'event')}: {one.last_error}", "fix `where`")


def _at(time: datetime) -> str:
    return iso(time.timestamp())
