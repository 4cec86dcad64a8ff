"""One source while it runs: its endpoints watched, its health, and what a poll of it leads to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from poller.changes.page import Watch
from poller.config.models import EndpointConfig, SourceConfig
from poller.documents.diff import compile_rules
from poller.events.filters import ObjectRule
from poller.hooks.loading import Plugins
from poller.hooks.source_adapter import PluggedSource
from poller.planner.planner import Unit
from poller.polling.endpoint import NEWEST, SINCE, Watching, child_key, dump_position, key_of
from poller.polling.health import Notice, SourceHealth, StallWatch
from poller.polling.loop import Lane
from poller.polling.poll import Ask, Polling
from poller.sources.protocol import Endpoint, PageError, Source
from state import notices as records
from state.polls import Suspect
from state.records import NewEvent
from state.sqlite.store import Store

log = structlog.get_logger("poller")

ITEM = "item"  # stands for every object's own URL where health counts units
DISCOVER = "discover"  # stands for what a source must ask first, as an endpoint and as its unit


@dataclass(slots=True, kw_only=True)
class Run:
    """One source and everything that lives with it."""

    name: str
    config: SourceConfig
    source: PluggedSource
    lane: Lane
    polling: Polling
    health: SourceHealth
    ask: Ask
    stall: StallWatch
    opened_at: float
    watchings: dict[str, Watching] = field(default_factory=dict)
    discovered: bool = False
    discover_at: float = 0.0
    discover_failures: int = 0
    last_poll: float | None = None  # its latest that went well
    last_begun: float | None = None  # when a poll last began, well or not
    suspects: dict[str, deque[Suspect]] = field(default_factory=dict)
    stale_suspects: set[str] = field(default_factory=set)  # endpoints whose suspects are to be read again
    confirming: set[tuple[str, str]] = field(default_factory=set)

    def children(self, endpoint: str) -> Iterator[Watching]:
        """The endpoints that have a list per object of this one."""
        return (w for w in self.watchings.values() if w.watch.endpoint.parent == endpoint)

    def waits(self, w: Watching) -> bool:
        """Whether more units of it are to come: its parents are not all known yet."""
        parent = w.watch.endpoint.parent
        return parent is not None and parent in self.watchings and self.watchings[parent].state.last_sweep is None

    def unit(self, w: Watching, key: str) -> Unit:
        """The unit as the planner knows it."""
        settings = self.config.endpoint(w.name)
        calls = w.units[key].calls if key in w.units else 1
        return Unit(
            self.name, w.name, key, cost=max(1, calls), weight=settings.weight, max_staleness=settings.max_staleness
        )


def watch_of(config: SourceConfig, endpoint: Endpoint, plugins: Plugins) -> Watch:
    """What the plugin says of an endpoint, and the configuration beside it. Raises PollerError for a bad rule."""
    settings = config.endpoint(endpoint.name)
    deleted_when = settings.deleted_when or endpoint.deleted_when
    rules = compile_rules(
        (*endpoint.ignore, *settings.ignore),
        (*endpoint.exclude, *settings.exclude),
        (*endpoint.unordered, *settings.unordered),
    )
    return Watch(
        source=config.name,
        namespace=config.namespace,
        endpoint=endpoint,
        rules=rules,
        soft=ObjectRule(deleted_when) if deleted_when else None,
        deletes=settings.deletes,
        baseline=settings.baseline,
        max_depth=config.max_depth,
        transform=transformer(plugins),
    )


def transformer(plugins: Plugins) -> Any:
    """The plugins' `transform_event` hooks as one function: the event, another one, or None where one drops it."""
    if not any("transform_event" in plugin.hooks for plugin in plugins.loaded):
        return lambda event: event

    def transform(event: NewEvent) -> NewEvent | None:
        for answer in plugins.call("transform_event", event=event):
            if answer is False:
                return None
            if isinstance(answer, NewEvent) and answer.id == event.id and answer.subject == event.subject:
                event = answer
        return event

    return transform


