"""`poller deliveries`, `ledger` and `preview`: deliveries, whether the books balance, and what would be sent."""

from __future__ import annotations

import time
from datetime import tzinfo
from typing import Any, Final

import click

from poller.app import subscription_of
from poller.cli.context import CliContext
from poller.cli.names import named
from poller.cli.output import (
    away,
    clock,
    console,
    counted,
    print_json,
    print_json_line,
    print_table,
    say,
    say_lines,
    unix,
)
from poller.cli.state import reading
from poller.cli.view import DeliveryFilter, EventFilter, View, viewed
from poller.config.models import Config, SubscriptionConfig
from poller.events.events import change_event
from poller.events.filters import Filter, FilterError
from poller.operations.documents import Document
from poller.operations.places import HIGHEST
from poller.operations.preview import rendered
from poller.options.problems import NotThere, nearest
from state.open import is_there
from state.records import Change, Event, FieldChange, Kind
from state.store import Reader

STATES: Final = ("pending", "delivered", "dead")
SIDES: Final = ("events", "delivered", "pending", "dead", "not_matching", "dropped", "unread")
_LOOKED_BACK: Final = 10_000  # newest events that are searched for one that matches
_TEXT: Final = 400  # characters of an answer in a table


class _States(click.ParamType[tuple[str, ...]]):
    """States of deliveries, separated by commas."""

    name = "states"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        states = [word.strip() for word in value.split(",") if word.strip()]
        for state in states:
            if state not in STATES:
                self.fail(f"{state!r} is not a state of a delivery: {nearest(state, STATES)}", param, ctx)
        return tuple(states)


# poller deliveries


