"""One source while it runs: its endpoints watched, its health, and what a poll of it leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from poller.changes.endpoint_rules import DeletionRules, EndpointRules
from poller.config.models import EndpointConfig, SourceConfig
from poller.documents.diff import compile_rules
from poller.events.filters import ObjectRule
from poller.hooks.loading import Plugins
from poller.hooks.source_adapter import SourceAdapter
from poller.planner.planner import Unit
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.fetch import Ask, Fetcher
from poller.polling.health import SourceHealth
from poller.polling.loop import PollLoop
from poller.polling.stall import StallWatch
from poller.polling.threads import Apart
from poller.sources.protocol import Endpoint, PageError, Source
from state.records import NewEvent

if TYPE_CHECKING:  # what a source has, and does not call
    from poller.polling.deletions import Deletions
    from poller.polling.turn import Turns

Transform = Callable[[NewEvent], NewEvent | None]

log = structlog.get_logger("poller")

ITEM = "item"  # stands for every object's own URL where health counts units
DISCOVER = "discover"  # stands for what a source must ask first, as an endpoint and as its unit


@dataclass(slots=True)
class Discovery:
    """Whether a source knows what it must ask before its first poll."""

    is_done: bool
    at: float = 0.0  # when it is tried next
    failures: int = 0


@dataclass(slots=True)
class PollTimes:
    """When a source was polled last, in Unix seconds."""

    opened_at: float
    latest: float | None = None  # of its polls that went well
    begun_at: float | None = None  # when a poll last began, well or not


@dataclass(slots=True, kw_only=True)
class ActiveSource:
    """One source and everything that lives with it."""

    config: SourceConfig
    source: SourceAdapter
    poll_loop: PollLoop
    fetcher: Fetcher
    turns: Turns
    deletions: Deletions
    health: SourceHealth
    stall: StallWatch
    discovery: Discovery
    times: PollTimes
    apart: Apart  # its thread
    endpoints: dict[str, WatchedEndpoint] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The source's name."""
        return self.config.name

    @property
    def ask(self) -> Ask:
        """Sends one request, paid from the budget. Raises FetchError."""
        return self.fetcher.ask

    def children(self, endpoint: str) -> Iterator[WatchedEndpoint]:
        """The endpoints that have a list per object of this one."""
        return (w for w in self.endpoints.values() if w.rules.endpoint.parent == endpoint)

    def waits(self, w: WatchedEndpoint) -> bool:
        """Whether more units of it are to come: its parents are not all known yet."""
        parents = self.endpoints.get(w.rules.endpoint.parent or "")
        return parents is not None and not parents.has_swept

    def unit(self, w: WatchedEndpoint, key: str) -> Unit:
        """The unit as the planner knows it."""
        settings = self.config.endpoint(w.name)
        calls = w.units[key].calls if key in w.units else 1
        return Unit(
            self.name, w.name, key, cost=max(1, calls), weight=settings.weight, max_staleness=settings.max_staleness
        )


def rules_of(config: SourceConfig, endpoint: Endpoint, plugins: Plugins) -> EndpointRules:
    """What the plugin says of an endpoint, and the configuration beside it. Raises PollerError for a bad rule."""
    settings = config.endpoint(endpoint.name)
    deleted_when = settings.deleted_when or endpoint.deleted_when
    fields = compile_rules(
        (*endpoint.ignore, *settings.ignore),
        (*endpoint.exclude, *settings.exclude),
        (*endpoint.unordered, *settings.unordered),
    )
    return EndpointRules(
        source=config.name,
        namespace=config.namespace,
        endpoint=endpoint,
        fields=fields,
        deletion=DeletionRules(
            deletes=settings.deletes,
            soft=ObjectRule(deleted_when) if deleted_when else None,
            absent_for=settings.absent_for,
            unlisted=settings.unlisted,
            turnover=settings.turnover,
        ),
        conditional=settings.conditional,
        baseline=settings.baseline,
        max_depth=config.max_depth,
        transform=transformer(plugins),
    )


def transformer(plugins: Plugins) -> Transform | None:
    """The plugins' `transform_event` hooks as one function: the event, another one, or None where one drops it."""
    return plugins.transform if plugins.implements("transform_event") else None


def shape_of(source: Source, endpoint: Endpoint, settings: EndpointConfig) -> str:
    """What the endpoint's objects mean, as text: its path, id and excluded fields."""
    try:
        path = f"in each of {endpoint.parent}" if endpoint.parent else source.request(endpoint, endpoint.first).url.path
    except PageError:  # it must discover something first: what it asks for is the plugin's, not the user's
        path = endpoint.name
    exclude = sorted({*endpoint.exclude, *settings.exclude})
    return f"{path} id={endpoint.id} exclude={exclude}"


def kept_health(active: ActiveSource) -> dict[str, bytes]:
    """What outlives a restart or reload of a source's health, by the key under which it is kept."""
    return {
        f"health:{active.name}": active.health.dump(),
        f"stall:{active.name}": active.stall.dump(),
        kept_episode(active.poll_loop): active.poll_loop.pauses.dump(),
    }


def kept_episode(poll_loop: PollLoop) -> str:
    """The key under which a budget's pause is kept as it was told."""
    return f"throttle:{poll_loop.name}"


def recall_health(active: ActiveSource, kept: Mapping[str, bytes | None]) -> None:
    """Take up what was kept: episodes are reported once and ended once, however often the program began anew."""
    units = {w.name: {*w.units, ITEM} for w in active.endpoints.values()}
    if active.source.asks_first():
        units[DISCOVER] = {DISCOVER}
    try:
        if (health := kept[f"health:{active.name}"]) is not None:
            active.health.recall(health, units)
        if (stall := kept[f"stall:{active.name}"]) is not None:
            active.stall.recall(stall)
        if (throttle := kept[kept_episode(active.poll_loop)]) is not None:
            active.poll_loop.pauses.recall(throttle)
    except ValueError as error:
        log.warning("health.forgotten", source=active.name, why=str(error))
