from __future__ import annotations

from typing import Any

import pytest

from poller.changes.guards import (
    HOUR,
    NoiseDetector,
    Shape,
    ShapeShift,
    Turnover,
    agree,
    generalised,
    is_mass_deletion,
    shape_shift,
    unexplained,
)
from poller.changes.many_missing import is_most
from poller.documents.diff import DEPTH, compile_rules, diff
from state.records import FieldChange

NONE = compile_rules()
OLD: dict[str, Any] = {"name": "A", "owner": {"id": 1, "mail": "a@example.org"}, "lines": [{"id": 1, "text": "x"}]}


def make_shift(**fields: Shape) -> ShapeShift:
    return ShapeShift(fields={f"/{name}": shape for name, shape in fields.items()}, objects=10)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({**OLD, "vat": None}, {"/vat": Shape.ADDED}),
        ({"name": "A", "lines": OLD["lines"]}, {"/owner": Shape.REMOVED}),
        ({**OLD, "name": None}, {"/name": Shape.NULLED}),
        ({**OLD, "owner": {"id": 1}}, {"/owner/mail": Shape.REMOVED}),
        (
            {**OLD, "owner": {"id": 1, "mail": None, "a/b": 1}},
            {"/owner/mail": Shape.NULLED, "/owner/a~1b": Shape.ADDED},
        ),
    ],
)
def test_one_shift_on_most_objects_of_a_page_is_seen(new: dict[str, Any], expected: dict[str, Shape]):
    assert shape_shift([(OLD, new)] * 11, shown=20) == ShapeShift(fields=expected, objects=11)


@pytest.mark.parametrize(
    "new", [{**OLD, "name": "B"}, {**OLD, "lines": [{"id": 1}]}, {**OLD, "lines": []}, {**OLD, "owner": 3}]
)
def test_edits_of_values_are_never_a_shift_however_many(new: dict[str, Any]):
    assert shape_shift([(OLD, new)] * 100, shown=100) is None


@pytest.mark.parametrize("before", [{**OLD, "fax": None}, {**OLD, "owner": 3}])
def test_edits_beside_what_was_null_or_no_object_are_never_a_shift(before: dict[str, Any]):
    after = {**before, "name": "B", "owner": OLD["owner"]}
    assert shape_shift([(before, after)] * 100, shown=100, nulled={"/fax"}) is None


@pytest.mark.parametrize(
    ("changed", "shown", "seen"), [(10, 19, True), (10, 20, False), (9, 9, False), (51, 100, True)]
)
def test_a_shift_needs_more_than_half_of_the_page_and_ten_objects(changed: int, shown: int, seen: bool):
    pairs = [(OLD, {**OLD, "vat": 19})] * changed
    assert (shape_shift(pairs, shown) is not None) is seen


def test_different_fields_do_not_add_up_to_a_shift():
    pairs = [({}, {f"field{number}": 1}) for number in range(50)]
    assert shape_shift(pairs, shown=50) is None


def test_a_hidden_field_is_no_shift():
    rules = compile_rules(ignore=["/vat"], exclude=["/owner/mail"])
    new = {"name": "A", "owner": {"id": 1}, "lines": OLD["lines"], "vat": 1}
    assert shape_shift([(OLD, new)] * 20, shown=20, rules=rules) is None


def test_pages_agree_where_one_field_shifted_alike_on_both():
    assert agree(make_shift(vat=Shape.ADDED, fax=Shape.REMOVED), make_shift(vat=Shape.ADDED))
    assert not agree(make_shift(vat=Shape.ADDED), make_shift(vat=Shape.REMOVED))
    assert not agree(make_shift(vat=Shape.ADDED), make_shift(fax=Shape.ADDED))


