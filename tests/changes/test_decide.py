"""What one poll decides about each object, from what it shows and what is known: no state, no server, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.changes.comparison import PageComparison, RequestTimes, ShownObject
from poller.changes.decide import change_on_its_own, decide, delete, is_known
from poller.changes.decision import Context, Decision, LatestChanges
from poller.changes.endpoint_rules import DeletionRules, EndpointRules
from poller.changes.guards import Shape, ShapeShift
from poller.changes.page import compare
from poller.documents.diff import compile_rules, dump, parse
from poller.events.filters import ObjectRule
from poller.sources.protocol import Endpoint
from state.polls import EndpointState, Presence, Snapshot, Suspect
from state.records import NewEvent

ASKED = RequestTimes(at=100.0, answered_at=101.0, order=7, answered_order=8)
OURS, OTHER = 1, 2  # units
PRESENT, SUSPECT, DELETED = Presence.PRESENT, Presence.SUSPECT, Presence.DELETED
SOFT = DeletionRules(soft=ObjectRule("object.gone == true"))


def make_rules(*, ignore: Sequence[str] = (), **fields: Any) -> EndpointRules:
    endpoint = Endpoint(name="items")
    return EndpointRules(source="shop", namespace="acme", endpoint=endpoint, fields=compile_rules(ignore), **fields)


def make_context(*, baseline_before: float | None = None, sweep: int = 4, **fields: Any) -> Context:
    state = EndpointState(id=1, source="shop", name="items", shape="", sweep=sweep, baseline_before=baseline_before)
    return Context(**{"state": state, "unit": OURS, "asked": ASKED, **fields})


def make_snapshot(value: Mapping[str, Any], **fields: Any) -> Snapshot:
    known = {"object_id": str(value["id"]), "version": 3, "body": dump(value), "unit": OURS, "seen_at": 50.0}
    return Snapshot(**{**known, **fields})


def page(*values: Mapping[str, Any]) -> PageComparison:
    raw = msgspec.json.decode(msgspec.json.encode(values), type=list[msgspec.Raw])
    return compare(make_rules(), raw, {})


def decided(
    *shown: Mapping[str, Any], known: Sequence[Snapshot] = (), rules: EndpointRules | None = None, **context: Any
) -> Decision:
    by_id = {one.object_id: one for one in known}
    return decide(rules or make_rules(), page(*shown), by_id, make_context(**context))


def told(event: NewEvent) -> tuple[str, str, int]:
    """What an event says in short: its type's last word, its object, and the version."""
    return event.type.rpartition(".")[2], event.subject, parse(event.raw)["version"]


# First sights


def test_a_first_sweep_stores_each_object_as_version_0_and_tells_nothing():
    found = decided({"id": 1}, {"id": 2, "a": 1}, baseline_before=90.0)

    assert found.snapshots == [
        Snapshot(object_id="1", version=0, body=b'{"id":1}', unit=OURS, seen_at=100.0),
        Snapshot(object_id="2", version=0, body=b'{"id":2,"a":1}', unit=OURS, seen_at=100.0),
    ]
    assert (found.events, found.changed, found.created) == ([], 0, 0)


def test_a_first_sweep_is_as_silent_where_some_objects_are_known_already():
    found = decided({"id": 1}, {"id": 2}, known=[make_snapshot({"id": 1})], baseline_before=90.0)

    assert found.events == []
    assert [(one.object_id, one.version) for one in found.snapshots] == [("1", 3), ("2", 0)]


@pytest.mark.parametrize("known", [[], [make_snapshot({"id": 9})]])
def test_a_first_sweep_that_is_to_be_told_is_told_without_a_time_before(known: list[Snapshot]):
    rules = make_rules(baseline="emit")
    found = decided({"id": 1, "a": 1}, known=known, rules=rules, baseline_before=90.0, absent_since=80.0)

    [event] = found.events
    assert told(event) == ("created", "items/1", 1)
    assert (event.observed_after, event.time) == (None, 101.0)


