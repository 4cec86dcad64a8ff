"""`poller events`, `plugins`, `show`: what there is to see, beside a daemon or without one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import tzinfo
from functools import partial
from typing import Any, Final

import click
import msgspec
import orjson

from poller.cli.context import Chosen
from poller.cli.output import clock, console, print_event, print_json, print_json_line, print_table
from poller.cli.state import reading, say_nothing_yet
from poller.config.load import load
from poller.config.models import Config
from poller.events.cloudevents import iso, structured
from poller.hooks.loading import Plugins, load_plugins
from poller.options.problems import ConfigError, NotThere, find_endpoint
from state.polls import Snapshot
from state.records import Event
from state.sqlite.events import Log
from state.sqlite.store import open_reader

LATEST: Final = 20  # events shown where none is named
LOOK_EVERY: Final = 0.5  # seconds between two looks of --follow
_PAGE: Final = 500  # events read at once


# poller events


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Which events of the log."""

    type_glob: str | None
    source: str | None

    def behind(self, log: Log, after: int) -> Iterator[Event]:
        """Every one behind a number, in order, a page of them in memory at a time."""
        while page := log.read(after=after, limit=_PAGE, type_glob=self.type_glob, source=self.source):
            yield from page
            after = page[-1].seq

    def latest(self, log: Log, count: int) -> list[Event]:
        """The latest of them, in order: looked for from the end in ever larger steps."""
        last, first, step = log.last_seq(), log.first_seq(), max(count, _PAGE)
        while True:
            after = max(first - 1, last - step, 0)
            found = deque(self.behind(log, after), maxlen=count)
            if len(found) == count or after <= max(first - 1, 0):
                return list(found)
            step *= 8


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--type", "type_glob", metavar="GLOB", help='Only these types: "*.deleted".')
@click.option("--source", metavar="NAME", help="Only of this source.")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="From behind this number on.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help=f"With --after: at most so many, then end. Without: how many of the latest ones, {LATEST} by default.",
)
@click.option("--json", "as_json", is_flag=True, help="CloudEvents, one a line.")
@click.pass_obj
def events(
    chosen: Chosen,
    follow: bool,
    type_glob: str | None,
    source: str | None,
    after: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the event log: the latest events, or those behind a number.

    Example: poller events --follow --type "*.deleted" --json
    """
    config, _ = chosen.load(reveal=False)
    if not _wait_for_state(config, follow):
        return
    wanted, tell = _Wanted(type_glob=type_glob, source=source), _teller(config.poller.zone, as_json)
    with open_reader(config.poller.state) as reader:
        left = None if after is None else limit
        last = reader.log.last_seq()
        begin = wanted.latest(reader.log, limit or LATEST) if after is None else wanted.behind(reader.log, after)
        seen, left = _print_events(begin, tell, left)
        seen = max(seen, last, after or 0)
        while follow and left != 0:
            time.sleep(LOOK_EVERY)
            last = reader.log.last_seq()
            upto, left = _print_events(wanted.behind(reader.log, seen), tell, left)
            seen = max(seen, upto, last)


def _wait_for_state(config: Config, follow: bool) -> bool:
    """Whether there is a state to read."""
    if config.poller.state.exists():
        return True
    say_nothing_yet()
    while follow and not config.poller.state.exists():
        time.sleep(LOOK_EVERY)
    return follow


def _teller(zone: tzinfo, as_json: bool) -> Callable[[Event], None]:
    """How one event is printed."""
    if as_json:
        return lambda event: click.echo(structured(event))
    return partial(print_event, console(), zone=zone)


def _print_events(
    found: Iterator[Event] | list[Event], tell: Callable[[Event], None], left: int | None
) -> tuple[int, int | None]:
    """Print at most `left` of them; gives the last one's number, and how many are left."""
    seen = 0
    for event in found:
        tell(event)
        seen = event.seq
        left = None if left is None else left - 1
        if left == 0:
            break
    return seen, left


# poller plugins


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One plugin a line.")
@click.pass_obj
def plugins(chosen: Chosen, as_json: bool) -> None:
    """Show which plugins are loaded, from where, what they bring, and what failed.

    Example: poller plugins --json
    """
    found = load_plugins()
    _load_configured(chosen, found)
    if as_json:
        for one in found.loaded:
            print_json_line({"state": "loaded", **asdict(one)})
        for failed in found.failed:
            print_json_line({"state": "failed", **asdict(failed)})
        return
    out = console()
    rows = [
        [one.name, one.version or "-", _brings(one.sources, one.sinks, one.hooks), one.origin] for one in found.loaded
    ]
    print_table(out, "loaded", ["plugin", "version", "brings", "from"], rows)
    if found.failed:
        rows = [[one.name, one.error, one.origin] for one in found.failed]
        print_table(out, "failed", ["plugin", "error", "from"], rows)


def _load_configured(chosen: Chosen, found: Plugins) -> None:
    """Load those of the configured folder, too; a configuration that is wrong hides none of them."""
    try:
        load(chosen.path, found, reveal=False)
    except ConfigError as error:
        if chosen.path is not None:
            click.echo(f"Error: {error}", err=True)


def _brings(sources: list[str], sinks: list[str], hooks: list[str]) -> str:
    others = [hook for hook in hooks if hook not in ("register_sources", "register_sinks")]
    parts = (("source", sources), ("sink", sinks), ("hook", others))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts if names) or "-"


# poller show


@click.command()
@click.argument("endpoint")
@click.argument("object_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="JSON for machines.")
@click.pass_obj
def show(chosen: Chosen, endpoint: str, object_id: str, as_json: bool) -> None:
    """Show one object of ENDPOINT (or SOURCE/ENDPOINT): its last known state and its history.

    Example: poller show acme/projects 201001
    """
    config, _ = chosen.load(reveal=False)
    with reading(config) as reader:
        if reader is None:
            raise NotThere("no object is known", hint="poller once")
        source, name = find_endpoint(((row["source"], row["endpoint"]) for row in reader.polls.endpoints()), endpoint)
        snapshot = reader.polls.object(source, name, object_id)
        if snapshot is None:
            raise NotThere(
                f"{source}/{name} has no object {object_id!r}", hint="its id is the end of an event's subject"
            )
        history = reader.log.history(source, f"{name}/{object_id}")
    if as_json:
        print_json(_object_json(source, name, snapshot, history))
        return
    presence, zone = snapshot.presence.name.lower(), config.poller.zone
    click.echo(
        f"{source}/{name} {object_id}: version {snapshot.version}, {presence}, seen {clock(snapshot.seen_at, zone)}"
    )
    click.echo(msgspec.json.format(snapshot.body, indent=2).decode())
    click.echo(f"{len(history)} events")
    out = console()
    for event in history:
        print_event(out, event, zone)


def _object_json(source: str, endpoint: str, snapshot: Snapshot, history: list[Event]) -> dict[str, Any]:
    return {
        "source": source,
        "endpoint": endpoint,
        "id": snapshot.object_id,
        "version": snapshot.version,
        "presence": snapshot.presence.name.lower(),
        "seen_at": iso(snapshot.seen_at),
        "object": orjson.Fragment(snapshot.body),
        "history": [orjson.Fragment(structured(event)) for event in history],
    }