def test_a_schema_change_explains_its_own_fields_and_nothing_else():
    shift = make_shift(vat=Shape.ADDED, fax=Shape.REMOVED, mail=Shape.NULLED)
    before = {"fax": "1", "mail": "a", "name": "A", "phone": "5"}
    after = {"vat": 19, "mail": None, "name": "B", "phone": None}
    left = unexplained(diff(before, after, NONE).fields, shift)
    assert [field.path for field in left] == ["/name", "/phone"]


@pytest.mark.parametrize(
    ("shape", "before", "after", "explained"),
    [
        (Shape.RETURNED, None, 5, True),
        (Shape.RETURNED, 4, 5, False),
        (Shape.ADDED, None, 5, False),
        (Shape.NULLED, 4, None, True),
        (Shape.NULLED, 4, 5, False),
        (Shape.NULLED, None, 5, False),
        (Shape.RETURNED, 4, None, False),
    ],
)
def test_a_change_is_explained_by_a_shift_of_its_own_kind_alone(shape: Shape, before: Any, after: Any, explained: bool):
    left = unexplained([FieldChange(path="/vat", before=before, after=after)], make_shift(vat=shape))

    assert (left == ()) is explained


def test_a_value_edited_in_a_field_that_shifted_elsewhere_is_not_explained():
    left = unexplained([FieldChange(path="/vat", before=7, after=19)], make_shift(vat=Shape.ADDED))
    assert [field.after for field in left] == [19]


@pytest.mark.parametrize(
    ("known", "deleted", "held"),
    [(49, 50, True), (50, 50, False), (0, 49, False), (10, 49, False), (0, 50, True), (1_000_000, 900, False)],
)
def test_most_of_at_least_fifty_objects_gone_is_a_mass_deletion(known: int, deleted: int, held: bool):
    assert is_mass_deletion(known, deleted) is held


@pytest.mark.parametrize(
    ("gone", "objects", "counted"), [(50, 99, True), (50, 100, False), (49, 49, False), (51, 101, True)]
)
def test_more_than_half_and_at_least_fifty_missing_are_counted_again(gone: int, objects: int, counted: bool):
    assert is_most(gone, objects) is counted


def test_what_came_and_went_more_than_an_hour_ago_is_forgotten():
    turnover = Turnover()
    for at in (0.0, 1.0, HOUR):
        turnover.deleted(at)
        turnover.created(at, 2)

    assert (turnover.deletions(HOUR), turnover.net_deletions(HOUR)) == (2, 0)
    turnover.deleted(HOUR + 1.0)
    assert (turnover.deletions(2 * HOUR), turnover.net_deletions(2 * HOUR)) == (1, 1)
    turnover.deleted(HOUR + 1.0)
    turnover.created(HOUR + 1.0)
    assert (turnover.deletions(2 * HOUR), turnover.net_deletions(2 * HOUR)) == (2, 1)


def test_no_more_than_a_hundred_thousand_of_each_are_remembered():
    turnover = Turnover()
    turnover.created(0.0, 150_000)
    for _ in range(150_000):
        turnover.deleted(0.0)

    assert (turnover.deletions(0.0), turnover.net_deletions(0.0)) == (100_000, 0)
    turnover.forget()
    assert turnover.deletions(0.0) == 0


def poll(
    detector: NoiseDetector, *paths: str, unit: str = "page=1", shown: int = 3, changed: int = 2
) -> tuple[str, ...]:
    fields = [FieldChange(path=path, before=1, after=2) for path in paths]
    return detector.observe(unit, shown, [fields] * changed)


def test_a_field_that_changes_at_every_poll_is_named_once():
    detector = NoiseDetector(polls=5)
    named = [poll(detector, "/seen", "/lines/3/age") for _ in range(8)]
    assert named == [(), (), (), (), ("/lines/*/age", "/seen"), (), (), ()]
    assert detector.candidates == {"/seen", "/lines/*/age"}


def test_one_poll_without_the_change_begins_the_count_anew():
    detector = NoiseDetector(polls=3)
    named = [poll(detector, *paths) for paths in (["/a"], ["/a"], [], ["/a"], ["/a"], ["/a"])]
    assert named == [(), (), (), (), (), ("/a",)]