def test_a_new_object_is_told_as_created_with_all_that_it_shows():
    found = decided({"id": 1, "a": [1, 2]}, absent_since=80.0)

    [event] = found.events
    assert (event.source, event.type, event.subject) == ("/sources/shop", "acme.items.created", "items/1")
    assert (event.observed_after, event.time) == (80.0, 101.0)
    assert parse(event.raw) == {"object": {"id": 1, "a": [1, 2]}, "version": 1}
    assert found.snapshots == [Snapshot(object_id="1", version=1, body=b'{"id":1,"a":[1,2]}', unit=OURS, seen_at=100.0)]
    assert (found.changed, found.created, found.updates) == (1, 1, [])


@pytest.mark.parametrize(
    ("times", "after"),
    [
        ({}, None),
        ({"absent_since": 80.0, "tail_since": 90.0}, 80.0),  # not at the end of the list
        ({"absent_since": 80.0, "tail_since": 90.0, "appended": frozenset("1")}, 90.0),
        ({"absent_since": 95.0, "tail_since": 90.0, "appended": frozenset("1")}, 95.0),
        ({"tail_since": 90.0, "appended": frozenset("1")}, 90.0),
        ({"absent_since": 101.0}, 101.0),
        ({"absent_since": 101.5}, None),  # the clock was set back since
    ],
)
def test_a_new_object_did_not_exist_at_the_latest_time_that_is_certain(times: dict[str, Any], after: float | None):
    [event] = decided({"id": 1}, **times).events

    assert event.observed_after == after


# Edits


def test_an_edit_is_one_event_with_what_was_and_what_is():
    old = make_snapshot({"id": 1, "a": 1, "b": 2})
    found = decided({"id": 1, "a": 5, "c": None}, known=[old])

    [event] = found.events
    assert told(event) == ("updated", "items/1", 4)
    assert (event.observed_after, event.time) == (50.0, 101.0)
    assert parse(event.raw) == {
        "object": {"id": 1, "a": 5, "c": None},
        "version": 4,
        "changes": [
            {"path": "/a", "before": 1, "after": 5},
            {"path": "/b", "before": 2},
            {"path": "/c", "after": None},
        ],
    }
    assert found.snapshots == [
        Snapshot(object_id="1", version=4, body=b'{"id":1,"a":5,"c":null}', unit=OURS, seen_at=100.0)
    ]
    assert [[field.path for field in fields] for fields in found.updates] == [["/a", "/b", "/c"]]
    assert (found.changed, found.created, found.moves) == (1, 0, False)


def test_an_edit_of_more_fields_than_are_listed_says_so():
    old = make_snapshot({"id": 1} | {f"f{n}": 0 for n in range(200)})
    [event] = decided({"id": 1} | {f"f{n}": 1 for n in range(200)}, known=[old]).events

    assert parse(event.raw)["truncated"] is True
    assert "truncated" not in parse(decided({"id": 1, "a": 1}, known=[make_snapshot({"id": 1})]).events[0].raw)


@pytest.mark.parametrize(("seen_at", "after"), [(101.0, 101.0), (101.5, None)])
def test_an_edit_seen_after_the_clock_was_set_back_has_no_time_before(seen_at: float, after: float | None):
    [event] = decided({"id": 1, "a": 1}, known=[make_snapshot({"id": 1}, seen_at=seen_at)]).events

    assert event.observed_after == after


@pytest.mark.parametrize("shown", [{"id": 1, "a": 1.0}, {"a": 1, "id": 1}, {"id": 1, "a": 1}])
def test_the_same_value_in_other_bytes_is_no_edit(shown: dict[str, Any]):
    found = decided(shown, known=[make_snapshot({"id": 1, "a": 1})])

    assert (found.events, found.snapshots, found.moved_here, found.changed) == ([], [], [], 0)


def test_an_ignored_field_is_no_reason_for_an_event_and_is_sent_with_the_next_one():
    rules, known = make_rules(ignore=["/seen"]), [make_snapshot({"id": 1, "seen": 1, "a": 1})]

    assert decided({"id": 1, "seen": 2, "a": 1}, known=known, rules=rules).events == []
    [event] = decided({"id": 1, "seen": 2, "a": 2}, known=known, rules=rules).events
    assert parse(event.raw)["object"] == {"id": 1, "seen": 2, "a": 2}
    assert [one["path"] for one in parse(event.raw)["changes"]] == ["/a"]


