"""A page that looks like another list or form waits for the others; a list that lost most is counted anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.changes.comparison import CONTENT, PageComparison, ShownObject
from poller.changes.decision import Decision
from poller.changes.endpoint_rules import ABSENT_FOR, ABSENT_FOR_WITH_URL, DeletionRules, EndpointRules
from poller.changes.exemptions import Exemptions, Misleading
from poller.changes.guards import NO_SHIFT, Quarantine, Quarantined, Shape, ShapeShift, torn_shift
from poller.changes.many_missing import Recount, is_most
from poller.changes.quarantine import (
    REPLACED,
    agreed_shift,
    exempted,
    is_replaced,
    keep_aside,
    like_quarantined,
    others_agree,
)
from poller.documents.diff import compile_rules, dump
from poller.events.filters import ObjectRule
from poller.sources.protocol import Endpoint
from state.polls import Presence, Snapshot, UnitState
from state.records import FieldChange

VAT = ShapeShift(fields={"/vat": Shape.ADDED}, objects=10)
FAX = ShapeShift(fields={"/fax": Shape.REMOVED}, objects=20)


def make_rules(**endpoint: Any) -> EndpointRules:
    return EndpointRules(
        source="shop", namespace="shop", endpoint=Endpoint(name="items", **endpoint), fields=compile_rules()
    )


def make_snapshot(object_id: str, **fields: Any) -> Snapshot:
    return Snapshot(**{"object_id": object_id, "version": 1, "body": b"{}", "unit": 1, "seen_at": 1.0, **fields})


def units(**asked: int) -> dict[str, UnitState]:
    """Units with these keys, each asked last with a request of that order; all show something."""
    return {
        key: UnitState(id=number, key=key, position=b"{}", asked_order=order, shown=3)
        for number, (key, order) in enumerate(asked.items())
    }


# Another list


def comparison(*, shown: int, new: int, missing: int) -> tuple[PageComparison, dict[str, Snapshot]]:
    """A page that shows so many objects, the first of which are new, and misses others; and what is known."""
    members = {b"%d" % number: f"{number}" for number in range(shown)}
    fresh = [ShownObject(object_id, digest, b"{}") for digest, object_id in members.items()]
    known = {one.object_id: make_snapshot(one.object_id) for one in fresh[new:]}
    return PageComparison(members=members, fresh=fresh, missing=[f"gone {n}" for n in range(missing)]), known


@pytest.mark.parametrize(
    ("shown", "new", "missing", "before", "replaced"),
    [
        (20, 11, 11, 20, True),
        (20, 10, 11, 20, False),  # half of it is known
        (20, 11, 10, 20, False),  # half of what it showed is still there
        (10, 10, 6, 10, True),
        (10, 10, 9, 9, False),  # too few to tell
        (9, 9, 20, 20, False),
        (19, 10, 20, 20, True),
    ],
)
def test_a_page_is_another_list_where_most_is_new_and_most_that_it_had_is_gone(
    shown: int, new: int, missing: int, before: int, replaced: bool
):
    page, known = comparison(shown=shown, new=new, missing=missing)

    assert is_replaced(make_rules(), page, before, known) is replaced


@pytest.mark.parametrize("endpoint", [{"parent": "orders"}, {"id": CONTENT}, {"order": "newest"}])
def test_a_list_whose_pages_are_expected_to_turn_over_is_never_another_list(endpoint: dict[str, Any]):
    page, known = comparison(shown=20, new=20, missing=20)

    assert is_replaced(make_rules(), page, 20, known)
    assert not is_replaced(make_rules(**endpoint), page, 20, known)


# Other pages decide


def test_a_page_that_changed_its_form_waits_until_every_other_page_was_asked_after_it():
    aside: Quarantine = {}
    others = units(a=1, b=2, c=3)
    assert keep_aside(aside, "a", VAT, 5, others)
    assert aside == {"a": Quarantined(VAT, 5, 5)}

    others = units(a=5, b=6, c=5)  # c was asked at the same time at the latest
    assert keep_aside(aside, "a", VAT, 8, others)
    assert aside == {"a": Quarantined(VAT, 5, 8)}

    assert not keep_aside(aside, "a", VAT, 9, units(a=8, b=6, c=7))


def test_a_page_that_changed_its_form_is_not_kept_where_another_one_agrees():
    aside: Quarantine = {"b": Quarantined(VAT, 5, 5)}

    assert not others_agree(aside, "b", VAT)  # itself is not another
    assert others_agree(aside, "a", VAT)
    assert not others_agree(aside, "a", FAX)
    assert keep_aside(dict(aside), "a", FAX, 6, units(a=1, b=5, c=1))
    assert not keep_aside(aside, "a", VAT, 6, units(a=1, b=5, c=1))
    assert set(aside) == {"b"}


def test_a_page_with_another_form_than_before_begins_to_wait_anew():
    aside: Quarantine = {"a": Quarantined(VAT, 5, 6)}

    assert keep_aside(aside, "a", FAX, 9, units(a=5, b=7))
    assert aside == {"a": Quarantined(FAX, 9, 9)}


def test_a_page_that_waits_itself_is_not_waited_for():
    aside: Quarantine = {"a": Quarantined(VAT, 5, 5), "b": Quarantined(FAX, 5, 5)}

    assert keep_aside(aside, "a", VAT, 8, units(a=5, b=1, c=4))
    assert not keep_aside(aside, "a", VAT, 8, units(a=5, b=1, c=6))


def test_a_list_that_was_replaced_is_believed_once_another_page_shows_anything():
    aside: Quarantine = {"a": Quarantined(REPLACED, 5, 5)}
    later = units(a=5, b=6, c=1)

    assert not keep_aside(dict(aside), "a", REPLACED, 8, later)
    assert keep_aside(dict(aside), "a", REPLACED, 8, units(a=5, b=5, c=1))  # asked before it
    later["b"] = msgspec.structs.replace(later["b"], shown=0)
    assert keep_aside(dict(aside), "a", REPLACED, 8, later)  # c is still to come
    assert keep_aside({"a": Quarantined(VAT, 5, 5)}, "a", VAT, 8, units(a=5, b=6, c=1))


def test_a_change_of_form_has_the_fields_of_all_pages_that_agree():
    both = ShapeShift(fields={**VAT.fields, **FAX.fields}, objects=10)
    aside: Quarantine = {"a": Quarantined(VAT, 5, 5), "b": Quarantined(both, 5, 5)}

    assert agreed_shift(aside, "a", VAT, alone=False) == {**VAT.fields, **FAX.fields}
    assert agreed_shift({"a": Quarantined(VAT, 5, 5)}, "a", VAT, alone=False) is None  # no other page
    assert agreed_shift({"a": Quarantined(VAT, 5, 5)}, "a", VAT, alone=True) == VAT.fields
    assert agreed_shift({"b": Quarantined(FAX, 5, 5)}, "a", VAT, alone=False) is None


def test_an_accepted_change_of_form_holds_until_the_next_sweep_is_over_and_adds_up():
    accepted = exempted(Exemptions(), VAT.fields, 12, sweep=4)

    assert accepted.shift == ShapeShift(fields=VAT.fields, objects=12)
    assert [accepted.shift_in(sweep) == NO_SHIFT for sweep in (4, 5, 6)] == [False, False, True]
    assert exempted(accepted, FAX.fields, 9, sweep=5).shift.fields == {**VAT.fields, **FAX.fields}
    assert exempted(accepted, FAX.fields, 9, sweep=6).shift.fields == FAX.fields  # the first is over


def test_a_field_that_was_nulled_silently_is_remembered_until_it_is_back():
    nulled = exempted(Exemptions(nulled=frozenset({"/a"})), {"/b": Shape.NULLED, "/c": Shape.ADDED}, 9, sweep=1)
    assert nulled.nulled == {"/a", "/b"}

    back = exempted(nulled, {"/b": Shape.RETURNED, "/a": Shape.REMOVED}, 9, sweep=1)
    assert back.nulled == {"/a"}


def test_deletions_are_believed_until_the_sweep_that_was_named():
    exemptions = Exemptions(deletions_until=4)

    assert [exemptions.allow_deletions(sweep) for sweep in (3, 4, 5)] == [True, True, False]
    assert not Exemptions().allow_deletions(1)
    assert Exemptions().shift_in(1) == NO_SHIFT


def test_exemptions_of_an_earlier_program_that_knew_fewer_are_read():
    stored = orjson.dumps({"fields": {"/a": "added"}, "objects": 9, "shift_until": 2, "deletions_until": 3})

    assert Exemptions.load(stored) == Exemptions(
        shift=ShapeShift(fields={"/a": Shape.ADDED}, objects=9), shift_until=2, deletions_until=3
    )


def test_an_own_url_that_contradicts_its_list_is_named():
    text = Misleading(object_id="7", url="https://shop.example/items/7").text

    assert text == "7 is in the list, but https://shop.example/items/7 says that it is gone: is `item_path` right?"


def test_a_page_of_one_object_is_like_those_aside_where_that_object_changed_its_form():
    shown = ShownObject("1", b"1", dump({"id": 1, "vat": 5}))
    page = PageComparison(members={b"1": "1"}, fresh=[shown, ShownObject("2", b"2", b"{}")])
    known = {"1": make_snapshot("1", body=dump({"id": 1}))}
    updated = Decision(updates=[(FieldChange(path="/vat", after=5, had_before=False),)])

    assert like_quarantined(make_rules(), updated, page, known, frozenset()) == ShapeShift(fields=VAT.fields, objects=1)
    assert like_quarantined(make_rules(), Decision(), page, known, frozenset()) is None
    hidden = EndpointRules(
        source="shop", namespace="shop", endpoint=Endpoint(name="items"), fields=compile_rules(ignore=["/vat"])
    )
    assert like_quarantined(hidden, updated, page, known, frozenset()) is None


def test_a_field_that_is_back_on_a_page_of_one_object_is_a_form_only_where_it_was_nulled_silently():
    shown = ShownObject("1", b"1", dump({"id": 1, "vat": 5}))
    page = PageComparison(members={b"1": "1"}, fresh=[shown])
    known = {"1": make_snapshot("1", body=dump({"id": 1, "vat": None}))}
    updated = Decision(updates=[(FieldChange(path="/vat", after=5),)])

    assert like_quarantined(make_rules(), updated, page, known, frozenset()) is None
    found = like_quarantined(make_rules(), updated, page, known, frozenset({"/vat"}))
    assert found == ShapeShift(fields={"/vat": Shape.RETURNED}, objects=1)


# A form that changed while a chain was read


def torn(places: list[int], **fields: Any) -> ShapeShift | None:
    pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [({}, {"vat": 1})] * len(places)
    return torn_shift(pairs, places, compile_rules(), **fields)


@pytest.mark.parametrize(
    ("places", "objects"),
    [
        ([*range(10)], 10),
        ([*range(50, 60)], 10),
        ([*range(9)], None),
        ([*range(9), 18], 10),  # ten of nineteen
        ([*range(9), 19], None),  # ten of twenty
        ([*range(100, 140)], 40),
    ],
)
def test_a_form_is_torn_where_more_than_half_of_what_stands_together_has_it(places: list[int], objects: int | None):
    expected = None if objects is None else ShapeShift(fields=VAT.fields, objects=objects, is_torn=True)

    assert torn(places) == expected


def test_fields_that_come_back_within_a_chain_are_torn_only_where_their_nulling_was_silent():
    pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [({"vat": None}, {"vat": 1})] * 10

    assert torn_shift(pairs, range(10), compile_rules()) is None
    assert torn_shift(pairs, range(10), compile_rules(), nulled={"/vat"}) == ShapeShift(
        fields={"/vat": Shape.RETURNED}, objects=10, is_torn=True
    )


# Counting anew


def test_a_recount_counts_what_was_known_by_unit():
    counted = Recount(began=5.0)
    present = [make_snapshot("1"), make_snapshot("2", presence=Presence.SUSPECT)]
    gone = [make_snapshot("3", presence=Presence.DELETED, unit=None), make_snapshot("4", presence=Presence.DELETED)]
    counted.count("a", [*present, *gone], place=1, is_last=False)
    counted.count("b", [], place=2, is_last=False)
    counted.count("b", present, place=2, is_last=False)  # counted again: the latest answer holds

    assert counted.seen == {"a": 2, "b": 2}
    assert counted.finish_round(10, 77) == (6, 10)
    assert (counted.seen, counted.judged_order) == ({}, 77)


def test_a_recount_knows_again_what_was_told_as_deleted_before_it_was_held():
    counted = Recount(began=5.0, deleted=3)
    told = make_snapshot("3", presence=Presence.DELETED, unit=None)
    marked = make_snapshot("4", presence=Presence.DELETED, unit=1)  # by `deleted_when`: it is shown all the same
    counted.count("a", [make_snapshot("1"), told, told, marked], place=1, is_last=False)

    assert counted.finish_round(10, 1) == (10, 13)


def test_a_page_after_the_last_one_needs_no_count_where_it_fails():
    counted = Recount(began=5.0)
    assert not counted.is_counted("c", fails=True, place=3)  # nobody has said yet which is the last
    counted.count("b", [], place=2, is_last=True)

    assert counted.is_counted("b", fails=False, place=2)
    assert counted.is_counted("c", fails=True, place=3)
    assert not counted.is_counted("c", fails=False, place=3)
    assert not counted.is_counted("a", fails=True, place=1)
    assert not counted.is_counted("x", fails=True, place=2)


@pytest.mark.parametrize(("place", "last"), [(1, 2), (2, None), (3, None)])
def test_a_list_that_goes_on_after_its_last_page_has_another_last_page(place: int, last: int | None):
    counted = Recount(began=5.0)
    counted.count("b", [], place=2, is_last=True)
    counted.count("x", [], place=place, is_last=False)

    assert counted.last == last


def test_a_recount_is_stored_with_the_hold_and_read_again():
    assert Recount.load(None, 5.0) is None
    assert Recount.load(b"{}", 5.0) == Recount(began=5.0, deleted=0, by_hand=False)
    assert Recount.load(b'{"deleted":7,"by_hand":true}', 5.0) == Recount(began=5.0, deleted=7, by_hand=True)


@given(st.integers(0, 500), st.integers(0, 500))
def test_most_is_fifty_at_least_and_more_than_half(gone: int, objects: int):
    assert is_most(gone, objects) is (gone > 49 and gone > objects / 2)


# Rules of an endpoint


@pytest.mark.parametrize(
    ("rules", "has_url", "seconds"),
    [
        (DeletionRules(), False, ABSENT_FOR),
        (DeletionRules(), True, ABSENT_FOR_WITH_URL),
        (DeletionRules(absent_for=0.0), True, 0.0),
        (DeletionRules(absent_for=600.0), False, 600.0),
    ],
)
def test_an_object_must_be_missing_for_a_while_that_an_own_url_shortens(
    rules: DeletionRules, has_url: bool, seconds: float
):
    assert rules.missing_time(has_own_url=has_url) == seconds


@pytest.mark.parametrize(
    ("rules", "twice"),
    [
        (DeletionRules(), True),
        (DeletionRules(turnover=True), False),
        (DeletionRules(absent_for=0.0), False),
        (DeletionRules(absent_for=0.5), True),
    ],
)
def test_an_own_url_is_asked_twice_unless_objects_come_and_go_or_need_not_be_missing_for_any_time(
    rules: DeletionRules, twice: bool
):
    assert rules.asks_twice is twice


def test_rules_say_whether_code_or_expressions_of_others_take_part():
    def with_rules(**fields: Any) -> EndpointRules:
        made = {"source": "shop", "namespace": "shop", "endpoint": Endpoint(name="items"), "fields": compile_rules()}
        return EndpointRules(**{**made, **fields})

    assert not with_rules().runs_plugins
    assert with_rules(transform=lambda event: event).runs_plugins
    assert with_rules(deletion=DeletionRules(soft=ObjectRule("true"))).runs_plugins
    assert with_rules(endpoint=Endpoint(name="items", normalise=dict)).runs_plugins
    assert with_rules().identify_unparsed is not None
    assert with_rules(fields=compile_rules(ignore=["/a"])).identify_unparsed is not None
    assert with_rules(fields=compile_rules(exclude=["/a"])).identify_unparsed is None
    assert with_rules(endpoint=Endpoint(name="items", normalise=dict)).identify_unparsed is None
