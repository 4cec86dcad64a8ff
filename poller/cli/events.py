"""`poller events`, `plugins` and `show`: the log, the loaded plugins, and one object."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec
import orjson
from msgspec import structs

from poller.cli.context import CliContext
from poller.cli.daemon_client import Unanswered
from poller.cli.names import named
from poller.cli.output import (
    clock,
    console,
    counted,
    print_event,
    print_json,
    print_json_line,
    print_raw_json,
    print_table,
    say,
    say_lines,
    unix,
)
from poller.cli.view import PAGE, EventFilter, View, viewed
from poller.config.load import load
from poller.events.cloudevents import structured
from poller.hooks.loading import Plugins, load_plugins
from poller.options.problems import ConfigError, NotThere, nearest
from state.errors import StateError
from state.records import Event

LATEST: Final = 20  # events shown without --limit
LOOK_EVERY: Final = 0.5  # seconds between two reads of --follow


# poller events


@click.command()
@click.option("--follow", is_flag=True, help="Print new events as they come, until Ctrl-C.")
@click.option("--type", "type_glob", metavar="GLOB", help='Only these types: "*.deleted".')
@click.option("--source", metavar="NAME", shell_complete=named("source"), help="Only events of this source.")
@click.option("--subject", metavar="GLOB", help='Only this object: "projects/201001", or "projects/*".')
@click.option("--after", metavar="PLACE", help="Only later events: a number of the log, or a time with its offset.")
@click.option("--before", metavar="PLACE", help="Only earlier events: a number of the log, or a time with its offset.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help=f"With --after: how many at most. Without: how many of the latest events, {LATEST} by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print CloudEvents, one per line.")
@click.pass_obj
def events(
    context: CliContext,
    follow: bool,
    type_glob: str | None,
    source: str | None,
    subject: str | None,
    after: str | None,
    before: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the event log: the latest events, or those between two places. --after and --before are exclusive numbers.

    Example: poller events --follow --type "*.deleted" --json

    Example: poller events --after 2026-11-23T08:00:00Z --subject "projects/*"
    """
    if follow and before is not None:
        raise click.UsageError("--follow and --before exclude each other")
    wanted = EventFilter(after=after, before=before, type_glob=type_glob, source=source, subject=subject)
    with _viewed(context, follow) as view:
        if view is None:
            return
        tell = _teller(view.zone, as_json)
        if after is None:
            seen, shown = _print_latest(view, wanted, limit or LATEST, tell)
            left = None
        else:
            seen, shown = _print_on(view, wanted, limit, tell)
            left = None if limit is None else limit - shown
        if not shown and not follow:
            _say_what_there_is(view, source)
    if follow:
        _follow(context, wanted, seen, left, tell)


def _follow(
    context: CliContext, wanted: EventFilter, seen: int, left: int | None, tell: Callable[[Event], None]
) -> None:
    """Print what is recorded after `seen`, `left` events if that is a number, also over restarts of the daemon."""
    waits = False

    def told(event: Event) -> None:
        nonlocal seen, left
        tell(event)
        seen, left = event.seq, None if left is None else left - 1

    while left != 0:
        time.sleep(LOOK_EVERY)
        try:
            with _viewed(context, True) as view:
                while view is not None and left != 0:
                    seen, _ = _print_on(view, replace(wanted, after=str(seen)), left, told)
                    waits = False
                    time.sleep(LOOK_EVERY)
        except (Unanswered, StateError) as error:
            if not waits:
                say(f"{error}; waiting until it can be read again", err=True)
            waits = True


@contextlib.contextmanager
def _viewed(context: CliContext, follow: bool) -> Iterator[View | None]:
    """The view of daemon or file; with `follow`, waits until there is one."""
    while True:
        with viewed(context) as view:
            if view is not None or not follow:
                yield view
                return
        time.sleep(LOOK_EVERY)