def test_an_event_that_a_plugin_drops_uses_up_no_version():
    rules, known = make_rules(transform=lambda event: None), make_snapshot({"id": 1})
    new, edited = decided({"id": 2}, rules=rules), decided({"id": 1, "a": 1}, known=[known], rules=rules)

    assert [(one.version, one.body) for one in new.snapshots] == [(0, b'{"id":2}')]
    assert [(one.version, one.body) for one in edited.snapshots] == [(3, b'{"id":1,"a":1}')]
    assert new.events == edited.events == []
    assert new.changed == edited.changed == 1


def test_an_event_is_recorded_as_plugins_have_made_it():
    rules = make_rules(transform=lambda event: remade(event, raw=b"{}"))

    assert [event.raw for event in decided({"id": 2}, rules=rules).events] == [b"{}"]


def remade(event: NewEvent, *, raw: bytes) -> NewEvent:
    return NewEvent(**{**vars(event), "raw": raw})


VALUES = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.integers(0, 2) | st.lists(st.integers(0, 1), max_size=2)
)


@settings(max_examples=60, deadline=None)
@given(known=st.dictionaries(st.integers(1, 6), VALUES, max_size=6), shown=st.dictionaries(st.integers(1, 6), VALUES))
def test_every_object_that_differs_is_told_once_with_the_next_version_and_no_other_is(
    known: dict[int, dict[str, Any]], shown: dict[int, dict[str, Any]]
):
    found = decided(
        *({"id": key, **value} for key, value in shown.items()),
        known=[make_snapshot({"id": key, **value}, version=key) for key, value in known.items()],
    )

    expected = {f"items/{key}": ("created", 1) for key in shown.keys() - known.keys()} | {
        f"items/{key}": ("updated", key + 1) for key in shown.keys() & known.keys() if shown[key] != known[key]
    }
    assert {subject: (kind, version) for kind, subject, version in map(told, found.events)} == expected
    assert len(found.events) == found.changed == len(expected)
    assert {one.object_id: one.version for one in found.snapshots} == {
        subject.removeprefix("items/"): version for subject, (_, version) in expected.items()
    }


# While a baseline is under way


@pytest.mark.parametrize(
    ("baseline", "fields", "is_told"),
    [
        ("silent", {"seen_sweep": 3}, False),
        ("silent", {"seen_sweep": 4}, True),  # this very sweep has shown it before
        ("emit", {"seen_sweep": 3, "seen_at": 89.0}, False),
        ("emit", {"seen_sweep": 3, "seen_at": 90.0}, True),  # told since the baseline began
        ("emit", {"seen_sweep": 4, "seen_at": 89.0}, True),
    ],
)
def test_a_known_object_is_silent_until_the_baseline_has_shown_it_once(
    baseline: str, fields: dict[str, Any], is_told: bool
):
    old = make_snapshot({"id": 1}, **fields)
    found = decided({"id": 1, "a": 1}, known=[old], rules=make_rules(baseline=baseline), baseline_before=90.0)

    assert [one.version for one in found.snapshots] == [4 if is_told else 3]
    assert [told(event) for event in found.events] == ([("updated", "items/1", 4)] if is_told else [])


def test_a_baseline_writes_what_it_sees_unchanged_and_whose_it_is():
    found = decided({"id": 1}, known=[make_snapshot({"id": 1}, unit=OTHER)], baseline_before=90.0)

    assert found.snapshots == [make_snapshot({"id": 1}, unit=OURS, seen_at=100.0)]
    assert found.moved_from == {OTHER: ["1"]}


# Deletions, and what comes back


@pytest.mark.parametrize("same", [True, False])
def test_an_object_that_was_told_as_deleted_and_is_shown_again_is_created_anew(same: bool):
    old = make_snapshot({"id": 1, "a": 1}, presence=DELETED, unit=None)
    found = decided({"id": 1, "a": 1 if same else 2}, known=[old])

    [event] = found.events
    assert told(event) == ("created", "items/1", 4)
    assert parse(event.raw) == {"object": {"id": 1, "a": 1 if same else 2}, "version": 4}
    assert event.observed_after == 50.0
    assert [(one.version, one.presence, one.unit) for one in found.snapshots] == [(4, PRESENT, OURS)]
    assert (found.created, found.relisted, found.moved_from) == (1, ["1"], {})


