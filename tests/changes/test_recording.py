"""What is recorded of one poll, and of what its unit vouches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.changes.comparison import PageComparison, RequestTimes, ShownObject, digest_of
from poller.changes.decision import Decision, Undecided
from poller.changes.recording import (
    appended,
    chain_digest,
    decided_members,
    growth_of,
    is_certain,
    poll_record,
    polled_unit,
    unchanged_unit,
    undecided_members,
)
from state.polls import PollRecord, Presence, Snapshot, UnitState

ASKED = RequestTimes(at=2.0, answered_at=3.0, order=4, answered_order=5)
FAILED = UnitState(
    id=1,
    key="page=1",
    position=b'{"page":1}',
    asked_at=1.0,
    answered_at=1.5,
    asked_order=1,
    digest=b"old",
    shown=7,
    validators=b"{}",
    next=b'{"page":2}',
    calls=2,
    failures=3,
    retry_at=9.0,
    error="503",
    claims=b"[]",
)


def make_snapshot(object_id: str, **fields: Any) -> Snapshot:
    return Snapshot(**{"object_id": object_id, "version": 1, "body": b"{}", "unit": 1, "seen_at": 1.0, **fields})


def test_a_unit_does_not_vouch_for_an_object_that_it_may_show_as_it_was_before():
    members = {b"a": "1", b"b": "2", b"c": "3"}
    decision = Decision(undecided=Undecided(digests={b"b": True, b"c": False}))  # 3 belongs to another unit
    unit = unchanged_unit(UnitState(id=1, key="list", position=b"{}"), RequestTimes(at=2.0, answered_at=3.0))
    comparison = PageComparison(members=members, fresh=())

    record = poll_record(unit, decided_members(decision, members), comparison, decision, 0, owns=True)

    assert record.members == {b"a": "1"}
    assert list(record.unsure) == ["2"]
    assert not record.stays_within_unit


def test_an_unchanged_poll_ends_the_failures_and_keeps_what_the_unit_showed():
    assert unchanged_unit(FAILED, ASKED) == UnitState(
        id=1,
        key="page=1",
        position=b'{"page":1}',
        asked_at=2.0,
        answered_at=3.0,
        asked_order=4,
        digest=b"old",
        shown=7,
        validators=b"{}",
        next=b'{"page":2}',
        calls=2,
        claims=b"[]",
    )


@pytest.mark.parametrize("digest", [b"new", None])
def test_a_changed_poll_ends_the_failures_and_replaces_what_the_unit_showed(digest: bytes | None):
    found = polled_unit(
        FAILED, ASKED, digest=digest, validators=b'{"etag":"x"}', shown=8, next=b"3", calls=4, claims=b"{}"
    )

    assert found == UnitState(
        id=1,
        key="page=1",
        position=b'{"page":1}',
        asked_at=2.0,
        answered_at=3.0,
        asked_order=4,
        digest=digest,
        shown=8,
        next=b"3",
        calls=4,
        claims=b"{}",
        validators=None if digest is None else b'{"etag":"x"}',  # else a 304 would hide what must be compared
    )


def test_a_unit_that_owns_its_objects_is_recorded_with_all_that_changed():
    decision = Decision(
        snapshots=[make_snapshot("1")], moved_here=["2"], moved_from={5: ["2"]}, events=[], undecided=Undecided()
    )
    comparison = PageComparison(members={b"a": "1", b"b": "2"}, fresh=(), missing=["3"], unsure=["4"])
    members = {b"a": "1", b"b": "2"}

    assert poll_record(FAILED, members, comparison, decision, 2, owns=True, are_new=True) == PollRecord(
        unit=FAILED,
        members=members,
        owns_objects=True,
        growth=2,
        snapshots=decision.snapshots,
        are_new=True,
        moved_here=["2"],
        moved_from={5: ["2"]},
        missing=["3"],
        unsure=["4"],
        events=[],
    )


def test_a_selection_has_no_members_and_leaves_nothing_unsure():
    comparison = PageComparison(members={b"a": "1"}, fresh=(), unsure=["4"])
    decision = Decision(undecided=Undecided(digests={b"a": True}))
    record = poll_record(FAILED, {b"a": "1"}, comparison, decision, 0, owns=False)

    assert (record.members, list(record.unsure), record.owns_objects, record.are_new) == ({}, [], False, False)


@pytest.mark.parametrize(
    ("fields", "certain"),
    [({}, True), ({"unsure": ["1"]}, False), ({"is_partial": True}, False), ({"missing": ["1"]}, True)],
)
def test_a_page_is_certain_where_each_object_is_identified(fields: dict[str, Any], certain: bool):
    assert is_certain(PageComparison(members={}, fresh=(), **fields)) is certain


def test_members_are_vouched_for_where_all_is_decided():
    members = {b"a": "1", b"b": "2"}

    assert decided_members(Decision(), members) == members
    assert undecided_members(Decision(), members) == []
    undecided = Decision(undecided=Undecided(digests={b"b": True, b"a": False}))
    assert decided_members(undecided, members) == {}
    assert undecided_members(undecided, members) == ["2"]


PRESENCES = st.sampled_from(Presence)


@given(
    before=st.dictionaries(st.sampled_from("123456"), PRESENCES),
    after=st.dictionaries(st.sampled_from("123456"), PRESENCES),
)
def test_an_endpoint_grows_by_what_exists_afterwards_and_did_not_before(
    before: dict[str, Presence], after: dict[str, Presence]
):
    known = {key: make_snapshot(key, presence=presence) for key, presence in before.items()}
    written = [make_snapshot(key, presence=presence) for key, presence in after.items()]

    def existing(presences: dict[str, Presence]) -> int:
        return sum(presence is not Presence.DELETED for presence in presences.values())

    assert growth_of(written, known) == existing({**before, **after}) - existing(before)


@given(st.lists(st.sampled_from("123456"), unique=True), st.sets(st.sampled_from("123456")))
def test_appended_is_what_is_new_after_the_last_known_object(ids: list[str], known: set[str]):
    members = {object_id.encode(): object_id for object_id in ids}
    fresh = [ShownObject(object_id, object_id.encode(), b"{}") for object_id in ids]
    found = appended(PageComparison(members=members, fresh=fresh), {key: make_snapshot(key) for key in known}, 1)

    last = max((ids.index(key) for key in known if key in ids), default=-1)
    assert found == set(ids[last + 1 :])


def test_a_known_object_that_is_shown_in_the_same_bytes_ends_what_is_appended():
    page = PageComparison(members={b"a": "1", b"b": "2", b"c": "3"}, fresh=[ShownObject("3", b"c", b"{}")])

    assert appended(page, {}, 1) == {"3"}


def test_nothing_is_appended_to_a_page_that_has_lost_what_it_showed_last():
    page = PageComparison(members={b"c": "3"}, fresh=[ShownObject("3", b"c", b"{}")], missing=["4"])
    after_own = PageComparison(members={b"a": "1", b"c": "3"}, fresh=page.fresh, missing=["0"])

    assert appended(page, {}, 1) == frozenset()
    assert appended(after_own, {}, 1) == {"3"}


@pytest.mark.parametrize(("unit", "found"), [(1, {"3"}), (2, set())], ids=["its own", "of another page"])
def test_after_a_loss_only_what_follows_an_object_of_the_page_itself_is_appended(unit: int, found: set[str]):
    fresh = [ShownObject("2", b"b", b"{}"), ShownObject("3", b"c", b"{}")]
    page = PageComparison(members={b"b": "2", b"c": "3"}, fresh=fresh, missing=["0"])

    assert appended(page, {"2": make_snapshot("2", unit=unit)}, 1) == found


def test_the_digest_of_a_chain_is_that_of_its_answers_in_order():
    assert chain_digest([b"a"]) == b"a"
    assert chain_digest([b"a", b"b"]) == digest_of(b"ab")
    assert chain_digest([b"b", b"a"]) != chain_digest([b"a", b"b"])
