"""Log -> deliveries: each subscription reads on after its cursor until enough of it is pending. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poller.delivery.subscription import Route
from poller.events.filters import Filter, FilterError
from state.deliveries import Dispatched, Feed, Match
from state.records import Event

BATCH = 250  # events read and matched at once: some milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A subscription's filter, compiled, beside the route it belongs to."""

    route: Route
    filter: Filter


def read_on(feed: Feed, events: Sequence[Event], wanted: Wanted, *, now: float) -> Dispatched:
    """What a subscription makes of the events after its cursor, as far as it has room."""
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
    return Dispatched(
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
