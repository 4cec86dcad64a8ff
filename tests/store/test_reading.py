"""What a reader sums up for pages: events by spans of time, units, and deliveries by answer and event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from state.deliveries import DeliveryQuery, Registration
from state.records import NewEvent
from state.sqlite.read_deliveries import DeliveryReader
from state.sqlite.read_polls import PollReader
from state.sqlite.read_status import StatusReader
from state.sqlite.store import Store

NOW = 10_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "poller.db", now=NOW)
    yield store
    store.close()


def event(name: str, at: float, endpoint: str = "items") -> NewEvent:
    return NewEvent(
        id=f"{endpoint}{name}{at}",
        source="/sources/shop",
        type=f"shop.{endpoint}.updated",
        subject=f"{endpoint}/{name}",
        time=at,
        observed_after=None,
        raw=b"{}",
    )


def known(store: Store) -> None:
    """Two units of one endpoint, each with one object."""
    store.db.executescript(
        """
        INSERT INTO endpoints (id, source, name, shape, sweep_began) VALUES (1, 'shop', 'items', '', 0);
        INSERT INTO units (id, endpoint, key, position) VALUES (1, 1, 'page=1', '{}'), (2, 1, 'page=2', '{}');
        UPDATE units SET failures = 2, error = '500' WHERE id = 2;
        INSERT INTO objects (endpoint, object, version, body, unit, seen_at)
            VALUES (1, 'a', 1, '{}', 1, 0), (1, 'b', 1, '{}', 2, 0);
        """
    )


def test_events_are_counted_by_endpoint_and_span(store: Store) -> None:
    found = [event("a", NOW), event("a", NOW + 5), event("a", NOW + 25), event("a", NOW, "orders"), event("a", 5.0)]
    store.log.append(found)

    rows = StatusReader(store.db).activity(since=NOW, width=10.0)

    assert {(one.source, one.endpoint, one.span, one.events) for one in rows} == {
        ("shop", "items", 0, 2),
        ("shop", "items", 2, 1),
        ("shop", "orders", 0, 1),
    }


def test_events_are_counted_by_unit_and_those_of_forgotten_objects_apart(store: Store) -> None:
    known(store)
    store.log.append([event("a", NOW), event("a", NOW + 3), event("b", NOW + 12), event("gone", NOW), event("a", 5.0)])

    rows = StatusReader(store.db).unit_activity("shop", "items", since=NOW, width=10.0)

    assert {(one.unit, one.span, one.events) for one in rows} == {("page=1", 0, 2), ("page=2", 1, 1), (None, 0, 1)}


def test_units_are_given_with_failing_ones_first(store: Store) -> None:
    known(store)

    found = PollReader(store.db).units("shop", "items")

    assert [(one.key, one.failures, one.error) for one in found] == [("page=2", 2, "500"), ("page=1", 0, None)]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (DeliveryQuery(status="503"), 1),
        (DeliveryQuery(status="5??"), 2),
        (DeliveryQuery(status="200"), 0),
        (DeliveryQuery(seq=2), 1),
        (DeliveryQuery(seq=2, status="500"), 0),
    ],
)
def test_deliveries_are_found_by_answer_and_by_event(store: Store, query: DeliveryQuery, count: int) -> None:
    store.deliveries.register([Registration(name="crm", start="beginning")], now=NOW)
    store.log.append([event("a", NOW), event("b", NOW)])
    store.db.executescript(
        """
        INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at, status)
            VALUES (1, 1, 'log', 'a', 'dead', 0, '500'), (1, 2, 'log', 'b', 'dead', 0, '503');
        """
    )

    assert len(DeliveryReader(store.db).find(query, limit=10)) == count
