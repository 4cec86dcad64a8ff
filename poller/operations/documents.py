"""JSON documents of deliveries, attempts, objects and books, the same in the API and in `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from msgspec import structs

from poller.events.cloudevents import iso, structured
from poller.options.problems import NotThere, find_endpoint
from state.deliveries import AttemptRow, Delivery, SubscriptionLedger
from state.polls import Snapshot
from state.records import Event
from state.store import Reader

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


def known_object(reader: Reader, source: str, endpoint: str, object_id: str) -> Snapshot:
    """The latest known state of an object. Raises NotThere, about the object or its endpoint."""
    found = reader.polls.object(source, endpoint, object_id)
    if found is None:
        find_endpoint(((row["source"], row["endpoint"]) for row in reader.polls.endpoints()), f"{source}/{endpoint}")
        raise NotThere(f"{source}/{endpoint} has no object {object_id!r}", hint="its id is the end of a subject")
    return found


def books_document(one: SubscriptionLedger) -> Document:
    """The books of a subscription."""
    return {**structs.asdict(one), "balanced": one.balanced}
