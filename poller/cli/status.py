"""`poller status`: the state of everything, with or without a running daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from poller.cli.context import CliContext
from poller.cli.output import NOTHING_YET, console, counted, print_json, print_table, say, span
from poller.events.cloudevents import iso
from poller.late import late
from poller.operations.status import (
    BudgetStatus,
    EndpointStatus,
    Owned,
    SourceStatus,
    Status,
    SubscriptionStatus,
    WorkerStatus,
    document,
    parse,
)
from poller.rendering.sentences import clause
from state.lock import StateLock
from state.place import DatabaseUrl

if TYPE_CHECKING:
    import poller.cli.daemon_client as daemons
    import poller.operations.gathering as gathering
    import state.open as states
else:
    gathering, states = late("poller.operations.gathering"), late("state.open")  # not needed beside a daemon
    daemons = late("poller.cli.daemon_client")


NAMED: Final = 4  # budgets, or subscriptions, of a worker that are named; of more, how many


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(context: CliContext, as_json: bool) -> None:
    """Show the state of budgets, sources, endpoints and subscriptions.

    The figures come from the running daemon, or from the state file if none runs. docs/columns.md explains every
    column.

    Example: poller status --json
    """
    shown = found_status(context)
    if shown.refusal is not None:
        say(shown.refusal, err=True)
    if as_json:
        print_json(document(shown.status))
    elif shown.status.log_id is None:
        say(NOTHING_YET)
    else:
        say(shown.head)
        for note in shown.notes:
            say(f"! {note}")
        _print_status(shown.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The status, and what is said of the whole above its tables."""

    status: Status
    process: int | None = None  # of the daemon, if one runs
    refusal: str | None = None  # why the daemon would refuse the configuration file as it is now

    @property
    def head(self) -> str:
        """Who runs, and how much is in the log."""
        running = f"running (process {self.process})" if self.process is not None else "not running"
        if self.status.workers:
            running = f"running ({counted(len(self.status.workers), 'worker')})"
        return f"{running}; {counted(self.status.last_seq, 'event')} in the log"

    @property
    def notes(self) -> Iterator[str]:
        """The problems of the whole. Of a file that is still refused, the latest reload says nothing else."""
        if self.status.state_error is not None:
            yield f"paused: {self.status.state_error}"
        if self.refusal is None and self.status.config_error is not None:
            yield f"the configuration was refused at the latest reload: {self.status.config_error}"


def found_status(context: CliContext) -> Shown:
    """The status: of the daemon if one runs, because it knows more than the file."""
    with context.daemon(warn=False) as daemon:
        if daemon is not None:
            running = daemon.get("/api/v1/configuration")
            refusal = daemons.refusal_of(context.path, running)
            return Shown(status=parse(daemon.get("/api/v1/status")), process=running["process"], refusal=refusal)
    config, _ = context.load(reveal=False)
    place = config.poller.state
    found = gathering.read_status(config, now=time.time())
    if isinstance(place, DatabaseUrl):
        return Shown(status=replace(found, running=states.holder(place) is not None))
    process = StateLock(place).holder()  # it may be starting and not answer yet
    return Shown(status=replace(found, running=process is not None), process=process)


def tables_of(found: Status) -> Iterator[tuple[list[str], list[list[str]], list[str]]]:
    """The heads and rows of each table, and the problems below it."""
    rows = [row for one in found.budgets for row in _budget(one)]
    notes = [line for one in found.budgets for line in _budget_notes(one)]
    yield (
        ["budget", "limit", "used", "left"],
        rows,
        notes + [line for one in found.sources for line in _source_notes(one)],
    )
    heads = ["endpoint", "state", "units", "objects", "swept", "stale", "expected delay", "measured"]
    notes = [f"{one.label}: {note}" for one in found.endpoints for note in _notes(one)]
    yield heads, [_endpoint(one, found.time) for one in found.endpoints], notes
    heads = ["subscription", "state", "lag", "pending", "dead", "oldest waits"]
    notes = [line for one in found.subscriptions for line in _subscription_notes(one)]
    yield heads, [_subscription(one) for one in found.subscriptions], notes
    if found.workers:
        heads = ["worker", "listens on", "since", "lease left", "budgets", "subscriptions", "lag", "configuration"]
        yield heads, [_worker(one, found.time) for one in found.workers], list(_worker_notes(found))