@pytest.mark.parametrize(
    ("version", "unit", "after"),
    [(0, None, None), (1, None, 50.0), (0, OURS, 50.0)],
    ids=["never shown after its baseline", "told before", "shown before"],
)
def test_an_object_that_only_a_baseline_missed_is_created_without_a_time_before(
    version: int, unit: int | None, after: float | None
):
    old = make_snapshot({"id": 1, "a": 1}, presence=DELETED, unit=unit, version=version)
    [event] = decided({"id": 1, "a": 2}, known=[old]).events

    assert (told(event), event.observed_after) == (("created", "items/1", version + 1), after)


def test_an_object_that_was_marked_as_deleted_and_is_not_any_more_is_not_relisted():
    old = make_snapshot({"id": 1, "gone": True}, presence=DELETED)
    found = decided({"id": 1, "gone": False}, known=[old], rules=make_rules(deletion=SOFT))

    assert [told(event) for event in found.events] == [("created", "items/1", 4)]
    assert (found.created, found.relisted) == (1, [])


def test_an_object_that_no_mark_had_deleted_is_relisted_whatever_marks_there_are():
    old = make_snapshot({"id": 1, "gone": False}, presence=DELETED, unit=None)
    found = decided({"id": 1, "gone": False}, known=[old], rules=make_rules(deletion=SOFT))

    assert found.relisted == ["1"]


def test_an_object_that_is_marked_as_deleted_when_first_seen_is_stored_and_not_told():
    found = decided({"id": 1, "gone": True}, rules=make_rules(deletion=SOFT))

    assert [(one.version, one.presence) for one in found.snapshots] == [(0, DELETED)]
    assert (found.events, found.created) == ([], 0)


def test_an_object_that_is_marked_as_deleted_is_told_as_deleted_as_it_is_shown():
    old = make_snapshot({"id": 1, "gone": False, "a": 1})
    found = decided({"id": 1, "gone": True, "a": 2}, known=[old], rules=make_rules(deletion=SOFT))

    [event] = found.events
    assert told(event) == ("deleted", "items/1", 4)
    assert parse(event.raw) == {"object": {"id": 1, "gone": True, "a": 2}, "version": 4}
    assert [(one.version, one.presence, one.unit) for one in found.snapshots] == [(4, DELETED, OURS)]
    assert (found.created, found.updates, found.relisted) == (0, [], [])


@pytest.mark.parametrize(
    ("shown", "fields", "stored"),
    [
        ({"id": 1, "gone": True, "a": 1}, {}, []),
        ({"id": 1, "gone": True, "a": 2}, {}, [(3, DELETED, OURS)]),
        ({"id": 1, "gone": True, "a": 1}, {"unit": OTHER}, [(3, DELETED, OURS)]),
        ({"id": 1, "gone": True, "a": 1}, {"unit": None}, [(3, DELETED, OURS)]),
    ],
)
def test_an_object_that_stays_marked_as_deleted_is_told_no_more(
    shown: dict[str, Any], fields: dict[str, Any], stored: list[Any]
):
    old = make_snapshot({"id": 1, "gone": True, "a": 1}, presence=DELETED, **fields)
    found = decided(shown, known=[old], rules=make_rules(deletion=SOFT))

    assert found.events == []
    assert [(one.version, one.presence, one.unit) for one in found.snapshots] == stored
    assert found.moved_from == ({OTHER: ["1"]} if fields.get("unit") == OTHER else {})


def test_a_mark_that_cannot_be_read_is_noted_and_deletes_nothing():
    found = decided({"id": 1}, known=[make_snapshot({"id": 1, "gone": False})], rules=make_rules(deletion=SOFT))

    assert [told(event) for event in found.events] == [("updated", "items/1", 4)]
    [note] = found.notes
    assert note.startswith("deleted_when: ")


def test_a_mark_of_a_new_object_that_cannot_be_read_is_noted_and_the_object_is_created():
    found = decided({"id": 1}, {"id": 2}, rules=make_rules(deletion=SOFT))

    assert [told(event) for event in found.events] == [("created", "items/1", 1), ("created", "items/2", 1)]
    assert (len(found.notes), found.created, found.changed) == (2, 2, 2)


