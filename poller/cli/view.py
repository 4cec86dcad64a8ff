"""What commands show: the state as the daemon reports it or, if none runs, as the file has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import msgspec

from poller.cli.context import CliContext
from poller.cli.daemon_client import DaemonClient, in_path
from poller.cli.state import reading
from poller.config.models import Config
from poller.operations.documents import (
    Document,
    books_document,
    delivery_document,
    delivery_with_attempts,
    known_object,
    object_document,
)
from poller.operations.log import place, place_before, read_batch, read_newest
from poller.operations.places import parse_place
from poller.options.problems import NotThere, find_endpoint
from poller.planner.report import WhatIf
from state.deliveries import DeliveryQuery
from state.records import Event, EventQuery
from state.store import Reader
from state.tables import TablePage

PAGE: Final = 1000  # rows per request


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events to show. A position is a number or a time, as the user wrote it."""

    after: str | None = None
    before: str | None = None
    type_glob: str | None = None
    source: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries to show."""

    states: tuple[str, ...] = ()
    subscription: str | None = None
    subject: str | None = None
    after: str | None = None
    before: str | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some events in order, and the number after which to read on."""

    events: list[Event]
    next: int


class View(Protocol):
    """Reads events, deliveries and objects. Raises PollerError."""

    zone: tzinfo
    sources: list[str]
    subscriptions: list[str]

    def events(self, wanted: EventFilter, *, limit: int, newest: bool = False) -> Page:
        """A page of the log: the first events that match, or the newest ones."""
        ...

    def event_types(self) -> list[str]:
        """Some of the types in the log."""
        ...

    def deliveries(self, wanted: DeliveryFilter, *, limit: int) -> list[Document]:
        """Deliveries, the latest first."""
        ...

    def delivery(self, number: int) -> Document:
        """One delivery with its attempts. Raises NotThere."""
        ...

    def ledger(self) -> list[Document]:
        """The books of every subscription."""
        ...

    def object(self, endpoint: str, object_id: str) -> Document:
        """One object with its history (Events). Raises NotThere."""
        ...

    def table(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """A page of an open table."""
        ...


@contextlib.contextmanager
def viewed(context: CliContext) -> Iterator[View | None]:
    """The daemon's view if one runs, else the file's; None, after printing a line, if nothing has run yet."""
    with context.daemon() as daemon:
        if daemon is not None:
            yield DaemonView(daemon)
            return
    config, _ = context.load(reveal=False)
    with reading(config) as reader:
        yield None if reader is None else FileView(config, reader)


class FileView:
    """The state, read from its file."""

    def __init__(self, config: Config, reader: Reader) -> None:
        self.zone: tzinfo = config.poller.zone
        self.sources = list(config.sources)
        self.subscriptions = sorted(
            {one.name for one in config.subscriptions} | {one.name for one in reader.deliveries.subscriptions()}
        )
        self._reader = reader

    def events(self, wanted: EventFilter, *, limit: int, newest: bool = False) -> Page:
        """A page of the log."""
        query = EventQuery(
            after=place(self._reader, wanted.after, default=0),
            before=place_before(self._reader, wanted.before),
            type_glob=wanted.type_glob,
            source=wanted.source,
            subject=wanted.subject,
        )
        batch = (read_newest if newest else read_batch)(self._reader, query, limit)
        return Page(events=list(batch.events), next=batch.next)

    def table(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """A page of an open table."""
        return self._reader.tables.page(name, after=after, limit=limit)

    def event_types(self) -> list[str]:
        """Some of the types in the log."""
        return self._reader.log.types()

    def deliveries(self, wanted: DeliveryFilter, *, limit: int) -> list[Document]:
        """Deliveries, the latest first."""
        query = DeliveryQuery(
            states=wanted.states,
            subscription=wanted.subscription,
            subject=wanted.subject,
            after=parse_place(wanted.after, what="--after") if wanted.after else None,
            before=parse_place(wanted.before, what="--before") if wanted.before else None,
        )
        return [delivery_document(one) for one in self._reader.deliveries.find(query, limit=limit)]

    def delivery(self, number: int) -> Document:
        """One delivery with its attempts."""
        found = self._reader.deliveries.delivery(number)
        if found is None:
            raise NotThere(f"there is no delivery {number}", hint="poller deliveries")
        return delivery_with_attempts(found, self._reader.deliveries.attempts(number))

    def ledger(self) -> list[Document]:
        """The books of every subscription."""
        return [books_document(one) for one in self._reader.deliveries.ledger()]

    def object(self, endpoint: str, object_id: str) -> Document:
        """One object with its history."""
        reader = self._reader
        source, name = find_endpoint(((row["source"], row["endpoint"]) for row in reader.polls.endpoints()), endpoint)
        snapshot = known_object(reader, source, name, object_id)
        history = reader.log.history(source, f"{name}/{object_id}")
        return {**object_document(source, name, snapshot, ()), "object": snapshot.body, "history": history}


class DaemonView:
    """The state as the daemon reports it, which knows more than the file."""

    def __init__(self, daemon: DaemonClient) -> None:
        running = daemon.get("/api/v1/configuration")
        self.zone: tzinfo = ZoneInfo(running["timezone"])
        self.sources: list[str] = running["sources"]
        self.subscriptions: list[str] = running["subscriptions"]
        self._daemon = daemon

    def events(self, wanted: EventFilter, *, limit: int, newest: bool = False) -> Page:
        """A page of the log."""
        raw = self._daemon.get_raw(
            "/api/v1/events",
            after=wanted.after,
            before=wanted.before,
            type=wanted.type_glob,
            source=wanted.source,
            subject=wanted.subject,
            limit=min(limit, PAGE),
            newest="true" if newest else None,
        )
        found = msgspec.json.decode(raw, type=_Events)
        return Page(events=[_event(one) for one in found.events], next=found.next)

    def table(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """A page of an open table."""
        found = self._daemon.get(f"/api/v1/tables/{name}", after=after, limit=min(limit, PAGE))
        return TablePage(columns=tuple(found["columns"]), rows=found["rows"], next=found["next"])

    def event_types(self) -> list[str]:
        """Some of the types in the log."""
        found: list[str] = self._daemon.get("/api/v1/events/types")
        return found

    def deliveries(self, wanted: DeliveryFilter, *, limit: int) -> list[Document]:
        """Deliveries, the latest first."""
        found: list[Document] = []
        before = wanted.before
        while len(found) < limit:
            page = self._daemon.get(
                "/api/v1/deliveries",
                state=",".join(wanted.states) or None,
                subscription=wanted.subscription,
                subject=wanted.subject,
                after=wanted.after,
                before=before,
                limit=min(limit - len(found), PAGE),
            )
            found += page["deliveries"]
            before = page["next"]
            if before is None:
                break
        return [{name: value for name, value in one.items() if name != "log"} for one in found]

    def delivery(self, number: int) -> Document:
        """One delivery with its attempts."""
        found: Document = self._daemon.get(f"/api/v1/deliveries/{number}")
        return found

    def ledger(self) -> list[Document]:
        """The books of every subscription."""
        found: list[Document] = self._daemon.get("/api/v1/ledger")
        return found

    def object(self, endpoint: str, object_id: str) -> Document:
        """One object with its history."""
        source, name = endpoint_of(self._daemon, endpoint)
        raw = self._daemon.get_raw(f"/api/v1/endpoints/{in_path(source, name)}/object", id=object_id)
        found = msgspec.json.decode(raw, type=_Object)
        history = [_event(one) for one in found.history]
        return {**msgspec.structs.asdict(found), "object": bytes(found.object), "history": history}

    def plan(self, what_if: WhatIf) -> list[Document]:
        """The current plan of the planners."""
        found = self._daemon.get(
            "/api/v1/plan",
            share=what_if.share,
            weight=[f"{name}={weight:.6f}" for name, weight in what_if.weights.items()],
            limits=[str(limit) for limit in what_if.limits],
        )
        kinds = ("budget", "endpoint", "unit")
        return [{"kind": kind, **row} for kind in kinds for row in found[f"{kind}s"]]


def endpoint_of(daemon: DaemonClient, text: str) -> tuple[str, str]:
    """Source and endpoint that a text names. Raises NotThere."""
    endpoints = daemon.get("/api/v1/status")["endpoints"]
    return find_endpoint(((row["source"], row["endpoint"]) for row in endpoints), text)


class _CloudEvent(msgspec.Struct, kw_only=True):
    """An event of the API; its data is not parsed."""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    sequence: str
    data: msgspec.Raw
    observedafter: datetime | None = None


class _Events(msgspec.Struct):
    events: list[_CloudEvent]
    next: int


class _Object(msgspec.Struct, kw_only=True):
    source: str
    endpoint: str
    id: str
    version: int
    presence: str
    seen_at: str
    object: msgspec.Raw
    history: list[_CloudEvent]


def _event(one: _CloudEvent) -> Event:
    return Event(
        seq=int(one.sequence),
        id=one.id,
        source=one.source,
        type=one.type,
        subject=one.subject,
        time=one.time.timestamp(),
        observed_after=None if one.observedafter is None else one.observedafter.timestamp(),
        raw=bytes(one.data),
    )
