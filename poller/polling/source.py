"""One source while it runs: its endpoints, its health, and the follow-up of its polls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog

from poller.planner.planner import Unit
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.health import SourceHealth
from poller.polling.stall import StallWatch
from poller.polling.threads import Apart

if TYPE_CHECKING:  # what a source has, and what it is made of
    from poller.config.models import SourceConfig
    from poller.polling.deletions import Deletions
    from poller.polling.fetch import Fetcher
    from poller.polling.loop import PollLoop
    from poller.polling.source_calls import Ask, SourceCalls
    from poller.polling.turn import Turns

log = structlog.get_logger("poller")

ITEM = "item"  # takes the place of a unit for all own URLs, where health counts units
DISCOVER = "discover"  # takes the place of endpoint and unit for discovery


class Discovery(msgspec.Struct):
    """The calls that a source needs before its first poll."""

    is_needed: bool  # there may be such calls
    is_done: bool
    at: float = 0.0  # when it is tried next
    failures: int = 0


class PollTimes(msgspec.Struct):
    """When a source was last polled, in Unix seconds."""

    opened_at: float
    latest: float | None = None  # the latest successful poll
    begun_at: float | None = None  # when a poll last began, successful or not


class ActiveSource(msgspec.Struct, kw_only=True):
    """One source with everything that belongs to it."""

    config: SourceConfig
    source: SourceCalls
    poll_loop: PollLoop
    fetcher: Fetcher
    turns: Turns
    deletions: Deletions
    health: SourceHealth
    stall: StallWatch
    discovery: Discovery
    times: PollTimes
    apart: Apart  # the source's thread
    endpoints: dict[str, WatchedEndpoint] = msgspec.field(default_factory=dict)

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
        """Whether more units of an endpoint will follow, because not all parents are known yet."""
        parents = self.endpoints.get(w.rules.endpoint.parent or "")
        return parents is not None and not parents.has_swept

    def unit(self, w: WatchedEndpoint, key: str) -> Unit:
        """The planner's unit."""
        settings = self.config.endpoint(w.name)
        calls = w.units[key].calls if key in w.units else 1
        return Unit(
            self.name, w.name, key, cost=max(1, calls), weight=settings.weight, max_staleness=settings.max_staleness
        )


def kept_health(active: ActiveSource) -> dict[str, bytes]:
    """The stored form of a source's health, by the key under which it is stored."""
    return {
        f"health:{active.name}": active.health.dump(),
        f"stall:{active.name}": active.stall.dump(),
        kept_episode(active.poll_loop): active.poll_loop.pauses.dump(),
    }


def kept_episode(poll_loop: PollLoop) -> str:
    """The key under which a budget's reported pause is stored."""
    return f"throttle:{poll_loop.name}"


def recall_health(active: ActiveSource, kept: Mapping[str, bytes]) -> None:
    """Restore a source's health: episodes are reported once and ended once, over any number of restarts."""
    units = {w.name: {*w.units, ITEM} for w in active.endpoints.values()}
    if active.discovery.is_needed:
        units[DISCOVER] = {DISCOVER}
    try:
        if (health := kept.get(f"health:{active.name}")) is not None:
            active.health.recall(health, units)
        if (stall := kept.get(f"stall:{active.name}")) is not None:
            active.stall.recall(stall)
        if (throttle := kept.get(kept_episode(active.poll_loop))) is not None:
            active.poll_loop.pauses.recall(throttle)
    except ValueError as error:
        log.warning("health.forgotten", source=active.name, why=str(error))