def test_a_first_sweep_looks_at_the_marks_of_its_objects():
    found = decided(
        {"id": 1, "gone": True}, {"id": 2, "gone": False}, rules=make_rules(deletion=SOFT), baseline_before=9
    )

    assert [(one.object_id, one.presence) for one in found.snapshots] == [("1", DELETED), ("2", PRESENT)]
    assert found.events == []


@pytest.mark.parametrize("now", [None, {"id": 1, "a": 2}])
def test_a_confirmed_deletion_is_told_as_the_object_was_or_as_its_own_url_shows_it(now: dict[str, Any] | None):
    old = make_snapshot({"id": 1, "a": 1}, presence=SUSPECT, seen_sweep=2)
    found = delete(make_rules(), make_suspect(old), ASKED, now=now)

    [event] = found.events
    assert told(event) == ("deleted", "items/1", 4)
    assert parse(event.raw) == {"object": now or {"id": 1, "a": 1}, "version": 4}
    assert (event.observed_after, event.time) == (50.0, 101.0)
    assert found.snapshots == [
        make_snapshot(now or {"id": 1, "a": 1}, version=4, presence=DELETED, unit=None, seen_at=100.0, seen_sweep=2)
    ]


@pytest.mark.parametrize(("absent_at", "seen_at"), [(None, 100.0), (70.0, 70.0), (100.5, 100.0)])
def test_a_deleted_object_was_certainly_absent_when_it_was_asked_for_or_earlier(
    absent_at: float | None, seen_at: float
):
    found = delete(make_rules(), make_suspect(make_snapshot({"id": 1})), ASKED, absent_at=absent_at)

    assert [one.seen_at for one in found.snapshots] == [seen_at]


def test_a_deletion_that_a_plugin_drops_keeps_the_version():
    found = delete(make_rules(transform=lambda event: None), make_suspect(make_snapshot({"id": 1})), ASKED)

    assert [(one.version, one.presence) for one in found.snapshots] == [(3, DELETED)]
    assert found.events == []


def make_suspect(snapshot: Snapshot) -> Suspect:
    return Suspect(snapshot=snapshot, missing_at=90.0, missing_sweep=3, checks=0)


def test_an_edit_that_only_the_own_url_shows_is_told_and_the_object_stays_a_suspect():
    old, found = make_snapshot({"id": 1, "a": 1}, presence=SUSPECT), Decision()
    change_on_its_own(make_rules(), old, {"id": 1, "a": 1}, {"id": 1, "a": 2}, ASKED, found)

    [event] = found.events
    assert told(event) == ("updated", "items/1", 4)
    assert parse(event.raw) == {
        "object": {"id": 1, "a": 2},
        "version": 4,
        "changes": [{"path": "/a", "before": 1, "after": 2}],
    }
    assert found.snapshots == [make_snapshot({"id": 1, "a": 2}, version=4, presence=SUSPECT, unit=None, seen_at=100.0)]

    returned = Decision()  # it was no suspect any more
    change_on_its_own(make_rules(), make_snapshot({"id": 1}), {"id": 1}, {"id": 2}, ASKED, returned)
    assert [one.presence for one in returned.snapshots] == [SUSPECT]

    same = Decision()
    change_on_its_own(make_rules(), old, {"id": 1, "a": 1}, {"id": 1, "a": 1.0}, ASKED, same)
    assert same == Decision()


def test_an_edit_that_only_the_own_url_shows_is_dropped_or_cut_like_any_other():
    old, dropped, cut = make_snapshot({"id": 1}), Decision(), Decision()
    change_on_its_own(make_rules(transform=lambda event: None), old, {"id": 1}, {"id": 1, "a": 1}, ASKED, dropped)
    many = {"id": 1} | {f"f{n}": 1 for n in range(200)}
    change_on_its_own(make_rules(), old, {"id": 1}, many, ASKED, cut)

    assert ([one.version for one in dropped.snapshots], dropped.events) == ([3], [])
    assert parse(cut.events[0].raw)["truncated"] is True


