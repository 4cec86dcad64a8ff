"""What an object's own URL shows: where the object is in the answer, and how it differs from what its list showed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.changes.comparison import CONTENT, RequestTimes
from poller.changes.decision import Decision
from poller.changes.endpoint_rules import DeletionRules, EndpointRules
from poller.changes.own_url import MOST_LOOKED_AT, OwnAnswer, as_listed, own_object, read_own
from poller.documents.diff import compile_rules, dump, parse
from poller.events.filters import ObjectRule
from poller.sources.paths import KEY, VALUE
from poller.sources.protocol import Endpoint
from state.polls import Presence, Snapshot, Suspect

ASKED = RequestTimes(at=100.0, answered_at=101.0)


def make_rules(
    *, exclude: list[str] | None = None, deletion: DeletionRules | None = None, **endpoint: Any
) -> EndpointRules:
    return EndpointRules(
        source="shop",
        namespace="shop",
        endpoint=Endpoint(name="items", **endpoint),
        fields=compile_rules(exclude=exclude or []),
        deletion=deletion or DeletionRules(),
    )


def suspect(value: dict[str, Any]) -> Suspect:
    snapshot = Snapshot(object_id="7", version=3, body=dump(value), unit=1, seen_at=50.0, presence=Presence.SUSPECT)
    return Suspect(snapshot=snapshot, missing_at=90.0, missing_sweep=3, checks=0)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"id": 7, "a": 1}, {"id": 7, "a": 1}),
        ({"item": {"id": 7}}, {"id": 7}),
        ({"data": {"item": {"id": 7}}}, {"id": 7}),
        ({"data": {"item": {"inner": {"id": 7}}}}, None),  # too deep to be this object
        ([{"id": 6}, {"id": 7}], {"id": 7}),
        ({"items": [{"id": 7}]}, {"id": 7}),
        ({"id": 7, "parent": {"id": 8}}, {"id": 7, "parent": {"id": 8}}),
        ({"id": 8, "child": {"id": 7, "a": 1}}, {"id": 7, "a": 1}),
        ({"a": {"id": 7, "at": "outer"}, "b": {"c": {"id": 7, "at": "inner"}}}, {"id": 7, "at": "outer"}),
        ({"id": 8}, None),
        ({}, None),
        ([], None),
        ("7", None),
        (None, None),
    ],
)
def test_the_object_is_the_answer_or_wrapped_in_it_and_the_outermost_counts(answer: Any, found: Any):
    assert own_object(make_rules(), dump(answer), "7") == found


def test_what_is_no_json_shows_no_object():
    assert own_object(make_rules(), b"<html>", "7") is None


def test_as_many_values_are_looked_at_as_one_answer_may_need():
    before = [{"id": 0}] * (MOST_LOOKED_AT - 1)

    assert own_object(make_rules(), dump([*before, {"id": 7}]), "7") == {"id": 7}
    assert own_object(make_rules(), dump([*before, {"id": 0}, {"id": 7}]), "7") is None
    half = [{"item": {"id": 0}}] * 499
    assert own_object(make_rules(), dump([*half, {"item": {"id": 7}}]), "7") == {"id": 7}
    assert own_object(make_rules(), dump([*half, {}, {"item": {"id": 7}}]), "7") is None  # 501 and 500 more


@pytest.mark.parametrize("spec", [CONTENT, VALUE])
def test_an_object_without_an_id_of_its_own_has_no_own_url(spec: str):
    assert own_object(make_rules(id=spec), b'{"id":"7","value":"7"}', "7") is None


def test_an_object_that_is_named_by_its_key_is_the_whole_answer():
    assert own_object(make_rules(id=KEY), b'{"a":1}', "7") == {KEY: "7", "a": 1}
    assert own_object(make_rules(id=KEY), b"[1]", "7") is None


def test_excluded_fields_of_an_own_answer_are_not_kept():
    assert own_object(make_rules(exclude=["/secret"]), b'{"id":7,"secret":1}', "7") == {"id": 7}


def test_an_own_answer_is_normalised_like_the_objects_of_its_list():
    def flattened(value: dict[str, Any]) -> dict[str, Any]:
        return {"id": value["data"]["nr"], "a": 1} if "data" in value else value

    rules = make_rules(normalise=flattened)
    assert own_object(rules, b'{"data":{"nr":7}}', "7") == {"id": 7, "a": 1}
    assert own_object(rules, b'{"data":{"nr":8}}', "7") is None
    assert own_object(rules, b'{"id":7,"b":2}', "7") == {"id": 7, "b": 2}
    assert own_object(rules, b"[5]", "7") is None


@pytest.mark.parametrize(
    ("before", "own", "listed"),
    [
        ({"a": 1}, {"a": 2, "more": 3}, {"a": 2}),
        ({"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": 2}),
        ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, {"a": {"b": 2}}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2, "c": 3}]}, {"a": [{"b": 2}]}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_only_fields_that_the_list_shows_are_compared(before: Any, own: Any, listed: Any):
    assert as_listed(before, own) == listed


JSON = st.recursive(
    st.none() | st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_an_own_answer_that_shows_what_the_list_shows_and_more_is_no_edit(listed: Any, more: Any):
    assert as_listed(listed, listed) == listed
    if isinstance(listed, dict) and isinstance(more, dict):
        assert as_listed(listed, {**more, **listed}) == listed


@pytest.mark.parametrize("unlisted", ["keep", "updated", "deleted"])
def test_an_edit_of_an_object_outside_its_list_is_told_where_the_endpoint_asks_for_it(unlisted: Any):
    rules = make_rules(deletion=DeletionRules(unlisted=unlisted))
    found = read_own(rules, suspect({"id": 7, "a": 1}), {"id": 7, "a": 2, "more": 1}, ASKED)

    assert (found.now, found.is_deleted) == ({"id": 7, "a": 2}, False)
    told = [(event.type, parse(event.raw)["version"]) for event in found.decision.events]
    assert told == ([("shop.items.updated", 4)] if unlisted == "updated" else [])


def test_an_object_that_is_marked_as_deleted_under_its_own_url_is_deleted_and_its_edits_are_not_told():
    marks = DeletionRules(soft=ObjectRule("object.gone"), unlisted="updated")
    found = read_own(make_rules(deletion=marks), suspect({"id": 7, "a": 1}), {"id": 7, "a": 2, "gone": True}, ASKED)

    assert found == OwnAnswer(now={"id": 7, "a": 2}, decision=Decision(), is_deleted=True)


def test_a_mark_that_cannot_be_read_under_the_own_url_is_noted():
    marks = DeletionRules(soft=ObjectRule("object.gone"))
    found = read_own(make_rules(deletion=marks), suspect({"id": 7}), {"id": 7}, ASKED)

    assert not found.is_deleted
    assert len(found.decision.notes) == 1
