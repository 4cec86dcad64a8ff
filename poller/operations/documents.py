"""JSON documents of deliveries, attempts, objects and books, the same in the API and in `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from msgspec import structs

from poller.events.cloudevents import iso, structured
from state.deliveries import AttemptRow, Delivery, SubscriptionLedger
from state.polls import Snapshot
from state.records import Event

Document = dict[str, Any]


def delivery_document(one: Delivery) -> Document:
    """A delivery without its attempts."""
    times = {"queued_at": one.queued_at, "due": one.due, "finished_at": one.finished_at}
    return {**structs.asdict(one), **{name: None if at is None else iso(at) for name, at in times.items()}}


def delivery_with_attempts(one: Delivery, attempts: Sequence[AttemptRow]) -> Document:
    """A delivery with every attempt, the first one first."""
    return {**delivery_document(one), "log": [{**structs.asdict(row), "at": iso(row.at)} for row in attempts]}


def object_document(source: str, endpoint: str, snapshot: Snapshot, history: Sequence[Event]) -> Document:
    """The latest state of an object, and its events."""
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


def books_document(one: SubscriptionLedger) -> Document:
    """The books of a subscription."""
    return {**structs.asdict(one), "balanced": one.balanced}