def test_a_field_that_changes_on_few_of_the_objects_is_no_noise():
    detector = NoiseDetector(polls=2)
    assert [poll(detector, "/a", shown=100, changed=50) for _ in range(9)] == [()] * 9


@pytest.mark.parametrize(("shown", "changed", "noisy"), [(4, 2, False), (4, 3, True), (5, 3, True), (5, 2, False)])
def test_noise_is_on_more_than_half_of_the_objects(shown: int, changed: int, noisy: bool):
    detector = NoiseDetector(polls=2)
    poll(detector, "/a", shown=shown, changed=changed)

    assert poll(detector, "/a", shown=shown, changed=changed) == (("/a",) if noisy else ())


def test_a_field_that_half_of_the_objects_have_is_no_noise_beside_one_that_all_have():
    detector = NoiseDetector(polls=2)
    both, one = [[FieldChange(path=path, before=1, after=2) for path in paths] for paths in (["/a", "/b"], ["/a"])]
    for _ in range(3):
        found = detector.observe("page=1", 4, [both, both, one, one])

    assert (found, detector.candidates) == ((), {"/a"})


def test_a_unit_that_was_never_counted_can_be_forgotten():
    NoiseDetector().forget("page=1")


def test_the_counts_of_noise_are_bounded():
    detector = NoiseDetector(polls=2)
    paths = [f"/{letter}{number}" for letter in "ab" for number in range(4_000)]
    assert poll(detector, *paths, unit="page=1") == ()
    assert poll(detector, *paths, unit="page=2") == ()  # no room: not counted
    assert poll(detector, "/x", unit="page=3") == ()

    assert poll(detector, *paths, unit="page=2") == ()
    assert poll(detector, "/x", unit="page=3") == ("/x",)
    assert len(poll(detector, *paths, unit="page=1")) == len(paths)


def test_as_many_counts_of_noise_are_kept_as_are_allowed():
    detector = NoiseDetector(polls=2)
    paths = [f"/{number}a" for number in range(5_000)]
    for unit in ("page=1", "page=2"):
        poll(detector, *paths, unit=unit)

    assert poll(detector, "/x", unit="page=3") == poll(detector, "/x", unit="page=3") == ()  # no room
    assert len(poll(detector, *paths, unit="page=2")) == len(paths)


@pytest.mark.parametrize(("levels", "is_found"), [(1, True), (DEPTH, True), (DEPTH + 1, False)])
def test_a_change_of_form_is_found_as_deep_as_changes_are_reported(levels: int, is_found: bool):
    old: dict[str, Any] = {"leaf": 1}
    new: dict[str, Any] = {"leaf": None}
    for _ in range(levels):
        old, new = {"a": old}, {"a": new}

    assert (shape_shift([(old, new)] * 10, 10) is not None) is is_found


def test_units_are_counted_apart_and_a_gone_one_is_forgotten():
    detector = NoiseDetector(polls=2)
    assert poll(detector, "/a", unit="page=1") == ()
    assert poll(detector, "/a", unit="page=2") == ()
    detector.forget("page=1")
    assert poll(detector, "/a", unit="page=1") == ()
    assert poll(detector, "/a", unit="page=2") == ("/a",)


@pytest.mark.parametrize(
    ("path", "expected"), [("/a/0/b", "/a/*/b"), ("/0/1", "/*/*"), ("/a1/2b", "/a1/2b"), ("/x", "/x")]
)
def test_indexes_are_generalised(path: str, expected: str):
    assert generalised(path) == expected


def test_a_field_that_was_nulled_everywhere_comes_back_as_a_change_of_form():
    pairs = [({"id": n, "owner": None}, {"id": n, "owner": n}) for n in range(20)]

    assert shape_shift(pairs, 20) is None
    assert shape_shift(pairs, 20, nulled={"/owner"}).fields == {"/owner": Shape.RETURNED}
