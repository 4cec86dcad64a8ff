"""What a store keeps of endpoints: a recording is all or nothing, and one with another base is refused."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from state.errors import Conflict, LeaseLost
from state.leases import FOREVER, LOCAL, budget_lease
from state.notices import Notice
from state.polls import (
    EndpointSpec,
    EndpointState,
    Marks,
    PollRecord,
    Presence,
    Recorded,
    Recording,
    Snapshot,
    Sweep,
    UnitState,
    UnitTimes,
    Wanted,
)
from state.records import NewEvent
from state.store import Store
from tests.support.stores import Backend

SPEC = EndpointSpec(source="shop", name="items", shape="/items id=id", units=[("list", b"{}")])
NOW = 1_000.0


def snapshot(name: str, version: int = 0, **fields: Any) -> Snapshot:
    return structs.replace(
        Snapshot(object_id=name, version=version, body=b'{"id":"%b"}' % name.encode(), unit=1, seen_at=NOW), **fields
    )


def event(name: str, version: int) -> NewEvent:
    return NewEvent(
        id=f"{name}{version}",
        source="/sources/shop",
        type="shop.items.updated",
        subject=f"items/{name}",
        time=NOW,
        observed_after=None,
        raw=b"{}",
    )


class Items:
    """One endpoint with one unit, as whoever polls it knows it."""

    def __init__(self, backend: Backend) -> None:
        self.store: Store = backend.open()
        self.everything, self.run = backend.dump, backend.run
        store = self.store
        (self.lease,) = store.leases.take(LOCAL, [budget_lease("shop")], most=1, ttl=FOREVER)
        opened = store.polls.open(SPEC, now=NOW)
        self.state: EndpointState = opened.state
        self.unit: UnitState = opened.units[0]

    def recording(self, *polls: PollRecord, **fields: Any) -> Recording:
        state = self.state
        return Recording(
            endpoint=state.id, base=state.revision, sweep=state.sweep, at=NOW, **{"polls": polls, **fields}
        )

    def record(self, *polls: PollRecord, **fields: Any) -> Recorded:
        recorded = self.store.polls.record(self.lease, self.recording(*polls, **fields))
        self.state = self.store.polls.reopen(self.state.id).state
        return recorded

    def shown(self, *snapshots: Snapshot, events: tuple[NewEvent, ...] = (), growth: int = 0) -> PollRecord:
        members = {one.object_id.encode(): one.object_id for one in snapshots}
        unit = structs.replace(self.unit, asked_at=NOW, answered_at=NOW, asked_order=5, shown=len(members))
        return PollRecord(unit=unit, members=members, snapshots=snapshots, events=events, growth=growth)

    def version(self, name: str) -> int:
        return self.store.polls.snapshots(self.state.id, [name])[name].version


@pytest.fixture
def items(backend: Backend) -> Items:
    return Items(backend)


NOTICE = Notice(kind="endpoint.held", subject="endpoints/shop/items", summary="It is held.", detail={}, time=NOW)


def test_a_recording_counts_the_revision_and_is_refused_once_that_has_moved(items: Items) -> None:
    late = items.recording(items.shown(snapshot("a", 1)), marks=Marks(held=b"{}"), notices=[NOTICE])
    items.record(items.shown(snapshot("a"), snapshot("b"), growth=2))
    assert (items.state.revision, items.state.objects) == (1, 2)

    before = items.everything()
    with pytest.raises(Conflict):
        items.store.polls.record(items.lease, late)
    assert items.everything() == before


def test_an_older_epoch_can_neither_record_nor_spend(items: Items) -> None:
    items.record(items.shown(snapshot("a"), growth=1))
    (newer,) = items.store.leases.take(LOCAL, [budget_lease("shop")], most=1, ttl=FOREVER)
    before = items.everything()
    times = UnitTimes(unit=items.unit.id, asked_at=NOW + 9, answered_at=NOW + 9, asked_order=9)
    with pytest.raises(LeaseLost):
        items.record(items.shown(snapshot("a", 1)), marks=Marks(held=b"{}"), notices=[NOTICE])
    with pytest.raises(LeaseLost):
        items.store.calls.spend(items.lease, NOW, unchanged=[times])
    assert items.everything() == before
    assert items.store.calls.restore("shop", since=0.0, now=NOW) == []

    items.lease = newer
    items.record(items.shown(snapshot("a", 1)))
    assert items.store.calls.spend(newer, NOW) == 1


def test_a_recording_is_all_or_nothing(items: Items) -> None:
    items.record(items.shown(snapshot("a"), growth=1))
    before = items.everything()
    broken = structs.replace(snapshot("c"), version=None)  # the last thing that is written cannot be
    times = UnitTimes(unit=items.unit.id, asked_at=NOW + 9, answered_at=NOW + 9, asked_order=9)
    with pytest.raises(Exception, match=r"(?i)not.null"):
        items.record(
            items.shown(snapshot("a", 1), snapshot("b"), events=(event("a", 1),), growth=1),
            items.shown(broken),
            unchanged=[times],
            new_units=[("page=2", b"{}")],
            marks=Marks(ended=Sweep(ended_at=NOW, ended_order=6, steady=True)),
            notices=[NOTICE],
        )
    assert items.everything() == before


@pytest.mark.parametrize("others", [0, 1, 120])
def test_objects_taken_for_new_ones_are_written_as_all_others_and_refused_where_one_is_known(
    items: Items, others: int
) -> None:
    items.record(items.shown(snapshot("a", 3), snapshot("gone", 5, presence=Presence.DELETED, unit=None), growth=1))
    new = [snapshot(f"new{number}") for number in range(others)]
    for known in ("a", "gone"):
        before = items.everything()
        with pytest.raises(Conflict):
            items.record(structs.replace(items.shown(*new, snapshot(known), growth=others), are_new=True))
        assert items.everything() == before
    if new:
        items.record(structs.replace(items.shown(*new, growth=others), are_new=True))
        found = items.store.polls.snapshots(items.state.id, [one.object_id for one in new])
        assert list(found.values()) == [structs.replace(one, seen_sweep=items.state.sweep) for one in new]
    assert (items.state.objects, items.version("a"), items.version("gone")) == (1 + others, 3, 5)


def test_numbers_of_events_and_notices_are_those_of_their_polls(items: Items) -> None:
    first = items.shown(snapshot("a", 1), events=(event("a", 1),), growth=1)
    second = items.shown(snapshot("b", 2), events=(event("b", 1), event("b", 2)), growth=1)
    recorded = items.record(first, second, notices=[NOTICE])

    assert ([list(one) for one in recorded.events], list(recorded.notices)) == ([[1], [2, 3]], [4])
    assert not recorded.is_silent
    assert items.record(items.shown(snapshot("a", 1))).is_silent


def test_versions_never_go_back(items: Items) -> None:
    items.record(items.shown(snapshot("a", 3), growth=1))
    items.record(marks=Marks(rebaseline=(NOW + 1.0, 7)), new_units=[("list", b"{}")])
    assert (items.version("a"), items.state.baseline_before) == (3, NOW + 1.0)

    items.record(marks=Marks(ended=Sweep(ended_at=NOW, ended_order=8, steady=True)))  # it was not shown: gone, silently
    assert items.store.polls.snapshots(items.state.id, ["a"])["a"].presence is Presence.DELETED
    assert (items.version("a"), items.state.objects) == (3, 0)

    items.run("DELETE FROM events")
    assert items.store.polls.open(structs.replace(SPEC, shape="/other"), now=NOW).is_reshaped
    assert items.version("a") == 3


def test_what_is_known_are_the_members_and_the_snapshots_of_those_that_are_not_shown_as_they_were(items: Items) -> None:
    items.record(items.shown(snapshot("a"), snapshot("b"), growth=2))
    unit = items.unit.id

    (known,) = items.store.polls.known(items.state.id, [Wanted(unit=unit, digests={b"a"}, ids=["never"])])
    assert (known.members, list(known.snapshots)) == ({b"a": "a", b"b": "b"}, ["b"])

    (known,) = items.store.polls.known(items.state.id, [Wanted(unit=unit, ids=["a"], with_members=False)])
    assert (known.members, list(known.snapshots)) == ({}, ["a"])


def test_an_unchanged_unit_vouches_for_its_objects_by_its_own_time_with_whatever_is_written_next(items: Items) -> None:
    items.record(items.shown(snapshot("a"), growth=1))
    times = UnitTimes(unit=items.unit.id, asked_at=NOW + 9, answered_at=NOW + 10, asked_order=9)
    items.store.calls.spend(items.lease, NOW, unchanged=[times])

    assert items.store.polls.snapshots(items.state.id, ["a"])["a"].seen_at == NOW + 9
    assert items.store.polls.reopen(items.state.id).units[0].asked_order == 9


def test_deletions_of_the_last_hour_are_counted_in_the_log(items: Items) -> None:
    ages = {"a": 10.0, "b": 3000.0, "c": 4000.0, "d": -60.0}  # the last one was recorded by a clock ahead
    for name, age in ages.items():
        gone = NewEvent(
            id=name,
            source="/sources/shop",
            type="shop.items.deleted",
            subject=f"items/{name}",
            time=NOW - age,
            observed_after=None,
            raw=b"{}",
        )
        items.record(items.shown(snapshot(name), events=(gone,)))

    assert items.store.polls.open(SPEC, now=NOW).deletions == [3000.0, 10.0]


def test_learned_values_are_loaded_together_as_far_as_there_are_any(backend: Backend) -> None:
    learned = backend.open().learned
    learned.save({"planner:a": b"1", "health:a": b"", "planner:b": b"2"})

    assert learned.load_all(["planner:a", "health:a", "stall:a"]) == {"planner:a": b"1", "health:a": b""}
    assert learned.load_all([]) == {}
