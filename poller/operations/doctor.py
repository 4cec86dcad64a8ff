"""Pure: what is wrong, from what was found out, and how to mend it."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from poller.config.models import Config
from poller.options.quantities import duration_text

Row = Mapping[str, Any]

ROOM_BAD: Final = 100_000_000  # bytes of free space: SQLite, its log and a log file fill them in a bad hour
ROOM_WARN: Final = 1_000_000_000
BEHIND: Final = 3600.0  # seconds for which an event may wait before it is worth a word
CLOCK_BACK: Final = 60.0  # seconds that the clock may be behind the latest call


class Level(enum.StrEnum):
    """How bad it is. Only BAD fails the examination."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str
    what: str
    hint: str | None = None  # what to do


def ok(about: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(level=Level.OK, about=about, what=what)


def warn(about: str, what: str, hint: str | None = None) -> Finding:
    """Worth a look; things go on."""
    return Finding(level=Level.WARN, about=about, what=what, hint=hint)


def bad(about: str, what: str, hint: str | None = None) -> Finding:
    """Something does not work, or soon will not."""
    return Finding(level=Level.BAD, about=about, what=what, hint=hint)


def of_config(config: Config) -> Iterator[Finding]:
    """A configuration that can be read, and yet does nothing."""
    if not config.sources:
        yield warn("configuration", "no source: nothing is polled", "add [sources.NAME]; poller init shows one")
    if not config.subscriptions:
        yield warn("configuration", "no subscription: events are recorded and delivered to nobody", "[[subscriptions]]")
    for source in config.sources.values():
        if not source.verify:
            yield warn(
                f"source {source.name}", "certificates are not verified", "ca_file = PATH instead of verify = false"
            )


def of_space(free: int, state: int) -> Finding:
    """The disk of the state: `free` bytes beside a state of so many."""
    told = f"{free / 1e9:.1f} GB free, the state has {state / 1e6:.1f} MB"
    hint = "make room: nothing can be recorded on a full disk"
    if free < ROOM_BAD:
        return bad("disk", told, hint)
    return warn("disk", told, hint) if free < max(ROOM_WARN, state) else ok("disk", told)


def of_clock(now: float, latest: float | None) -> Finding:
    """The wall clock against the latest call or event that was written down."""
    if latest is not None and now < latest - CLOCK_BACK:
        behind = duration_text(round(latest - now))
        return bad("clock", f"it is {behind} behind what was written down last", "set it; is NTP on? timedatectl")
    return ok("clock", "not behind what was written down last")


def of_status(status: Row, config: Config) -> Iterator[Finding]:
    """Everything that the status tells of failures, in the order of the data's way."""
    for budget in status["budgets"]:
        yield from _budget(budget)
    for source in status["sources"]:
        yield from _source(source)
    for endpoint in status["endpoints"]:
        yield from _endpoint(endpoint, config)
    for subscription in status["subscriptions"]:
        yield from _subscription(subscription)
    for plugin in status["plugins_failed"]:
        yield of_plugin(plugin["name"], plugin["origin"], plugin["error"])


def of_plugin(name: str, origin: str, error: str) -> Finding:
    """A plugin that could not be loaded, or that raised."""
    return bad(f"plugin {name}", f"{error} ({origin})", "mend or remove it; poller plugins")


def summed(findings: Sequence[Finding]) -> str:
    """How many of each, in words."""
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    if not counts[Level.BAD] and not counts[Level.WARN]:
        return "all is well"
    return f"{counts[Level.BAD]} bad, {counts[Level.WARN]} to look at, {counts[Level.OK]} ok"


def _budget(row: Row) -> Iterator[Finding]:
    about = f"budget {row['name']}"
    if row["throttled_until"]:
        yield warn(about, f"the server wants no call before {row['throttled_until']}", "lower limits or share")
    if row.get("broken_promise"):
        yield bad(about, row["broken_promise"], "poller check says what it would take")


def _source(row: Row) -> Iterator[Finding]:
    about = f"source {row['name']}"
    if row["state"] == "ok":
        yield ok(about, "answers" if row["last_poll"] else "nothing is known against it")
        return
    since = f" since {row['since']}" if row["since"] else ""
    yield bad(about, f"{row['state']}{since}: {row['reason']}", "mend it; poller check --online asks at once")


def _endpoint(row: Row, config: Config) -> Iterator[Finding]:
    name = f"{row['source']}/{row['endpoint']}"
    about = f"endpoint {name}"
    if row["held"] is not None:
        why = row["held"].get("reason") or "on command"
        yield bad(
            about,
            f"held since {row['held'].get('since')}: {why}; nothing of it is recorded",
            f"poller release {name}, with --accept to take what is there silently or --emit to tell it",
        )
    if row["error"] is not None:
        failing = f"{row['failing']} of its {row['units']} units failing" if row["failing"] else "failing"
        yield bad(about, f"{failing}: {row['error']}", "poller check --online asks at once")
    elif row["last_sweep"] is None:
        yield warn(about, "not seen completely yet", "poller run, or poller once")
    for path in row.get("ignore_candidates", ()):
        yield warn(about, f"{path} changes at every poll", f'add ignore = ["{path}"] if nobody wants to know')
    for unit, note in (row.get("notes") or {}).items():
        yield warn(about, f"{unit}: {note}")
    # The daemon may still run on an earlier configuration, with sources that are no longer in this one.
    source = config.sources.get(row["source"])
    promised = source.endpoint(row["endpoint"]).max_staleness if source is not None else None
    if promised is not None and (row["staleness_s"] or 0.0) > promised * 1.5:
        stale = duration_text(round(row["staleness_s"]))
        yield bad(
            about, f"stale for {stale}, promised were {duration_text(promised)}", "is the daemon running? poller plan"
        )


def _subscription(row: Row) -> Iterator[Finding]:
    name, about = row["name"], f"subscription {row['name']}"
    if row["state"] == "failing":
        yield bad(about, f"failing: {row['last_error']}", f"poller deliveries --subscription {name} --state pending")
    elif row["state"] == "disabled" and row["reason"] != "enabled = false":
        yield bad(about, f"disabled: {row['reason']}", f"poller resume {name} goes on; its events are kept")
    elif row["state"] == "paused":
        yield warn(about, f"paused with {row['lag']} events waiting", f"poller resume {name}")
    elif row["state"] == "active":
        yield ok(about, f"{row['lag']} events to go" if row["lag"] else "has everything")
    if row["state"] == "active" and (row["oldest_waiting_s"] or 0.0) > BEHIND:
        waits = duration_text(round(row["oldest_waiting_s"] / 60) * 60)
        yield warn(
            about, f"the oldest event waits for {waits}", f"poller deliveries --subscription {name} --state pending"
        )
    if row["dead"]:
        yield warn(about, f"{row['dead']} dead letters", f"poller redeliver --subscription {name}, once it is mended")
    if row["filter_errors"]:
        yield warn(about, f"`where` failed on {row['filter_errors']} events: {row['last_error']}", "mend `where`")