def _print_latest(view: View, wanted: EventFilter, count: int, tell: Callable[[Event], None]) -> tuple[int, int]:
    """Print the latest events that match. Returns the number after which to read on, and how many there were."""
    page = view.events(wanted, limit=min(count, PAGE), newest=True)
    found, seen = page.events, page.next
    while page.events and len(found) < count:
        rest = min(count - len(found), PAGE)
        page = view.events(replace(wanted, before=str(found[0].seq)), limit=rest, newest=True)
        found = page.events + found
    for event in found:
        tell(event)
    return seen, len(found)


def _print_on(view: View, wanted: EventFilter, most: int | None, tell: Callable[[Event], None]) -> tuple[int, int]:
    """Print up to `limit` events after a position. Returns the number after which to read on, and how many
    there were.
    """
    shown = 0
    while True:
        page = view.events(wanted, limit=PAGE if most is None else min(most - shown, PAGE))
        for event in page.events:
            tell(event)
        shown += len(page.events)
        if not page.events or shown == most:
            return page.next, shown
        wanted = replace(wanted, after=str(page.next))


def _say_what_there_is(view: View, source: str | None) -> None:
    if source is not None and source.removeprefix("/sources/") not in view.sources:
        say(f"no event matches: no source is named {source!r}; {nearest(source, view.sources)}", err=True)
        return
    types = ", ".join(view.event_types())
    say(f"no event matches; types in the log: {types}" if types else "no event yet", err=True)


def _teller(zone: tzinfo, as_json: bool) -> Callable[[Event], None]:
    """The function that prints one event."""
    if as_json:
        return lambda event: print_raw_json(structured(event))
    return partial(print_event, console(), zone=zone)


# poller plugins


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one plugin per line.")
@click.pass_obj
def plugins(context: CliContext, as_json: bool) -> None:
    """Show the loaded plugins, their origin, what they register, and what failed.

    Example: poller plugins --json
    """
    found = load_plugins()
    _load_configured(context, found)
    if as_json:
        for one in found.loaded:
            print_json_line({"state": "loaded", **structs.asdict(one)})
        for failed in found.failed:
            print_json_line({"state": "failed", **structs.asdict(failed)})
        return
    out = console()
    rows = [
        [one.name, one.version or "-", _brings(one.sources, one.sinks, one.hooks), one.origin] for one in found.loaded
    ]
    print_table(out, "loaded", ["plugin", "version", "brings", "from"], rows)
    if found.failed:
        rows = [[one.name, one.error, one.origin] for one in found.failed]
        print_table(out, "failed", ["plugin", "error", "from"], rows)


def _load_configured(context: CliContext, found: Plugins) -> None:
    """Load the plugins of the configured folder as well; they are shown even if the configuration is wrong."""
    try:
        load(context.path, found, reveal=False)
    except ConfigError as error:
        if context.path is not None or Path(error.file).exists():
            for line in str(error).split("\n"):
                say(f"Error: {line}", err=True)


def _brings(sources: list[str], sinks: list[str], hooks: list[str]) -> str:
    others = [hook for hook in hooks if hook not in ("register_sources", "register_sinks")]
    parts = (("source", sources), ("sink", sinks), ("hook", others))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts if names) or "-"


# poller show


@click.command()
@click.argument("endpoint", shell_complete=named("endpoint"))
@click.argument("object_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(context: CliContext, endpoint: str, object_id: str, as_json: bool) -> None:
    """Show one object of ENDPOINT (or SOURCE/ENDPOINT): its last known state and its history.

    Example: poller show acme/projects 201001
    """
    with viewed(context) as view:
        if view is None:
            raise NotThere("no object is known", hint="poller once")
        found, zone = view.object(endpoint, object_id), view.zone
    history: list[Event] = found["history"]
    if as_json:
        events = [orjson.Fragment(structured(event)) for event in history]
        print_json({**found, "object": orjson.Fragment(found["object"]), "history": events})
        return
    name, seen = f"{found['source']}/{found['endpoint']} {object_id}", clock(unix(found["seen_at"]), zone)
    say(f"{name}: version {found['version']}, {found['presence']}, seen {seen}")
    say_lines(msgspec.json.format(bytes(found["object"]), indent=2).decode())
    say(counted(len(history), "event"))
    out = console()
    for event in history:
        print_event(out, event, zone)
