"""The open tables: what is kept, as others can read it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from state.deliveries import Registration
from state.errors import PollerError
from state.records import NewEvent
from state.store import Reader
from tests.store.test_delivery_contract import NOW as DELIVERED_AT
from tests.store.test_delivery_contract import claim, own, read_on, settle
from tests.store.test_polls import Items, event, snapshot
from tests.support.stores import Backend

BIG = b'{"version":2,"object":{"id":"a","n":123456789012345678901234567890},"changes":[%b,%b]}' % (
    b'{"path":"/n","before":1.0,"after":123456789012345678901234567890}',
    b'{"path":"/name","after":null}',
)


def kept(backend: Backend) -> Reader:
    """Two objects, two events, one delivery that has failed once."""
    items = Items(backend)
    changed = _big()
    items.record(items.shown(snapshot("a", 2), snapshot("b"), events=(event("a", 1), changed), growth=2))
    store = items.store
    store.deliveries.register([Registration(name="crm", start="beginning")], now=DELIVERED_AT)
    lease = own(store, "crm")
    read_on(store, lease)
    [one] = claim(store, lease)
    settle(store, lease, one, "pending", jobs=1, due=DELIVERED_AT + 60)
    return backend.look()


def rows(reader: Reader, name: str, *, limit: int = 100, after: str | None = None) -> list[dict[str, Any]]:
    page = reader.tables.page(name, after=after, limit=limit)
    return [dict(zip(page.columns, row, strict=True)) for row in page.rows]


def test_every_table_shows_what_is_kept_with_times_and_json_as_text(backend: Backend) -> None:
    reader = kept(backend)

    assert [(one["sequence"], one["time"], one["version"]) for one in rows(reader, "events")] == [
        (1, "1970-01-01T00:16:40.000Z", None),
        (2, "1970-01-01T00:16:40.000Z", 2),
    ]
    assert [(one["path"], one["before"], one["after"]) for one in rows(reader, "changes")] == [
        ("/n", "1.0", "123456789012345678901234567890"),
        ("/name", None, "null"),
    ]
    assert [(one["id"], one["presence"], one["object"]) for one in rows(reader, "objects")] == [
        ("a", "present", '{"id":"a"}'),
        ("b", "present", '{"id":"b"}'),
    ]
    delivery = rows(reader, "deliveries")[0]
    assert (delivery["subscription"], delivery["state"], delivery["attempts"]) == ("crm", "pending", 1)
    assert delivery["due"] == "2023-11-14T22:14:20.000Z"
    [poll] = rows(reader, "polls")
    assert (poll["source"], poll["unit"], poll["objects"], poll["error"]) == ("shop", "list", 2, None)


@pytest.mark.parametrize("name", ["events", "changes", "objects", "deliveries"])
def test_pages_follow_each_other_without_a_gap(backend: Backend, name: str) -> None:
    reader = kept(backend)
    found, after = [], None
    while True:
        page = reader.tables.page(name, after=after, limit=1)
        found += page.rows
        after = page.next
        if after is None:
            break

    assert list(map(tuple, found)) == list(map(tuple, reader.tables.page(name, after=None, limit=100).rows))
    assert len(found) == 2


def test_a_page_ends_where_it_becomes_large(backend: Backend) -> None:
    store = backend.open()
    data = orjson.dumps({"object": "x" * 400_000})
    store.log.append([NewEvent(**{**_fields(), "id": f"{n}", "raw": data}) for n in range(3)])

    page = backend.look().tables.page("events", after=None, limit=100)

    assert (len(page.rows), page.next) == (2, "2")


@pytest.mark.parametrize("after", ["", "x", "1/2", "99999999999999999999", "1e3"])
def test_what_is_no_place_is_refused(backend: Backend, after: str) -> None:
    backend.open()
    with pytest.raises(PollerError, match="is not a position in this table"):
        backend.look().tables.page("events", after=after, limit=1)


def _fields() -> dict[str, Any]:
    one = event("a", 2)
    names = ("id", "source", "type", "subject", "time", "observed_after", "raw")
    return {name: getattr(one, name) for name in names}


def _big() -> NewEvent:
    return NewEvent(**{**_fields(), "raw": BIG})
