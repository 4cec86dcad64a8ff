"""Records of the state by themselves: rows as records, what a recording tells, whether books balance. No database."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.deliveries import Delivery, Job, SinkHealth, SubscriptionLedger, SubscriptionState
from state.errors import PollerError
from state.leases import LOCAL, Lease, budget_lease, subscription_lease
from state.notices import Notice
from state.operational import is_operational, notice_event
from state.place import DatabaseUrl
from state.polls import (
    Answering,
    EndpointState,
    FailedPoll,
    Marks,
    PollRecord,
    Presence,
    Recording,
    Snapshot,
    Suspect,
    Sweep,
    UnitState,
    UnitTimes,
)
from state.records import Event, source_uri
from state.rows import (
    ENDPOINT,
    EVENT,
    SUSPECT,
    UNIT,
    delivery_of,
    endpoint_of,
    event_of,
    job_of,
    marked,
    snapshot_of,
    subscription_of,
    suspect_of,
    unit_of,
)
from state.sqlite.views import TABLES
from state.tables import MOST_BYTES, NAMES, Table, number

EVENT_ROW = (7, "abc", "/sources/shop", "shop.items.created", "items/1", 5.0, 4.0, b"{}")
MADE = Event(
    seq=7,
    id="abc",
    source="/sources/shop",
    type="shop.items.created",
    subject="items/1",
    time=5.0,
    observed_after=4.0,
    raw=b"{}",
)

# Rows


def test_a_row_of_an_event_is_that_event():
    assert event_of(EVENT_ROW) == MADE
    assert len(EVENT.split(", ")) == len(EVENT_ROW)


def test_a_row_of_a_delivery_to_be_made_carries_its_event_and_what_was_tried():
    assert job_of((3, 5, 2, 1, None, *EVENT_ROW)) == Job(id=3, event=MADE, attempts=5, retries=2, refusals=1)


@pytest.mark.parametrize("presence", Presence)
def test_a_row_of_an_object_is_its_snapshot(presence: Presence):
    found = snapshot_of(("1", 3, b"{}", 9, 5.0, int(presence), 4))

    assert found == Snapshot(object_id="1", version=3, body=b"{}", unit=9, seen_at=5.0, presence=presence, seen_sweep=4)
    assert found.presence is presence


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ((90.0, 4, 2, 95.0), {"missing_at": 90.0, "missing_sweep": 4, "checks": 2, "denied_at": 95.0}),
        ((None, None, 0, None), {"missing_at": 0.0, "missing_sweep": 0, "checks": 0, "denied_at": None}),
    ],
)
def test_a_row_of_a_suspect_says_since_when_it_is_missing(row: tuple[Any, ...], fields: dict[str, Any]):
    snapshot = ("1", 3, b"{}", None, 5.0, 1, 4)

    assert suspect_of((*snapshot, *row)) == Suspect(snapshot=snapshot_of(snapshot), **fields)
    assert len(re.sub(r"CASE.*END", "denied_at", SUSPECT).split(", ")) == len(snapshot) + len(row)


def test_rows_of_endpoints_and_units_are_read_as_their_columns_are_named():
    endpoint = EndpointState(id=1, source="shop", name="items", shape="x", revision=2, objects=3, uncertain=b"{}")
    unit = UnitState(id=1, key="page=1", position=b"{}", asked_at=2.0, shown=3, error="503", claims=b"[]")

    assert endpoint_of([getattr(endpoint, name) for name in ENDPOINT.split(", ")]) == endpoint
    assert unit_of([getattr(unit, name) for name in UNIT.split(", ")]) == unit
    with pytest.raises(ValueError, match="shorter"):
        unit_of([1, "page=1"])
    with pytest.raises(ValueError, match="shorter"):
        endpoint_of([1, "shop"])


SUBSCRIPTION_ROW = ("crm", "active", "", 40, 5, 2, None, 10.0, "503", 1, "no such field", 3, 99.0)


@pytest.mark.parametrize(
    ("state", "open_until", "shown"),
    [
        ("active", None, "active"),
        ("active", 99.0, "failing"),
        ("paused", 99.0, "paused"),
        ("disabled", None, "disabled"),
    ],
)
def test_a_subscription_whose_breaker_is_open_is_shown_as_failing(state: str, open_until: float | None, shown: str):
    row = list(SUBSCRIPTION_ROW)
    row[1], row[6] = state, open_until

    assert subscription_of(row, 50) == SubscriptionState(
        name="crm",
        state=shown,
        reason="",
        cursor=40,
        lag=15,
        pending=5,
        dead=3,
        health=SinkHealth(failures=2, open_until=open_until, wait=10.0, last_error="503"),
        filter_errors=1,
        filter_error="no such field",
        next_probe=99.0,
    )


@pytest.mark.parametrize(("last", "lag"), [(40, 5), (41, 6), (39, 5), (0, 5)])
def test_a_lag_is_what_waits_and_what_is_not_read(last: int, lag: int):
    assert subscription_of(SUBSCRIPTION_ROW, last).lag == lag


@pytest.mark.parametrize(("error", "shown"), [("503", "503"), (None, "no such field"), ("", "no such field")])
def test_the_last_error_is_that_of_the_sink_or_else_of_the_filter(error: str | None, shown: str):
    row = list(SUBSCRIPTION_ROW)
    row[8] = error

    assert subscription_of(row, 50).last_error == shown


@pytest.mark.parametrize("event", [("abc", "shop.items.created", "/sources/shop", "items/1"), (None,) * 4])
def test_a_row_of_a_delivery_is_shown_also_where_its_event_is_forgotten(event: tuple[str | None, ...]):
    id_, type_, source, subject = (text or "" for text in event)
    row = (3, "crm", 7, "log", "pending", *event, 2, 1.0, 9.0, 8.0, "503", 4)

    assert delivery_of(row) == Delivery(
        id=3,
        subscription="crm",
        seq=7,
        origin="log",
        state="pending",
        event_id=id_,
        event_type=type_,
        event_source=source,
        event_subject=subject,
        attempts=2,
        queued_at=1.0,
        due=9.0,
        finished_at=8.0,
        status="503",
        digest=4,
    )


# What a recording changes, and whom it tells


@pytest.mark.parametrize(
    ("marks", "columns"),
    [
        (Marks(), {}),
        (Marks(begin_sweep=(5.0, 7)), {"sweep_began": 5.0, "sweep_order": 7}),
        (Marks(begin_sweep=(0.0, 0)), {"sweep_began": 0.0, "sweep_order": 0}),
        (Marks(tail_asked_at=None), {"tail_asked_at": None}),
        (Marks(tail_asked_at=6.0, since_at=8.0), {"tail_asked_at": 6.0, "since_at": 8.0}),
        (Marks(held=b"why", accepted=None), {"held": b"why", "accepted": None}),
        (Marks(held=None), {"held": None}),
    ],
)
def test_marks_set_the_columns_that_they_name_and_no_others(marks: Marks, columns: dict[str, Any]):
    assert marked(marks) == columns
    assert marks.is_set is bool(columns)


SWEEP = Sweep(ended_at=1.0, ended_order=2, steady=True)


@pytest.mark.parametrize(
    ("fields", "silent"),
    [
        ({}, True),
        ({"unchanged": [UnitTimes(unit=1, asked_at=1.0, answered_at=2.0, asked_order=3)]}, True),
        ({"polls": [PollRecord(growth=1)]}, True),
        ({"polls": [PollRecord(), PollRecord(events=[MADE])]}, False),
        ({"failures": [FailedPoll(unit=1, failures=1, retry_at=1.0, error="503")]}, False),
        ({"answering": [Answering(object_id="1", checks=1)]}, False),
        ({"notices": [Notice(kind="gap", subject="sources/shop", summary="", detail={}, time=1.0)]}, False),
        ({"marks": Marks(ended=SWEEP)}, False),
        ({"marks": Marks(begin_sweep=(1.0, 2))}, False),
        ({"marks": Marks(rebaseline=(1.0, 2))}, False),
        ({"marks": Marks(held=None)}, False),
        ({"marks": Marks(accepted=b"{}")}, False),
        ({"marks": Marks(tail_asked_at=1.0, since_at=1.0)}, True),
        ({"dropped": ["page=9"], "new_units": [("page=2", b"{}")]}, True),
    ],
)
def test_a_recording_is_silent_where_nobody_is_told_of_it(fields: dict[str, Any], silent: bool):
    assert Recording(endpoint=1, base=2, sweep=3, at=4.0, **fields).is_silent is silent


def test_an_endpoint_grows_by_what_each_poll_adds():
    polls = [PollRecord(growth=5), PollRecord(growth=-2), PollRecord()]

    assert Recording(endpoint=1, base=2, sweep=3, at=4.0, polls=polls).growth == 3


@pytest.mark.parametrize(
    ("fields", "stays"),
    [
        ({}, True),
        ({"snapshots": [snapshot_of(("1", 3, b"{}", 9, 5.0, 0, 4))], "events": [MADE], "growth": 1}, True),
        ({"moved_here": ["1"]}, False),
        ({"moved_from": {2: ["1"]}}, False),
        ({"missing": ["1"]}, False),
        ({"unsure": ["1"]}, False),
    ],
)
def test_a_poll_stays_within_its_unit_unless_objects_move_or_are_missing(fields: dict[str, Any], stays: bool):
    assert PollRecord(**fields).stays_within_unit is stays


# The books


PARTS = ("delivered", "pending", "dead", "not_matching", "dropped")


@given(st.tuples(*[st.integers(0, 50)] * 5), st.integers(-2, 2), st.lists(st.integers(), max_size=1))
def test_books_balance_where_both_sides_are_equal_and_nothing_is_missing_or_stray(
    parts: tuple[int, ...], off: int, odd: list[int]
):
    sides: dict[str, Any] = {
        "subscription": "crm",
        "unread": 9,
        "missing": (),
        "stray": (),
        **dict(zip(PARTS, parts, strict=True)),
    }

    assert SubscriptionLedger(events=sum(parts) + off, **sides).balanced is (off == 0)
    assert SubscriptionLedger(events=sum(parts), **{**sides, "stray": tuple(odd)}).balanced is (not odd)
    assert SubscriptionLedger(events=sum(parts), **{**sides, "missing": tuple(odd)}).balanced is (not odd)


# Names and places


def test_a_lease_is_named_after_what_it_owns():
    lease = Lease(name=budget_lease("a/b"), worker=LOCAL, epoch=1, until=5.0)

    assert (lease.name, lease.subject) == ("budget/a/b", "a/b")
    assert subscription_lease("crm") == "subscription/crm"
    assert source_uri("acme") == "/sources/acme"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://poller:secret@db.example/poller", "postgresql://poller:***@db.example/poller"),
        ("postgresql://poller@db.example:5432/poller", "postgresql://poller@db.example:5432/poller"),
        ("postgresql://db.example/p?user=x&password=secret&a=b", "postgresql://db.example/p?user=x&password=***&a=b"),
        ("postgresql:///poller", "postgresql:///poller"),
        ("postgresql://poller:a/b@db.example/poller", "postgresql://poller:***@db.example/poller"),
        ("postgresql://poller:a:b@db.example/poller", "postgresql://poller:***@db.example/poller"),
        ("postgresql://poller:a@b@db.example/poller", "postgresql://poller:***@db.example/poller"),
        ("postgresql://poller:a://b@db.example/poller", "postgresql://poller:***@db.example/poller"),
        (
            "postgresql://poller:a@db.example:5432/p?password=b",
            "postgresql://poller:***@db.example:5432/p?password=***",
        ),
        ("postgresql://db.example/p?password=b/c:d", "postgresql://db.example/p?password=***"),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown: str):
    assert str(DatabaseUrl(url)) == shown
    assert repr(DatabaseUrl(url)) == f"DatabaseUrl({shown})"
    assert DatabaseUrl(url).url == url


# Notices as events


def notice(**fields: Any) -> Notice:
    told = {"kind": "gap", "subject": "sources/shop", "summary": "A gap.", "detail": {"b": 1, "a": 2}, "time": 9.0}
    return Notice(**{**told, **fields})


def test_a_notice_is_an_event_of_poller_itself():
    event = notice_event(notice(), 3)

    assert (event.source, event.type, event.subject, event.time) == ("/poller", "poller.gap", "sources/shop", 9.0)
    assert event.raw == b'{"detail":{"a":2,"b":1},"summary":"A gap.","version":3}'
    assert event.observed_after is None
    assert is_operational(event)
    assert not is_operational(MADE)


@pytest.mark.parametrize(
    ("other", "version", "same"),
    [
        (notice(), 3, True),
        (notice(detail={"a": 2, "b": 1}), 3, True),
        (notice(time=10.0, summary="Another sentence."), 3, True),  # said again after a crash
        (notice(), 4, False),
        (notice(kind="source.failing"), 3, False),
        (notice(subject="sources/other"), 3, False),
        (notice(detail={"a": 3}), 3, False),
    ],
)
def test_a_notice_has_an_id_made_of_what_it_says(other: Notice, version: int, same: bool):
    found = notice_event(other, version).id

    assert (found == notice_event(notice(), 3).id) is same
    assert re.fullmatch("[0-9a-f]{32}", found)


# Open tables


TWO_KEYS = Table(columns=(("id", "t.id"), ("text", "t.t")), rows="t", keys=(("t.a", number), ("t.b", str)))


def test_a_table_is_selected_with_its_names():
    assert TWO_KEYS.names == ("id", "text")
    assert TWO_KEYS.selected == "SELECT t.id AS id, t.t AS text FROM t"


def test_a_page_of_a_table_begins_after_the_last_key_of_the_one_before():
    assert TWO_KEYS.page(None, "${}".format) == ("SELECT t.a, t.b, t.id, t.t FROM t ORDER BY t.a, t.b LIMIT $1", [])
    assert TWO_KEYS.page("7/a/b", "${}".format) == (
        "SELECT t.a, t.b, t.id, t.t FROM t WHERE (t.a, t.b) > ($1, $2) ORDER BY t.a, t.b LIMIT $3",
        [7, "a/b"],
    )


@pytest.mark.parametrize("after", ["", "7", "x/a", "9223372036854775808/a", "-9223372036854775808/a"])
def test_a_place_that_no_page_has_named_is_refused(after: str):
    with pytest.raises(PollerError, match="is not a position in this table") as refused:
        TWO_KEYS.page(after, "${}".format)
    assert refused.value.hint == "give the `next` of a page"


def test_a_place_of_any_length_is_refused_in_a_hundred_characters():
    with pytest.raises(PollerError) as refused:
        TWO_KEYS.page("x" * 1000, "${}".format)
    assert str(refused.value) == repr("x" * 100) + " is not a position in this table"


@pytest.mark.parametrize("text", ["9223372036854775807", "-9223372036854775807", "0"])
def test_a_number_of_64_bits_is_a_place(text: str):
    assert number(text) == int(text)


@pytest.mark.parametrize(
    ("rows", "limit", "kept", "after"),
    [
        ([(1, "a", 5, "x"), (2, "b", 6, "y")], 3, [(5, "x"), (6, "y")], None),
        ([(1, "a", 5, "x"), (2, "b", 6, "y")], 2, [(5, "x"), (6, "y")], "2/b"),
        ([(1, "a", 5, "x"), (2, "b", 6, "y")], 1, [(5, "x")], "1/a"),
        ([], 1, [], None),
        ([(1, "", 5, "x" * MOST_BYTES), (2, "", 6, "y")], 9, [(5, "x" * MOST_BYTES)], "1/"),
        (
            [(1, "", 5, "x" * (MOST_BYTES - 1)), (2, "", 6, None), (3, "", 7, "z"), (4, "", 8, "-")],
            9,
            [(5, "x" * (MOST_BYTES - 1)), (6, None), (7, "z")],
            "3/",
        ),
    ],
)
def test_a_page_ends_at_its_limit_or_where_it_becomes_large(
    rows: list[Any], limit: int, kept: list[Any], after: str | None
):
    found = TWO_KEYS.paged(iter(rows), limit)

    assert (list(found.rows), found.next, found.columns) == (kept, after, ("id", "text"))


def test_each_open_table_has_as_many_keys_as_its_rows_need_to_be_told_apart():
    assert tuple(TABLES) == NAMES == ("events", "changes", "objects", "deliveries", "polls")
    keys = {name: [how for how, _ in table.keys] for name, table in TABLES.items()}

    assert {name: len(of) for name, of in keys.items()} == {
        "events": 1,
        "changes": 2,
        "objects": 2,
        "deliveries": 1,
        "polls": 1,
    }
