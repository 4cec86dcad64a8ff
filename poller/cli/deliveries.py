"""`poller deliveries`, `ledger`, `preview`: what left for whom, whether the books balance, how an event would look."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import tzinfo
from typing import Any, Final

import click

from poller.app import routes_of
from poller.cli.context import Chosen
from poller.cli.output import away, clock, console, counted, print_json, print_json_line, print_table
from poller.cli.state import reading
from poller.config.models import Config, SubscriptionConfig
from poller.events.cloudevents import iso
from poller.events.events import change_event
from poller.events.filters import Filter, FilterError
from poller.hooks.loading import attempted
from poller.options.problems import NotThere, nearest
from poller.rendering.templates import RenderError
from state.deliveries import AttemptRow, Delivery, SubscriptionLedger
from state.errors import PollerError
from state.records import Change, Event, FieldChange, Kind
from state.sqlite.store import Reader

STATES: Final = ("pending", "delivered", "dead")
_LOOKED_BACK: Final = 10_000  # events among which the latest that matches is looked for
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
@click.option("--state", "states", type=_States(), default=(), metavar="STATES", help="Only pending, delivered, dead.")
@click.option("--subscription", metavar="NAME", help="Only of this subscription.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One delivery a line.")
@click.pass_context
def deliveries(
    context: click.Context, states: tuple[str, ...], subscription: str | None, limit: int, as_json: bool
) -> None:
    """Show deliveries, the latest first; `deliveries show ID` shows every attempt of one.

    Example: poller deliveries --state pending,dead --subscription crm
    """
    if context.invoked_subcommand is not None:
        return
    config, _ = context.ensure_object(Chosen).load(reveal=False)
    with reading(config) as reader:
        if reader is None:
            return
        if subscription is not None:
            _check_known(subscription, [one.name for one in reader.deliveries.subscriptions()], config)
        found = reader.deliveries.deliveries(states=states, subscription=subscription, limit=limit)
    if as_json:
        for one in found:
            print_json_line(_delivery_json(one))
        return
    heads = ["id", "subscription", "event", "what", "state", "tries", "next or end", "answer"]
    print_table(console(), "", heads, [_delivery(one, time.time()) for one in found])


def _check_known(name: str, kept: Iterable[str], config: Config) -> None:
    known = {*kept, *(one.name for one in config.subscriptions)}
    if name not in known:
        raise NotThere(f"no subscription is named {name!r}", hint=nearest(name, known))


def _delivery(one: Delivery, now: float) -> list[str]:
    event = f"{one.seq}" + ("" if one.origin == "log" else f" ({one.origin})")
    what = f"{one.event_subject} {one.event_type.rpartition('.')[2]}"
    end = one.due if one.state == "pending" else one.finished_at
    head = [f"{one.id}", one.subscription, event, what, one.state, f"{one.attempts}"]
    return [*head, away(end, now), one.status or "-"]


def _delivery_json(one: Delivery) -> dict[str, Any]:
    times = {name: None if at is None else iso(at) for name, at in _times(one)}
    return {**asdict(one), **times}


def _times(one: Delivery) -> list[tuple[str, float | None]]:
    return [("queued_at", one.queued_at), ("due", one.due), ("finished_at", one.finished_at)]


@deliveries.command("show")
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="JSON for machines.")
@click.pass_obj
def show(chosen: Chosen, number: int, as_json: bool) -> None:
    """Show one delivery with every attempt: when, how long, status and the start of the answer.

    Example: poller deliveries show 17
    """
    config, _ = chosen.load(reveal=False)
    with reading(config) as reader:
        found = None if reader is None else reader.deliveries.delivery(number)
        if reader is None or found is None:
            raise NotThere(f"there is no delivery {number}", hint="poller deliveries")
        attempts = reader.deliveries.attempts(number)
    if as_json:
        print_json({**_delivery_json(found), "log": [_attempt_json(one) for one in attempts]})
        return
    click.echo(
        f"delivery {found.id} of {found.event_type} {found.event_subject} (event {found.seq}) to {found.subscription}"
    )
    if found.digest is not None and found.digest != found.id:
        click.echo(f"left in the digest of delivery {found.digest}")
    zone = config.poller.zone
    more = f"; next attempt {clock(found.due, zone)}" if found.state == "pending" and found.due is not None else ""
    click.echo(f"{found.state}, {counted(found.attempts, 'attempt')}, queued {clock(found.queued_at, zone)}{more}")
    heads = ["attempt", "at", "took", "status", "answer"]
    print_table(console(), "", heads, [_attempt(one, zone) for one in attempts])


def _attempt(one: AttemptRow, zone: tzinfo) -> list[str]:
    text = one.text if len(one.text) <= _TEXT else one.text[:_TEXT] + "…"
    return [f"{one.number}", clock(one.at, zone), f"{one.latency * 1000:.0f} ms", one.status, text]


def _attempt_json(one: AttemptRow) -> dict[str, Any]:
    return {**asdict(one), "at": iso(one.at)}


# poller ledger


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One subscription a line.")
@click.pass_obj
def ledger(chosen: Chosen, as_json: bool) -> int:
    """Prove that the books balance: each event is delivered, pending, dead or not matching, per subscription.

    Exit status 1 when something is missing, which is then named.

    Example: poller ledger
    """
    config, _ = chosen.load(reveal=False)
    with reading(config) as reader:
        if reader is None:
            return 0
        books = reader.deliveries.ledger()
    if as_json:
        for one in books:
            print_json_line({**asdict(one), "balanced": one.balanced})
    else:
        heads = [
            "subscription",
            "events",
            "delivered",
            "pending",
            "dead",
            "not matching",
            "dropped",
            "unread",
            "balanced",
        ]
        print_table(console(), "", heads, [_books(one) for one in books])
    for one in books:
        _tell_imbalance(one)
    return 0 if all(one.balanced for one in books) else 1


def _books(one: SubscriptionLedger) -> list[str]:
    sides = (one.events, one.delivered, one.pending, one.dead, one.not_matching, one.dropped, one.unread)
    return [one.subscription, *map(str, sides), "yes" if one.balanced else "NO"]


def _tell_imbalance(one: SubscriptionLedger) -> None:
    if one.missing:
        click.echo(f"Error: {one.subscription}: events on no side: {', '.join(map(str, one.missing))}", err=True)
    if one.stray:
        click.echo(f"Error: {one.subscription}: deliveries without event: {', '.join(map(str, one.stray))}", err=True)
    if not (one.balanced or one.missing or one.stray):
        click.echo(f"Error: {one.subscription}: the sum of its sides is not {one.events}", err=True)


# poller preview


@click.command()
@click.argument("subscription")
@click.option(
    "--event", "seq", type=click.IntRange(1), metavar="SEQ", help="This event. Default: the latest that matches."
)
@click.pass_obj
def preview(chosen: Chosen, subscription: str, seq: int | None) -> None:
    """Show what SUBSCRIPTION would be sent for an event, without sending it.

    Example: poller preview team --event 1234
    """
    config, _ = chosen.load(reveal=False)
    settings = next((one for one in config.subscriptions if one.name == subscription), None)
    if settings is None:
        known = [one.name for one in config.subscriptions]
        raise NotThere(f"no subscription is named {subscription!r}", hint=nearest(subscription, known))
    click.echo(_rendered(settings, _event(config, settings, seq)).rstrip("\n"))


def _event(config: Config, settings: SubscriptionConfig, seq: int | None) -> Event:
    found = None
    if config.poller.state.exists():
        with reading(config) as reader:
            if reader is not None:
                found = reader.log.event(seq) if seq is not None else _latest(reader, _filter(config, settings))
    if found is None and seq is not None:
        raise NotThere(f"there is no event {seq} in the log", hint="poller events")
    if found is None:
        click.echo("no event in the log matches: this is an example", err=True)
    return found or _example(config, settings)


def _filter(config: Config, settings: SubscriptionConfig) -> Filter:
    return next(route.filter() for route in routes_of(config) if route.subscription.name == settings.name)


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


def _rendered(settings: SubscriptionConfig, event: Event) -> str:
    where = f"subscription {settings.name} (plugin {settings.plugin})"
    sink, error = attempted(settings.build)
    if sink is None:
        raise PollerError(f"{where} cannot be set up: {error}", hint="poller check")
    render = getattr(sink, "render", None)
    if render is None:
        raise PollerError(f"{where}: the plugin offers no preview", hint=f"poller ping {settings.name} sends a test")
    try:
        text, error = attempted(lambda: str(render([event])))
    except RenderError as refused:
        raise PollerError(f"{where}: {refused}", hint="mend its template in the configuration") from refused
    if text is None:
        raise PollerError(f"{where}: the preview failed: {error}", hint="poller plugins says where it comes from")
    return text
