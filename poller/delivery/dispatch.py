"""From the log to deliveries: each subscription reads on after its cursor until enough deliveries are pending."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from poller.delivery.subscription import Route
from poller.events.filters import Filter, FilterError
from state.deliveries import Dispatched, Feed, Match
from state.errors import LeaseLost
from state.leases import Lease
from state.records import Event
from state.steps import Steps
from state.store import DeliveryStore

BATCH = 250  # events read and matched at once, which takes some milliseconds


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription's route with its filter, compiled."""

    route: Route
    filter: Filter


def read_on(feed: Feed, events: Sequence[Event], wanted: Wanted, *, now: float) -> Dispatched:
    """The matches of a subscription among the events after its cursor, as far as it has room."""
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
    """The lane of an event: one for each object, or one for all events of a digest; replays have separate lanes."""
    lane = "" if route.subscription.digest is not None else f"{event.source} {event.subject}"
    return lane if feed.replay is None else f"replay {lane}"


def _matches(filter_: Filter, event: Event, errors: list[str]) -> bool:
    """Whether the subscription wants the event. An expression that fails counts as no, and is reported."""
    try:
        return filter_.matches(event)
    except FilterError as error:
        errors.append(f"event {event.seq}: {error}")
        return False


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one round of reading on."""

    queued: frozenset[str]  # subscriptions with new deliveries
    lost: Mapping[str, LeaseLost]  # subscriptions that another worker owns now
    more: bool  # more could be read at once


async def dispatch(
    store: DeliveryStore, steps: Steps, wanted: Sequence[Wanted], leases: Sequence[Lease], *, now: float
) -> Round:
    """Read on for every subscription that has room. Events are read once for all cursors at the same number.

    Raises Conflict if a cursor moved meanwhile, and StateError.
    """
    by_name = {one.route.subscription.name: one for one in wanted}
    owned = {lease.subject: lease for lease in leases if lease.subject in by_name}
    read: dict[int, list[Event]] = {}
    dispatched: dict[str, list[Dispatched]] = {}
    for feed in await steps(store.feeds, list(owned.values()), now=now):
        if feed.cursor not in read:
            read[feed.cursor] = await steps(store.read, feed.cursor, BATCH)
        one = read_on(feed, read[feed.cursor], by_name[feed.subscription], now=now)
        dispatched.setdefault(feed.subscription, []).append(one)
        await asyncio.sleep(0)  # let the event loop run between two subscriptions
    written = await asyncio.gather(  # all in one commit
        *(steps(store.dispatch, owned[name], ones, now=now) for name, ones in dispatched.items()),
        return_exceptions=True,
    )
    ended = dict(zip(dispatched, written, strict=True))
    lost = {name: failure for name, failure in ended.items() if isinstance(failure, LeaseLost)}
    for name, failure in ended.items():
        if isinstance(failure, BaseException) and name not in lost:
            raise failure
    return Round(
        queued=frozenset(name for name, ones in dispatched.items() if any(one.matches for one in ones)),
        lost=lost,
        more=any(one.upto > one.feed.cursor and not one.done for ones in dispatched.values() for one in ones),
    )