def _print_status(found: Status) -> None:
    """Print each table with its problems below it."""
    out = console()
    for heads, rows, notes in tables_of(found):
        print_table(out, "", heads, rows)
        for note in notes:
            say(f"! {note}")


def _budget(one: BudgetStatus) -> list[list[str]]:
    return [[one.name, limit.rate, f"{limit.used}", f"{limit.remaining}"] for limit in one.limits]


def _budget_notes(one: BudgetStatus) -> Iterator[str]:
    if one.throttled_until is not None:
        until = _at(one.throttled_until)
        yield f"{one.name}: the server wants no call before {until} (poller resume {one.name} ends the pause)"
    if one.broken_promise is not None:
        yield f"{one.name}: {one.broken_promise}"


def _source_notes(one: SourceStatus) -> Iterator[str]:
    if one.state != "ok":
        since = f" since {_at(one.since)}" if one.since is not None else ""
        probe = f"; next probe {_at(one.next_probe)}" if one.next_probe is not None else ""
        yield f"{one.name} is {one.state}{since}: {clause(one.reason or '')}{probe}"


def _endpoint(one: EndpointStatus, now: datetime) -> list[str]:
    return [
        one.label,
        one.state,
        f"{one.units}",
        f"{one.objects}",
        "never" if one.last_sweep is None else f"{span(max(0.0, (now - one.last_sweep).total_seconds()))} ago",
        span(one.staleness_s),
        span(one.expected_delay_s),
        span(one.measured_delay_s),
    ]


def _notes(one: EndpointStatus) -> Iterator[str]:
    if one.held is not None and one.held.since is not None:
        yield f"held since {_at(one.held.since)}: {one.held.why}"
    elif one.state != "ok":
        yield f"{one.state}: {one.reason}"
    if one.suspects and one.suspects == one.objects:
        yield (
            "all of its objects may be gone: an empty list confirms no deletion, only an object's own URL "
            f"(`item_path`) does; where the list is rightly empty: `poller rebaseline {one.label}`"
        )
    elif one.suspects:
        yield f"{counted(one.suspects, 'object')} may be gone: not confirmed yet"
    if one.unlisted:
        yield f"{counted(one.unlisted, 'object')} found under an own URL, but no longer listed (`unlisted`)"


def _subscription(one: SubscriptionStatus) -> list[str]:
    return [one.name, one.state, f"{one.lag}", f"{one.pending}", f"{one.dead}", span(one.oldest_waiting_s)]


def _subscription_notes(one: SubscriptionStatus) -> Iterator[str]:
    if one.reason:
        yield f"{one.name} is {one.state}: {one.reason}"
    if one.last_error:
        yield f"{one.name}: latest failure: {one.last_error}"
    if one.retrying:
        yield f"{one.name}: {one.retry_text}"
    if one.dead:
        look = f"poller deliveries --subscription {one.name} --state dead"
        yield f"{one.name}: {counted(one.dead, 'dead letter')}: `{look}`"


def _worker(one: WorkerStatus, now: datetime) -> list[str]:
    return [
        one.name,
        one.listen or "nothing",
        f"{span(max(0.0, (now - one.since).total_seconds()))} ago",
        span(one.lease_left_s),
        _owned(one.budgets),
        _owned(one.subscriptions),
        f"{one.lag}",
        one.digest,
    ]


def _owned(owned: Sequence[Owned]) -> str:
    """What is owned, with its epoch; of many, how many."""
    if len(owned) > NAMED:
        return f"{len(owned)}"
    return ", ".join(f"{one.name}@{one.epoch}" for one in owned) or "none"


def _worker_notes(found: Status) -> Iterator[str]:
    if found.config_differs:
        yield "workers have different configurations: give all the same poller.toml, and reload them"
    for one in found.workers:
        if one.lacks:
            yield f"{one.name} leaves to others what it cannot open: {', '.join(one.lacks)} (its log says why)"


def _at(time: datetime) -> str:
    return iso(time.timestamp())