def test_what_is_deleted_or_created_anew_moves_counts_and_is_dropped_like_what_is_edited():
    present = [make_snapshot({"id": key, "gone": False}, unit=OTHER) for key in (1, 2)]
    gone = [make_snapshot({"id": key, "gone": True}, unit=OTHER, presence=DELETED) for key in (1, 2)]
    shown_gone, shown = ([{"id": key, "gone": is_gone} for key in (1, 2)] for is_gone in (True, False))
    deleted = decided(*shown_gone, known=present, rules=make_rules(deletion=SOFT))
    created = decided(*shown, known=gone, rules=make_rules(deletion=SOFT))
    dropped = decided(*shown_gone, known=present, rules=make_rules(deletion=SOFT, transform=lambda event: None))

    assert deleted.moved_from == created.moved_from == {OTHER: ["1", "2"]}
    assert (deleted.created, created.created) == (0, 2)
    assert [(one.version, one.presence) for one in dropped.snapshots] == [(3, DELETED), (3, DELETED)]


def test_an_object_whose_old_mark_cannot_be_read_was_deleted_by_no_mark():
    old = make_snapshot({"id": 1}, presence=DELETED)
    found = decided({"id": 1, "gone": False}, known=[old], rules=make_rules(deletion=SOFT))

    assert (found.relisted, found.notes) == (["1"], [])


def test_every_suspect_that_is_shown_again_is_counted():
    known = [make_snapshot({"id": key}, presence=SUSPECT, unit=None) for key in (1, 2)]

    assert decided({"id": 1}, {"id": 2}, known=known).returned == 2


# Moves between units


@pytest.mark.parametrize(
    ("fields", "unit", "here", "gone", "returned"),
    [
        ({}, OURS, [], {}, 0),
        ({"unit": OTHER}, OURS, ["1"], {OTHER: ["1"]}, 0),
        ({"unit": None}, OURS, ["1"], {}, 0),
        ({"unit": OTHER}, None, ["1"], {}, 0),  # a selection takes nothing from a list
        ({"presence": SUSPECT, "unit": OURS}, OURS, ["1"], {}, 1),
        ({"presence": SUSPECT, "unit": None}, OURS, ["1"], {}, 1),
        ({"presence": SUSPECT, "unit": OTHER}, OURS, ["1"], {OTHER: ["1"]}, 1),
    ],
)
def test_an_unchanged_object_belongs_to_the_unit_that_shows_it(
    fields: dict[str, Any], unit: int | None, here: list[str], gone: dict[int, list[str]], returned: int
):
    found = decided({"id": 1}, known=[make_snapshot({"id": 1}, **fields)], unit=unit)

    assert (found.moved_here, found.moved_from, found.returned) == (here, gone, returned)
    assert found.moves is bool(gone or returned)
    assert found.events == []


@pytest.mark.parametrize("presence", [PRESENT, SUSPECT])
def test_an_edited_object_moves_as_well(presence: Presence):
    found = decided({"id": 1, "a": 1}, known=[make_snapshot({"id": 1}, unit=OTHER, presence=presence)])

    assert found.moved_from == {OTHER: ["1"]}
    assert [(one.unit, one.presence) for one in found.snapshots] == [(OURS, PRESENT)]
    assert found.moved_here == []  # its snapshot says so


def test_two_objects_that_leave_one_unit_are_named_together():
    known = [make_snapshot({"id": 1}, unit=OTHER), make_snapshot({"id": 2}, unit=OTHER)]

    assert decided({"id": 1}, {"id": 2, "a": 1}, known=known).moved_from == {OTHER: ["1", "2"]}


# What cannot be decided yet


@pytest.mark.parametrize(
    ("order", "shown", "fields", "undecided"),
    [
        (8, {"id": 1, "a": 2}, {}, [True]),
        (7, {"id": 1, "a": 2}, {}, []),  # the change was known before this request was sent
        (8, {"id": 1, "a": 1}, {}, []),
        (8, {"id": 1, "a": 1}, {"presence": DELETED, "unit": None}, [False]),
        (8, {"id": 1, "a": 2}, {"unit": OTHER}, [False]),
        (8, {"id": 1, "a": 2}, {"unit": None}, [False]),
    ],
)
def test_an_answer_that_may_be_older_than_what_is_known_is_left_to_the_next_one(
    order: int, shown: dict[str, Any], fields: dict[str, Any], undecided: list[bool]
):
    found = decided(shown, known=[make_snapshot({"id": 1, "a": 1}, **fields)], recent={"1": order})

    assert [*found.undecided.digests.values()] == undecided
    if undecided:
        assert (found.events, found.snapshots, found.moved_from) == ([], [], {})


