"""The settings of a subscription, and its route with the sink."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from poller.delivery.retry import SCHEDULE, jittered
from poller.events.filters import Filter
from poller.http_dates import LONGEST
from poller.sinks.protocol import Sink
from state.deliveries import Registration


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """Which events go to which sink, and how."""

    name: str
    plugin: str = ""
    types: tuple[str, ...] = ("*",)
    sources: tuple[str, ...] = ()  # names of sources; empty: all
    where: str | None = None
    start: str | int | float = "now"  # "now", "beginning", the first number (int) or the first time (float)
    enabled: bool = True
    concurrency: int = 8  # deliveries of different objects at once
    retry: tuple[float, ...] = SCHEDULE  # seconds to wait after the first attempt, the second, ...
    digest: float | str | None = None  # seconds, or a crontab line

    def filter(self) -> Filter:
        """The filter of its events. Raises ExpressionError if its `where` cannot be used."""
        return Filter(types=self.types, sources=self.sources, where=self.where, subscription=self.name)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription with the sink that it opens.

    `next_digest` returns the next time of a digest after a given time; it is required if `digest` is a crontab line.
    """

    subscription: Subscription
    open_sink: Callable[[], Sink]
    next_digest: Callable[[float], float] | None = None

    def registration(self, now: float) -> Registration:
        """What the store must know of the subscription."""
        settings = self.subscription
        waits = [LONGEST, *(jittered(wait, 1.0) for wait in settings.retry)]
        if self.due_at is not None:
            waits.append(self.due_at(now) - now)
        return Registration(
            name=settings.name,
            start=settings.start,
            enabled=settings.enabled,
            digest=settings.digest is not None,
            longest_wait=max(waits),
        )

    @property
    def due_at(self) -> Callable[[float], float] | None:
        """When something queued at a given time is due; None: at once."""
        digest = self.subscription.digest
        if digest is None:
            return None
        if self.next_digest is not None:
            return self.next_digest
        return lambda queued: queued + float(digest)
