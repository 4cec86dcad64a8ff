"""What the open tables show of each kind of row, in SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from state.sqlite.store import Store
from state.sqlite.views import DIALECT
from state.tables import open_tables

NOON = 1_790_000_000.0
ISO = "2026-09-21T14:13:{:06.3f}Z"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "poller.db", now=0.0)
    store.db.execute("PRAGMA synchronous = OFF")  # no machine goes down in a test
    yield store
    store.close()


def insert(store: Store, table: str, **row: Any) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    store.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [*row.values()])


def shown(store: Store, name: str) -> list[Mapping[str, Any]]:
    """The rows of a table, made for this query."""
    table = open_tables(DIALECT)[name]
    query, values = table.page(None, lambda place: f"?{place}")
    page = table.paged(store.db.execute(query, [*values, 100]), 100)
    assert page.next is None
    return [dict(zip(page.columns, row, strict=True)) for row in page.rows]


def at(seconds: float) -> str:
    return ISO.format(20.0 + seconds)


def an_event(store: Store, seq: int, data: bytes, **fields: Any) -> None:
    made = {"id": f"e{seq}", "source": "/sources/shop", "type": "shop.items.updated", "subject": "items/1"}
    insert(store, "events", seq=seq, **{**made, "time": NOON, "observed_after": NOON - 5.0, "data": data, **fields})


def test_events_are_shown_with_their_data_as_text_and_without_a_time_before_where_none_is_known(store: Store) -> None:
    an_event(store, 7, b'{"version":3,"object":{"id":1}}')
    an_event(store, 9, b"{}", observed_after=None)

    assert shown(store, "events") == [
        {
            "sequence": 7,
            "id": "e7",
            "time": at(0),
            "observedafter": at(-5),
            "source": "/sources/shop",
            "type": "shop.items.updated",
            "subject": "items/1",
            "version": 3,
            "data": '{"version":3,"object":{"id":1}}',
        },
        {
            "sequence": 9,
            "id": "e9",
            "time": at(0),
            "observedafter": None,
            "source": "/sources/shop",
            "type": "shop.items.updated",
            "subject": "items/1",
            "version": None,
            "data": "{}",
        },
    ]


def test_changes_are_shown_field_by_field_in_their_order(store: Store) -> None:
    an_event(store, 7, b'{"changes":[{"path":"/b","before":1,"after":[2]},{"path":"/a","after":null}]}')
    an_event(store, 8, b'{"object":{}}')
    told = {"sequence": 7, "time": at(0), "source": "/sources/shop", "type": "shop.items.updated", "subject": "items/1"}

    assert shown(store, "changes") == [
        {**told, "path": "/b", "before": "1", "after": "[2]"},
        {**told, "path": "/a", "before": None, "after": "null"},
    ]


def test_objects_are_shown_by_their_list_with_when_they_were_last_seen(store: Store) -> None:
    insert(store, "endpoints", id=3, source="shop", name="items", shape="", sweep_began=0.0)
    insert(store, "units", id=4, endpoint=3, key="page=1", position=b"{}", asked_at=NOON + 9.0)
    for number, (unit, presence, unlisted) in enumerate([(4, 0, 0), (None, 1, 1), (4, 2, 0)]):
        insert(
            store,
            "objects",
            endpoint=3,
            object=f"{number}",
            version=number,
            body=b'{"id":%d}' % number,
            unit=unit,
            seen_at=NOON + number,
            presence=presence,
            unlisted=unlisted,
        )
    of = {"source": "shop", "endpoint": "items"}

    assert shown(store, "objects") == [
        {**of, "id": "0", "version": 0, "presence": "present", "unlisted": 0, "seen_at": at(9), "object": '{"id":0}'},
        {**of, "id": "1", "version": 1, "presence": "suspect", "unlisted": 1, "seen_at": at(1), "object": '{"id":1}'},
        {**of, "id": "2", "version": 2, "presence": "deleted", "unlisted": 0, "seen_at": at(9), "object": '{"id":2}'},
    ]


@pytest.mark.parametrize(
    ("lane_due", "open_until", "due"),
    [(NOON + 3.0, None, 3), (NOON - 9.0, None, 1), (NOON + 3.0, NOON + 8.0, 8), (NOON + 3.0, NOON + 2.0, 3)],
)
def test_a_pending_delivery_is_due_as_its_lane_and_the_breaker_allow(
    store: Store, lane_due: float, open_until: float | None, due: float
) -> None:
    an_event(store, 7, b"{}")
    insert(store, "subscriptions", id=2, name="crm", state="active", cursor=7, open_until=open_until)
    made = {"subscription": 2, "seq": 7, "lane": "items/1", "attempts": 4, "status": "503"}
    insert(store, "deliveries", id=5, **made, origin="log", state="pending", queued_at=NOON + 1.0)
    insert(store, "deliveries", id=6, **made, origin="replay", state="dead", queued_at=NOON, finished_at=NOON + 2.0)
    insert(store, "lanes", subscription=2, lane="items/1", due=lane_due)
    of = {"subscription": "crm", "sequence": 7, "type": "shop.items.updated", "subject": "items/1"}
    of |= {"attempts": 4, "status": "503"}

    assert shown(store, "deliveries") == [
        {**of, "id": 5, "origin": "log", "state": "pending", "queued_at": at(1), "due": at(due), "finished_at": None},
        {**of, "id": 6, "origin": "replay", "state": "dead", "queued_at": at(0), "due": None, "finished_at": at(2)},
    ]


def test_a_delivery_whose_event_is_forgotten_is_shown_without_it(store: Store) -> None:
    insert(store, "subscriptions", id=2, name="crm", state="active", cursor=7)
    insert(store, "deliveries", id=5, subscription=2, seq=7, origin="log", lane="x", state="delivered", queued_at=NOON)
    [one] = shown(store, "deliveries")

    assert (one["sequence"], one["type"], one["subject"], one["state"]) == (7, None, None, "delivered")


def test_polls_are_shown_by_unit(store: Store) -> None:
    insert(store, "endpoints", id=3, source="shop", name="items", shape="", sweep_began=0.0)
    insert(
        store,
        "units",
        id=4,
        endpoint=3,
        key="page=1",
        position=b"{}",
        asked_at=NOON,
        answered_at=NOON + 1.0,
        shown=20,
        calls=2,
        failures=3,
        retry_at=NOON + 5.0,
        error="503",
    )
    insert(store, "units", id=5, endpoint=3, key="page=2", position=b"{}")
    of = {"source": "shop", "endpoint": "items"}
    asked = {"asked_at": at(0), "answered_at": at(1), "objects": 20, "calls": 2}
    never = {"asked_at": None, "answered_at": None, "objects": 0, "calls": 1}

    assert shown(store, "polls") == [
        {**of, "unit": "page=1", **asked, "failures": 3, "retry_at": at(5), "error": "503"},
        {**of, "unit": "page=2", **never, "failures": 0, "retry_at": None, "error": None},
    ]