def test_the_first_answer_of_all_is_later_than_no_other():
    asked = RequestTimes(at=100.0, answered_at=101.0)

    assert len(decided({"id": 1, "a": 2}, known=[make_snapshot({"id": 1})], asked=asked).events) == 1


@pytest.mark.parametrize(
    ("shown", "unit", "clashes"),
    [
        ({"id": 1, "a": 2}, OTHER, ["1"]),
        ({"id": 1, "a": 1}, OTHER, []),  # the same object on two pages is no clash
        ({"id": 1, "a": 2}, OURS, []),  # the unit whose object it is
    ],
)
def test_an_id_that_names_two_objects_is_never_told_as_an_edit_of_the_other_ones(
    shown: dict[str, Any], unit: int, clashes: list[str]
):
    found = decided(shown, known=[make_snapshot({"id": 1, "a": 1}, unit=unit)], clashing={"1": True})

    assert found.undecided.clashes == clashes
    assert [*found.undecided.digests.values()] == [False] * len(clashes)
    assert len(found.events) == (unit == OURS)


@pytest.mark.parametrize(
    ("shown", "old", "known"),
    [
        ({"id": 1, "gone": False}, make_snapshot({"id": 1, "gone": False}), True),
        ({"id": 1.0, "gone": False}, make_snapshot({"gone": False, "id": 1}), True),
        ({"id": 1, "gone": False, "a": 2}, make_snapshot({"id": 1, "gone": False}), False),
        ({"id": 1, "gone": False}, make_snapshot({"id": 1, "gone": False}, presence=DELETED), False),
        ({"id": 1, "gone": True}, make_snapshot({"id": 1, "gone": True}, presence=DELETED), True),
        ({"id": 1}, make_snapshot({"id": 1}, presence=DELETED), False),  # its mark cannot be read
        ({"id": 1, "gone": False}, None, False),
    ],
)
def test_an_object_is_known_where_its_value_and_its_presence_are(
    shown: dict[str, Any], old: Snapshot | None, known: bool
):
    one = ShownObject("1", b"", dump(shown))

    assert is_known(make_rules(deletion=SOFT), one, old) is known


# Changes of form


def form(number: int, *, start: int = 0) -> tuple[list[dict[str, Any]], list[Snapshot]]:
    """That many objects that have a new field, and as they were before."""
    ids = range(start, start + number)
    return [{"id": key, "vat": 1} for key in ids], [make_snapshot({"id": key}) for key in ids]


@pytest.mark.parametrize(("changed", "seen"), [(9, False), (10, True)])
def test_a_page_whose_objects_changed_their_form_together_says_so(changed: int, seen: bool):
    shown, known = form(changed)
    found = decided(*shown, known=known)

    assert found.shift == (ShapeShift(fields={"/vat": Shape.ADDED}, objects=10) if seen else None)
    assert len(found.events) == changed


def test_a_form_of_half_the_page_is_no_change_of_form():
    shown, known = form(10)
    others = [{"id": key} for key in range(50, 60)]

    assert decided(*shown, *others, known=[*known, *map(make_snapshot, others)]).shift is None


def test_a_change_of_form_that_was_accepted_is_silent_and_edits_beside_it_are_told():
    shown, known = form(10)
    shown[0]["name"] = "new"
    accepted = ShapeShift(fields={"/vat": Shape.ADDED}, objects=10)
    found = decided(*shown, known=known, accepted=accepted)

    assert found.shift is None
    assert [told(event) for event in found.events] == [("updated", "items/0", 4)]
    assert [one["path"] for one in parse(found.events[0].raw)["changes"]] == ["/name"]
    assert sorted((int(one.object_id), one.version) for one in found.snapshots) == [
        (0, 4),
        *((n, 3) for n in range(1, 10)),
    ]


def test_a_change_of_form_in_the_middle_of_a_chain_is_seen_where_its_objects_stand_together():
    shown, known = form(10)
    before, after = [[{"id": key} for key in keys] for keys in (range(100, 110), range(200, 210))]
    known += map(make_snapshot, [*before, *after])

    torn = decided(*before, *shown, *after, known=known, is_chain=True).shift
    assert torn == ShapeShift(fields={"/vat": Shape.ADDED}, objects=10, is_torn=True)
    assert decided(*before, *shown, *after, known=known).shift is None  # pages of a numbered list are judged whole
    spread = [one for three in zip(before, shown, after, strict=True) for one in three]
    assert decided(*spread, known=known, is_chain=True).shift is None