def shape_of(source: Source, endpoint: Endpoint, settings: EndpointConfig) -> str:
    """What the endpoint's objects mean, as text: its path, id and excluded fields."""
    try:
        path = f"per {endpoint.parent}" if endpoint.parent else source.request(endpoint, endpoint.first).url.path
    except PageError:  # it must discover something first: what it asks for is the plugin's, not the user's
        path = endpoint.name
    exclude = sorted({*endpoint.exclude, *settings.exclude})
    return f"{path} id={endpoint.id} exclude={exclude}"


def open_watching(store: Store, run: Run, watch: Watch, shape: str, *, now: float) -> tuple[Watching, bool]:
    """Begin to watch an endpoint, on the store's thread. True: it means something else than before."""
    endpoint = watch.endpoint
    state, reshaped = store.polls.open_endpoint(run.name, endpoint.name, shape, now=now)
    w = Watching(watch, state, store.polls.units(state.id))
    if endpoint.parent is None:
        _want(store, w, key_of(endpoint.first), dump_position(endpoint.first))
    if endpoint.since:
        _want(store, w, SINCE, dump_position(endpoint.first))
    if endpoint.order == "newest" and key_of(endpoint.first) == "list":
        _want(store, w, NEWEST, dump_position(endpoint.first))
    return w, reshaped


def _want(store: Store, w: Watching, key: str, position: bytes) -> None:
    if key not in w.units:
        w.put(store.polls.unit(w.state.id, key, position))


def sync_children(store: Store, run: Run, w: Watching) -> tuple[list[str], list[str]]:
    """Give every parent that is there a unit, and take it from those that are gone. Returns keys (added, dropped)."""
    parent = run.watchings.get(w.watch.endpoint.parent or "")
    if parent is None:
        return [], []
    wanted = {child_key(object_id) for object_id in store.poll_reader.parents(parent.state.id)}
    added, dropped = sorted(wanted - w.units.keys()), sorted(k for k in w.units.keys() - wanted if w.sweeps(k))
    add_children(store, w, added)
    drop_children(store, w, dropped, now=w.state.sweep_began)
    return added, dropped


def add_children(store: Store, w: Watching, keys: Iterable[str]) -> None:
    """Know a list per parent."""
    for key in keys:
        if key not in w.units:
            w.put(store.polls.unit(w.state.id, key, dump_position(w.watch.endpoint.first)))


def drop_children(store: Store, w: Watching, keys: Iterable[str], *, now: float) -> None:
    """Forget the lists of parents that are gone; what they showed is suspect."""
    gone = [key for key in keys if key in w.units]
    if gone:
        store.polls.drop_units(w.state.id, gone, now=now)
        for key in gone:
            w.forget(key)
        w.steady = False


def tell(store: Store, notes: Iterable[Notice], *, now: float, kept: Mapping[str, bytes]) -> list[int]:
    """Log what the operator must know, each with the next version of its subject, and keep with it what was told."""
    seqs: list[int] = []
    with store.polls.transaction():
        for note in notes:
            notice = records.Notice(
                kind=note.kind, subject=note.subject, summary=note.summary, detail=dict(note.detail), time=now
            )
            seqs += store.polls.tell(notice)
        store.learned.save(kept)
    return seqs


def kept_health(run: Run) -> dict[str, bytes]:
    """What outlives a restart or reload of a source's health, by the key under which it is kept."""
    return {f"health:{run.name}": run.health.dump(), f"stall:{run.name}": run.stall.dump()}


def recall_health(store: Store, run: Run) -> None:
    """Take up what was kept: episodes are told once and taken back once, however often the program began anew."""
    units = {w.name: {*w.units, ITEM} for w in run.watchings.values()}
    if run.source.asks_first():
        units[DISCOVER] = {DISCOVER}
    try:
        if (saved := store.learned.load(f"health:{run.name}")) is not None:
            run.health.recall(saved, units)
        if (saved := store.learned.load(f"stall:{run.name}")) is not None:
            run.stall.recall(saved)
    except ValueError as error:
        log.warning("health.forgotten", source=run.name, why=str(error))
