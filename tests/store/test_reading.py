"""What a reader sums up for pages: events by spans of time, units, and deliveries by answer and event."""

from __future__ import annotations

from dataclasses import replace

import pytest

from state.deliveries import DeliveryQuery, Registration
from state.records import NewEvent
from state.sqlite.read_status import StatusReader
from state.status import UnitClaims
from tests.store.test_delivery_contract import claim, opened, own, read_on, record, settle
from tests.support.stores import Backend, SqliteBackend

NOW = 10_000.0


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


def known(backend: Backend) -> None:
    """Two units of one endpoint, each with one object."""
    backend.run("INSERT INTO endpoints (source, name, shape, sweep_began) VALUES ('shop', 'items', '', 0)")
    endpoint = "(SELECT id FROM endpoints)"
    for key, name in (("page=1", "a"), ("page=2", "b")):
        backend.run(f"INSERT INTO units (endpoint, key, position) VALUES ({endpoint}, '{key}', '{{}}')")
        values = f"{endpoint}, '{name}', 1, '{{}}', (SELECT id FROM units WHERE key = '{key}'), 0"
        backend.run(f"INSERT INTO objects (endpoint, object, version, body, unit, seen_at) VALUES ({values})")
    backend.run("UPDATE units SET failures = 2, error = '500' WHERE key = 'page=2'")


def test_events_are_counted_by_endpoint_and_span(backend: Backend) -> None:
    found = [event("a", NOW), event("a", NOW + 5), event("a", NOW + 25), event("a", NOW, "orders"), event("a", 5.0)]
    backend.open().log.append(found)

    rows = backend.look().sums.activity(since=NOW, width=10.0)

    assert {(one.source, one.endpoint, one.span, one.events) for one in rows} == {
        ("shop", "items", 0, 2),
        ("shop", "items", 2, 1),
        ("shop", "orders", 0, 1),
    }


def test_units_are_found_by_a_member_of_their_claims(backend: Backend) -> None:
    backend.open()
    known(backend)
    for key, claims in (("page=1", '{"total":3}'), ("page=2", '{"total":3,"aside":["1 object"]}')):
        hexed = claims.encode().hex()
        value = f"X'{hexed}'" if isinstance(backend, SqliteBackend) else f"'\\x{hexed}'"
        backend.run(f"UPDATE units SET claims = {value} WHERE key = '{key}'")

    found = backend.look().polls.claims("aside")

    assert found == [
        UnitClaims(source="shop", endpoint="items", key="page=2", claims=b'{"total":3,"aside":["1 object"]}')
    ]


def test_events_are_counted_by_unit_and_those_of_forgotten_objects_apart(backend: Backend) -> None:
    store = backend.open()
    known(backend)
    store.log.append([event("a", NOW), event("a", NOW + 3), event("b", NOW + 12), event("gone", NOW), event("a", 5.0)])

    rows = backend.look().sums.unit_activity("shop", "items", since=NOW, width=10.0)

    assert {(one.unit, one.span, one.events) for one in rows} == {("page=1", 0, 2), ("page=2", 1, 1), (None, 0, 1)}


def test_units_are_given_with_failing_ones_first(backend: Backend) -> None:
    backend.open()
    known(backend)

    found = backend.look().polls.units("shop", "items")

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
def test_deliveries_are_found_by_answer_and_by_event(backend: Backend, query: DeliveryQuery, count: int) -> None:
    store = backend.open()
    store.deliveries.register([Registration(name="crm", start="beginning")], now=NOW)
    store.log.append([event("a", NOW), event("b", NOW)])
    columns = "subscription, seq, origin, lane, state, queued_at, due, status"
    for seq, status in ((1, "500"), (2, "503")):
        values = f"(SELECT id FROM subscriptions), {seq}, 'log', '{seq}', 'dead', 0, 0, '{status}'"
        backend.run(f"INSERT INTO deliveries ({columns}) VALUES ({values})")

    assert len(backend.look().deliveries.find(query, limit=10)) == count


def test_delays_are_read_in_order_after_a_number(backend: Backend) -> None:
    store = backend.open()
    late = replace(event("a", NOW), observed_after=NOW - 3.0)
    numbers = store.log.append([late, event("b", NOW), replace(event("c", NOW), source="/poller")])

    found = backend.look().sums.seen_delays(after=numbers[0] - 1, limit=10)

    assert [(one.seq, one.source, one.endpoint, one.delay) for one in found] == [
        (numbers[0], "shop", "items", 3.0),
        (numbers[1], "shop", "items", None),
    ]
    assert backend.look().sums.seen_delays(after=numbers[1], limit=10) == []


def test_the_newest_event_is_not_one_of_a_clock_that_was_ahead(backend: Backend) -> None:
    store = backend.open()
    assert backend.look().log.newest_time() is None
    store.log.append([event("a", NOW + 21_600.0), event("b", NOW)])

    assert backend.look().log.newest_time() == NOW


def test_what_lies_across_a_clock_that_was_set_is_no_delay(backend: Backend) -> None:
    jump = replace(event("clock", NOW + 3600, "clock"), source="/poller", type="poller.clock.set", id="jump")
    across = replace(event("a", NOW + 3601), observed_after=NOW)
    before, after = (replace(event("b", at), observed_after=at - 20.0) for at in (NOW, NOW + 3630))
    backend.open().log.append([before, jump, across, after])

    (found,) = backend.look().sums.measured_delays(since=0.0)

    assert (found.events, found.mean, found.p95) == (2, 10.0, 10.0)


def test_a_status_reads_no_delivery_that_has_ended(backend: Backend) -> None:
    """Deliveries are kept as long as their events: a status that counted them would become slower for months."""
    if not isinstance(backend, SqliteBackend):
        pytest.skip("PostgreSQL plans by itself")
    store = backend.open()
    statements: list[str] = []
    conn = store.db.conn
    assert conn is not None
    conn.set_trace_callback(statements.append)
    StatusReader(store.db).oldest_waiting()
    StatusReader(store.db).retrying()
    store.delivery_reader.subscriptions()
    conn.set_trace_callback(None)
    steps = [row[3] for one in statements for row in store.db.execute(f"EXPLAIN QUERY PLAN {one}")]

    read = [step for step in steps if step.startswith(("SCAN d", "SEARCH d"))]
    assert read
    assert [
        step for step in read if "INDEX deliveries_pending" not in step and "INDEX deliveries_dead" not in step
    ] == []


def test_no_index_of_deliveries_is_written_that_no_statement_reads(backend: Backend) -> None:
    if not isinstance(backend, SqliteBackend):
        pytest.skip("PostgreSQL has other indexes")
    rows = backend.open().db.execute("SELECT name FROM sqlite_master WHERE tbl_name = 'deliveries' AND sql IS NOT NULL")

    indexes = {name for (name,) in rows if name != "deliveries"}
    assert indexes == {"deliveries_log", "deliveries_seq", "deliveries_pending", "deliveries_dead"}


def test_what_waits_for_another_attempt_is_told_with_when_and_why(backend: Backend) -> None:
    store = opened(backend)
    lease = own(store, "crm")
    record(store, "ab")
    read_on(store, lease)
    first, second = claim(store, lease)
    settle(store, lease, first, "pending", due=NOW + 1680.0)
    settle(store, lease, second, "pending", due=NOW + 90.0)

    [one] = backend.look().sums.retrying()

    assert (one.subscription, one.deliveries, one.next, one.status) == ("crm", 2, NOW + 90.0, "200")