@pytest.mark.parametrize("is_chain", [True, False])
def test_fields_that_come_back_are_a_change_of_form_only_where_their_nulling_was_silent(is_chain: bool):
    shown = [{"id": key, "owner": key} for key in range(10)]
    known = [make_snapshot({"id": key, "owner": None}) for key in range(10)]

    assert decided(*shown, known=known, is_chain=is_chain).shift is None
    found = decided(*shown, known=known, is_chain=is_chain, nulled={"/owner"})
    assert found.shift == ShapeShift(fields={"/owner": Shape.RETURNED}, objects=10)


@pytest.mark.parametrize("nulled", [frozenset(), {"/owner"}])
def test_fields_that_come_back_in_the_middle_of_a_chain_are_torn_where_their_nulling_was_silent(nulled: set[str]):
    before, after = [[{"id": key} for key in keys] for keys in (range(100, 110), range(200, 210))]
    shown = [{"id": key, "owner": key} for key in range(10)]
    known = [make_snapshot({"id": key, "owner": None}) for key in range(10)]
    known += map(make_snapshot, [*before, *after])
    found = decided(*before, *shown, *after, known=known, is_chain=True, nulled=nulled)

    torn = ShapeShift(fields={"/owner": Shape.RETURNED}, objects=10, is_torn=True)
    assert found.shift == (torn if nulled else None)


def test_edits_beside_an_ignored_field_are_no_change_of_form():
    shown = [{"id": key, "vat": 1, "name": "new"} for key in range(20)]
    known = [make_snapshot({"id": key, "name": "old"}) for key in range(20)]

    assert decided(*shown, known=known, rules=make_rules(ignore=["/vat"])).shift is None


def test_an_ignored_field_is_no_change_of_form():
    shown, known = form(20)
    for one in shown[:10]:
        one["a"] = 1

    found = decided(*shown, known=known, rules=make_rules(ignore=["/vat"]), is_chain=True)
    assert found.shift == ShapeShift(fields={"/a": Shape.ADDED}, objects=10, is_torn=True)


@pytest.mark.parametrize(("presence", "is_told"), [(PRESENT, False), (DELETED, False), (SUSPECT, True)])
def test_a_copy_that_is_older_than_what_is_remembered_undoes_nothing_but_shows_a_suspect(presence, is_told):
    asked = RequestTimes(at=100.0, answered_at=101.0, order=7, answered_order=8, age=30.0)
    known = make_snapshot({"id": 1, "a": 1}, seen_at=50.0, unit=None, presence=presence)
    found = decided({"id": 1, "a": 2}, known=[known], asked=asked, changed=LatestChanges(since=100.5))

    assert bool(found.events) == is_told


@pytest.mark.parametrize(
    ("age", "seen_at", "changed_at", "is_told"),
    [
        (0.0, 50.0, {}, True),
        (0.0, 100.5, {"1": 100.5}, True),  # not from a cache
        (30.0, 50.0, {}, True),
        (30.0, 50.0, {"1": 99.0}, True),
        (30.0, 50.0, {"2": 100.5}, True),
        (30.0, 100.0, {}, True),  # as new as what is known
        (1.0, 50.0, {"1": 100.5}, False),  # changed after the copy was made
        (30.0, 50.0, {"1": 101.0}, False),  # at the moment of the answer
        (30.0, 100.5, {}, False),  # seen by another unit since
        (30.0, 5000.0, {"1": 5000.0}, True),  # times of a clock that was ahead
    ],
)
def test_a_copy_in_a_cache_undoes_nothing_that_was_seen_after_it_was_made(age, seen_at, changed_at, is_told):
    asked = RequestTimes(at=100.0, answered_at=101.0, order=7, answered_order=8, age=age)
    known = make_snapshot({"id": 1, "a": 1}, seen_at=seen_at, unit=None)
    found = decided({"id": 1, "a": 2}, known=[known], asked=asked, changed=LatestChanges(at=changed_at))

    assert bool(found.events) == is_told
    assert bool(found.undecided.digests) != is_told
