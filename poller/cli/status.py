"""`poller status`: how everything stands, beside a daemon or without one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import click

from poller.cli.context import Chosen
from poller.cli.daemon_client import ask_status
from poller.cli.output import console, print_json, print_table, span
from poller.cli.state import NOTHING_YET
from poller.config.models import Config
from poller.operations.status import Row, read_status
from state.errors import PollerError
from state.lock import StateLock


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON for machines.")
@click.pass_obj
def status(chosen: Chosen, as_json: bool) -> None:
    """Show how budgets, sources, endpoints and subscriptions stand.

    Beside a daemon that listens, as the daemon tells it; else as the state tells it.

    Example: poller status --json
    """
    config, _ = chosen.load(reveal=False)
    now = time.time()
    holder = StateLock(config.poller.state).holder()
    found = _of_daemon(config) if holder is not None else None
    if found is None:
        found = read_status(config, now=now)
        found["running"] = holder is not None
    if as_json:
        print_json(found)
    elif found["log_id"] is None:
        click.echo(NOTHING_YET)
    else:
        running = f"running (process {holder})" if holder is not None else "not running"
        click.echo(f"{running}; {found['last_seq']} events in the log")
        _print_status(found, now)


def _of_daemon(config: Config) -> Row | None:
    """As the daemon tells it, who knows more than the file; None where it cannot be asked: poller doctor says why."""
    try:
        return ask_status(config)
    except PollerError:
        return None


def _print_status(found: Row, now: float) -> None:
    """What is wrong stands below the table that it belongs to, where it has room."""
    out = console()
    print_table(out, "", ["budget", "limit", "used", "left"], [row for one in found["budgets"] for row in _budget(one)])
    _tell(line for one in found["budgets"] for line in _budget_notes(one))
    _tell(f"{one['name']} is {one['state']}: {one['reason']}" for one in found["sources"] if one["state"] != "ok")
    heads = ["endpoint", "units", "objects", "swept", "stale", "expected delay", "measured"]
    print_table(out, "", heads, [_endpoint(one, now) for one in found["endpoints"]])
    _tell(f"{one['source']}/{one['endpoint']}: {note}" for one in found["endpoints"] for note in _notes(one))
    heads = ["subscription", "state", "lag", "pending", "dead", "oldest waits"]
    print_table(out, "", heads, [_subscription(one) for one in found["subscriptions"]])
    _tell(line for one in found["subscriptions"] for line in _subscription_notes(one))


def _tell(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(f"! {line}")


def _budget(one: Row) -> list[list[str]]:
    return [[one["name"], limit["rate"], f"{limit['used']}", f"{limit['remaining']}"] for limit in one["limits"]]


def _budget_notes(one: Row) -> Iterator[str]:
    if one["throttled_until"]:
        yield f"{one['name']}: the server wants no call before {one['throttled_until']}"
    if one["broken_promise"]:
        yield f"{one['name']}: {one['broken_promise']}"


def _endpoint(one: Row, now: float) -> list[str]:
    swept = one["last_sweep"]
    return [
        f"{one['source']}/{one['endpoint']}",
        f"{one['units']}",
        f"{one['objects']}",
        "under way" if swept is None else f"{span(max(0.0, now - datetime.fromisoformat(swept).timestamp()))} ago",
        span(one["staleness_s"]),
        span(one["expected_delay_s"]),
        span(one["measured_delay_s"]),
    ]


def _notes(one: Row) -> Iterator[str]:
    if one["held"] is not None:
        yield f"held since {one['held'].get('since')}: {one['held'].get('reason', 'on command')}"
    if one["error"]:
        yield f"{one['failing']} of {one['units']} units fail: {one['error']}" if one["failing"] else one["error"]
    yield from (f"{unit}: {note}" for unit, note in one.get("notes", {}).items())
    if one["suspects"]:
        yield f"{one['suspects']} objects may be gone; their deletion is being confirmed"


def _subscription(one: Row) -> list[str]:
    numbers = [f"{one[name]}" for name in ("lag", "pending", "dead")]
    return [one["name"], one["state"], *numbers, span(one["oldest_waiting_s"])]


def _subscription_notes(one: Row) -> Iterator[str]:
    if one["reason"]:
        yield f"{one['name']} is {one['state']}: {one['reason']}"
    if one["last_error"]:
        yield f"{one['name']}: latest failure: {one['last_error']}"