@click.group(invoke_without_command=True)
@click.option(
    "--state",
    "states",
    type=_States(),
    default=(),
    metavar="STATES",
    help="Only deliveries in these states: pending, delivered, dead.",
)
@click.option(
    "--subscription",
    metavar="NAME",
    shell_complete=named("subscription"),
    help="Only deliveries of this subscription.",
)
@click.option("--subject", metavar="GLOB", help='Only this object: "projects/201001", or "projects/*".')
@click.option("--after", metavar="PLACE", help="Only later deliveries: a delivery's number, or a time with its offset.")
@click.option(
    "--before", metavar="PLACE", help="Only earlier deliveries: a delivery's number, or a time with its offset."
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="Maximum number of deliveries."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one delivery per line.")
@click.pass_context
def deliveries(
    context: click.Context,
    states: tuple[str, ...],
    subscription: str | None,
    subject: str | None,
    after: str | None,
    before: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show deliveries, the latest first; `deliveries show ID` shows every attempt of one.

    docs/columns.md explains every column.

    Example: poller deliveries --state pending,dead --subscription crm
    """
    if context.invoked_subcommand is not None:
        return
    wanted = DeliveryFilter(states=states, subscription=subscription, subject=subject, after=after, before=before)
    with viewed(context.ensure_object(CliContext)) as view:
        if view is None:
            return
        if subscription is not None and subscription not in view.subscriptions:
            raise NotThere(f"no subscription is named {subscription!r}", hint=nearest(subscription, view.subscriptions))
        found = view.deliveries(wanted, limit=limit)
    if as_json:
        for one in found:
            print_json_line(one)
    if not found:
        say("no delivery matches", err=True)
    if as_json or not found:
        return
    heads = ["id", "subscription", "event", "what", "state", "attempts", "next or end", "answer"]
    print_table(console(), "", heads, [_delivery(one, time.time()) for one in found])


def _delivery(one: Document, now: float) -> list[str]:
    event = f"{one['seq']}" + ("" if one["origin"] == "log" else f" ({one['origin']})")
    what = f"{one['event_subject']} {one['event_type'].rpartition('.')[2]}"
    end = one["due"] if one["state"] == "pending" else one["finished_at"]
    head = [f"{one['id']}", one["subscription"], event, what, one["state"], f"{one['attempts']}"]
    return [*head, away(unix(end), now), one["status"] or "-"]


@deliveries.command("show")
@click.argument("number", metavar="ID", type=click.IntRange(1, HIGHEST))
@click.option("--request", is_flag=True, help="Also show the request, rendered by the configuration file as it is now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(context: CliContext, number: int, request: bool, as_json: bool) -> None:
    """Show one delivery with every attempt: when, how long, status and the start of the answer.

    Example: poller deliveries show 17
    """
    with viewed(context) as view:
        if view is None:
            raise NotThere(f"there is no delivery {number}", hint="poller deliveries")
        found, zone = view.delivery(number), view.zone
        if request:
            found = {**found, "request": _request(context, view, found)}
    if as_json:
        print_json(found)
        return
    event = f"{found['event_type']} {found['event_subject']} (event {found['seq']})"
    say(f"delivery {found['id']} of {event} to {found['subscription']}")
    if found["digest"] is not None and found["digest"] != found["id"]:
        say(f"left in the digest of delivery {found['digest']}")
    waits = found["state"] == "pending" and found["due"] is not None
    more = f"; next attempt {clock(unix(found['due']), zone)}" if waits else ""
    queued = clock(unix(found["queued_at"]), zone)
    say(f"{found['state']}, {counted(found['attempts'], 'attempt')}, queued {queued}{more}")
    heads = ["attempt", "at", "took", "status", "answer"]
    print_table(console(), "", heads, [_attempt(one, zone) for one in found["log"]])
    if request:
        say_lines("\n" + found["request"])


def _request(context: CliContext, view: View, delivery: Document) -> str:
    """The request of a delivery's event. Raises PollerError."""
    config = context.load_file()
    seq = delivery["seq"]
    event = next((one for one in view.events(EventFilter(after=str(seq - 1)), limit=1).events if one.seq == seq), None)
    if event is None:
        raise NotThere(f"event {seq} is no longer in the log", hint="`retention` says how long events are kept")
    return rendered(_settings(config, delivery["subscription"]), event).rstrip("\n")


def _attempt(one: Document, zone: tzinfo) -> list[str]:
    text = one["text"] if len(one["text"]) <= _TEXT else one["text"][:_TEXT] + "…"
    return [f"{one['number']}", clock(unix(one["at"]), zone), f"{one['latency'] * 1000:.0f} ms", one["status"], text]


# poller ledger


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one subscription per line.")
@click.pass_obj
def ledger(context: CliContext, as_json: bool) -> int:
    """Prove that the books of each subscription balance: every event is delivered, pending, dead, dropped or not
    matching.

    If an event is missing, the command names it and ends with exit status 1. docs/columns.md explains every column.

    Example: poller ledger
    """
    with viewed(context) as view:
        if view is None:
            return 0
        books = view.ledger()
    if as_json:
        for one in books:
            print_json_line(one)
    else:
        heads = ["subscription", *(side.replace("_", " ") for side in SIDES), "balanced"]
        print_table(console(), "", heads, [_books(one) for one in books])
    for one in books:
        _tell_imbalance(one)
    return 0 if all(one["balanced"] for one in books) else 1


def _books(one: Document) -> list[str]:
    return [one["subscription"], *(str(one[side]) for side in SIDES), "yes" if one["balanced"] else "NO"]


def _tell_imbalance(one: Document) -> None:
    name = one["subscription"]
    if one["missing"]:
        say(f"Error: {name}: events without a delivery record: {', '.join(map(str, one['missing']))}", err=True)
    if one["stray"]:
        say(f"Error: {name}: deliveries without an event: {', '.join(map(str, one['stray']))}", err=True)
    if not (one["balanced"] or one["missing"] or one["stray"]):
        say(f"Error: {name}: the sum of its sides is not {one['events']}", err=True)


# poller preview


@click.command()
@click.argument("subscription", shell_complete=named("subscription"))
@click.option(
    "--event",
    "seq",
    type=click.IntRange(1),
    metavar="SEQ",
    help="Number of the event. Default: the latest that matches.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def preview(context: CliContext, subscription: str, seq: int | None, as_json: bool) -> None:
    """Show what SUBSCRIPTION would be sent for an event, without sending it.

    Goes by the configuration file as it is now, so that a template can be tried before a reload.

    Example: poller preview team --event 1234
    """
    config = context.load_file()
    settings = _settings(config, subscription)
    event = _event(config, settings, seq)
    text = rendered(settings, event).rstrip("\n")
    if as_json:
        print_json({"subscription": subscription, "event": event.seq, "type": event.type, "request": text})
    else:
        say_lines(text)


def _settings(config: Config, subscription: str) -> SubscriptionConfig:
    """The configuration of a subscription. Raises NotThere."""
    for one in config.subscriptions:
        if one.name == subscription:
            return one
    known = [one.name for one in config.subscriptions]
    raise NotThere(f"no subscription is named {subscription!r}", hint=nearest(subscription, known))


def _event(config: Config, settings: SubscriptionConfig, seq: int | None) -> Event:
    found = None
    if is_there(config.poller.state):
        with reading(config) as reader:
            if reader is not None:
                found = reader.log.event(seq) if seq is not None else _latest(reader, _filter(settings))
    if found is None and seq is not None:
        raise NotThere(f"there is no event {seq} in the log", hint="poller events")
    if found is None:
        say("no event in the log matches: this is an example", err=True)
    return found or _example(config, settings)


def _filter(settings: SubscriptionConfig) -> Filter:
    return subscription_of(settings).filter()


def _latest(reader: Reader, wanted: Filter) -> Event | None:
    last, step = reader.log.last_seq(), 100
    upto = last
    while upto > max(0, last - _LOOKED_BACK):
        for event in reversed(reader.log.read(after=max(0, upto - step), limit=step)):
            if event.seq <= upto and _matches(wanted, event):
                return event
        upto -= step
    return None


def _matches(wanted: Filter, event: Event) -> bool:
    try:
        return wanted.matches(event)
    except FilterError:
        return False


def _example(config: Config, settings: SubscriptionConfig) -> Event:
    source = next(
        (one for one in config.sources.values() if one.name in settings.sources or not settings.sources), None
    )
    now = time.time()
    change = Change(
        kind=Kind.UPDATED,
        object_id="201001",
        version=3,
        object={"id": 201001, "name": "New name", "status": "open"},
        fields=(FieldChange(path="/name", before="Old name", after="New name"),),
        observed_after=now - 60.0,
        observed_at=now,
    )
    name, namespace = (source.name, source.namespace) if source else ("example", "example")
    new = change_event(change, source=name, namespace=namespace, endpoint="projects")
    return Event(
        seq=1,
        id=new.id,
        source=new.source,
        type=new.type,
        subject=new.subject,
        time=new.time,
        observed_after=new.observed_after,
        raw=new.raw,
    )
