from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.events.events import change_event
from state.notices import Notice
from state.operational import is_operational, notice_event
from state.records import Change, FieldChange, Kind, NewEvent

NAME = FieldChange(path="/name", before="A", after="B")


def make_change(**fields: Any) -> Change:
    defaults: dict[str, Any] = {
        "kind": Kind.UPDATED,
        "object_id": "201001",
        "version": 3,
        "object": {"id": 201001, "name": "B"},
        "fields": (NAME,),
        "observed_after": 10.0,
        "observed_at": 20.0,
    }
    return Change(**{**defaults, **fields})


def told(change: Change, **where: str) -> NewEvent:
    return change_event(change, **{"source": "acme", "namespace": "nutcache", "endpoint": "projects", **where})


def make_notice(**fields: Any) -> NewEvent:
    defaults: dict[str, Any] = {"summary": "acme fails.", "version": 1, "detail": {"status": 500}, "time": 5.0}
    given = {"kind": "source.failing", "subject": "sources/acme", **defaults, **fields}
    version = given.pop("version")
    return notice_event(Notice(**given), version)


def test_an_update_is_told_with_its_changes():
    event = told(make_change())
    assert (event.source, event.type) == ("/sources/acme", "nutcache.projects.updated")
    assert (event.subject, event.time, event.observed_after) == ("projects/201001", 20.0, 10.0)
    assert orjson.loads(event.raw) == {
        "object": {"id": 201001, "name": "B"},
        "version": 3,
        "changes": [{"path": "/name", "before": "A", "after": "B"}],
    }


@pytest.mark.parametrize("kind", [Kind.CREATED, Kind.DELETED])
def test_only_an_update_has_changes(kind: Kind):
    event = told(make_change(kind=kind, fields=()))
    assert event.type == f"nutcache.projects.{kind}"
    assert orjson.loads(event.raw) == {"object": {"id": 201001, "name": "B"}, "version": 3}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (FieldChange(path="/a", after=None, had_before=False), {"path": "/a", "after": None}),
        (FieldChange(path="/a", before=None, has_after=False), {"path": "/a", "before": None}),
        (FieldChange(path="/a", before=None, after=1), {"path": "/a", "before": None, "after": 1}),
        (FieldChange(path="/a", had_before=False, has_after=False), {"path": "/a"}),
    ],
)
def test_an_absent_side_is_left_out_and_null_is_null(field: FieldChange, expected: dict[str, Any]):
    assert orjson.loads(told(make_change(fields=(field,))).raw)["changes"] == [expected]


def test_a_cut_change_says_so():
    assert orjson.loads(told(make_change(truncated=True)).raw)["truncated"] is True
    assert "truncated" not in orjson.loads(told(make_change()).raw)


def test_all_digits_of_a_number_are_told():
    event = told(make_change(object={"id": 10**30}))
    assert b'"id":1000000000000000000000000000000' in event.raw


def test_the_id_is_short_and_safe_in_a_signature():
    assert re.fullmatch(r"[0-9a-f]{32}", told(make_change()).id)


@pytest.mark.parametrize(
    "again",
    [
        make_change(observed_at=99.0, observed_after=None),
        make_change(object={"name": "B", "id": 201001}),
    ],
)
def test_telling_the_same_again_gives_the_same_id(again: Change):
    assert told(again).id == told(make_change()).id


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 4},
        {"object_id": "201002"},
        {"kind": Kind.CREATED},
        {"object": {"id": 201001, "name": "C"}},
        {"object": {"id": "201001", "name": "B"}},
        {"fields": (msgspec.structs.replace(NAME, before="Z"),)},
        {"fields": (msgspec.structs.replace(NAME, had_before=False),)},
        {"fields": ()},
        {"truncated": True},
    ],
)
def test_telling_anything_else_gives_another_id(fields: dict[str, Any]):
    assert told(make_change(**fields)).id != told(make_change()).id


@pytest.mark.parametrize("where", [{"source": "shop"}, {"endpoint": "invoices"}])
def test_the_same_object_elsewhere_has_another_id(where: dict[str, str]):
    assert told(make_change(), **where).id != told(make_change()).id


@given(st.lists(st.tuples(st.text("ab/", min_size=1), st.text("ab/", min_size=1), st.text("ab/")), unique=True))
@settings(max_examples=50, deadline=None)
def test_names_that_run_together_do_not_give_one_id(names: list[tuple[str, str, str]]):
    ids = {
        told(make_change(object_id=object_id), source=source, endpoint=endpoint).id
        for source, endpoint, object_id in names
    }
    assert len(ids) == len(names)


def test_a_notice_is_an_event_of_the_program_itself():
    event = make_notice()
    assert (event.source, event.type, event.subject) == ("/poller", "poller.source.failing", "sources/acme")
    assert orjson.loads(event.raw) == {"summary": "acme fails.", "version": 1, "detail": {"status": 500}}
    assert is_operational(event)
    assert not is_operational(told(make_change()))


def test_a_notice_keeps_its_id_however_it_is_worded_and_whenever():
    assert make_notice(summary="acme does not answer.", time=9.0).id == make_notice().id
    assert make_notice(version=2).id != make_notice().id
    assert make_notice(detail={"status": 502}).id != make_notice().id
