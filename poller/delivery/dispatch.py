"""Log -> deliveries: each subscription reads on behind its cursor until enough of it is pending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from poller.delivery.subscription import Route
from poller.events.filters import Filter, FilterError
from state.deliveries import DeliveryStore, Feed, Match, Reading
from state.records import Event

BATCH = 250  # events read and matched in one step: the store's thread is held for some milliseconds at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A subscription's filter, compiled, beside the route it belongs to."""

    route: Route
    filter: Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """What a step of dispatching did."""

    queued: frozenset[str] = frozenset()  # subscriptions that have more to deliver now
    more: bool = False  # something is left that could be read at once


def dispatch(store: DeliveryStore, wanted: Sequence[Wanted], *, now: float) -> Dispatched:
    """Read on for every subscription that has room; events are read once for all that stand at the same number.

    One whole step of the store's thread. Raises Conflict if a cursor moved meanwhile.
    """
    by_name = {one.route.subscription.name: one for one in wanted}
    feeds = sorted(store.feeds(by_name), key=lambda feed: feed.cursor)
    readings: list[Reading] = []
    for cursor, group in groupby(feeds, key=lambda feed: feed.cursor):
        events = store.read(cursor, BATCH)
        readings += [read_on(feed, events, by_name[feed.subscription], now=now) for feed in group]
    if readings:
        store.dispatch(readings, now=now)
    return Dispatched(
        queued=frozenset(reading.feed.subscription for reading in readings if reading.matches),
        more=any(reading.upto > reading.feed.cursor and not reading.done for reading in readings),
    )


def read_on(feed: Feed, events: Sequence[Event], wanted: Wanted, *, now: float) -> Reading:
    """What a subscription makes of the events behind its cursor, as far as it has room. Pure."""
    due_at = wanted.route.due_at
    due = now if due_at is None else due_at(now)
    upto = feed.cursor
    matches: list[Match] = []
    not_matching: list[int] = []
    errors: list[str] = []
    full = False
    for event in events:
        full = len(matches) >= feed.room
        if full or (feed.until is not None and event.seq > feed.until):
            break
        upto = event.seq
        if _matches(wanted.filter, event, errors):
            matches.append(Match(seq=event.seq, lane=lane_of(event, wanted.route, feed), due=due))
        else:
            not_matching.append(event.seq)
    return Reading(
        feed=feed,
        upto=upto,
        done=feed.until is not None and not full and (upto >= feed.until or len(events) < BATCH),
        matches=tuple(matches),
        not_matching=tuple(not_matching),
        errors=len(errors),
        error=errors[-1] if errors else None,
    )


def lane_of(event: Event, route: Route, feed: Feed) -> str:
    """Where an event queues: behind its object's others, in a digest behind all, in a replay apart from both."""
    lane = "" if route.subscription.digest is not None else f"{event.source} {event.subject}"
    return lane if feed.replay is None else f"replay {lane}"


def _matches(filter_: Filter, event: Event, errors: list[str]) -> bool:
    """Whether the subscription wants it; an expression without an answer counts as no, and is told."""
    try:
        return filter_.matches(event)
    except FilterError as error:
        errors.append(f"event {event.seq}: {error}")
        return False
