from __future__ import annotations

from typing import Any

import orjson
import pytest

from poller.events.filters import ExpressionError, Filter, FilterError, ObjectRule, matcher
from state.records import Event


def make_event(data: dict[str, Any] | None = None, **fields: Any) -> Event:
    defaults: dict[str, Any] = {
        "id": "e1",
        "seq": 1,
        "source": "/sources/acme",
        "type": "nutcache.projects.updated",
        "subject": "projects/7",
        "time": 1.0,
        "observed_after": None,
        "raw": orjson.dumps(data or {}),
    }
    return Event(**{**defaults, **fields})


def make_notice(**fields: Any) -> Event:
    return make_event(**{"source": "/poller", "type": "poller.gap", "subject": "endpoints/acme/projects", **fields})


@pytest.mark.parametrize(
    ("globs", "type_", "expected"),
    [
        (["*"], "nutcache.projects.updated", True),
        (["nutcache.projects.*"], "nutcache.projects.updated", True),
        (["nutcache.projects.*"], "nutcache.project_tasks.updated", False),
        (["nutcache.*"], "nutcache.projects.updated", True),
        (["*.deleted"], "nutcache.projects.updated", False),
        (["*.deleted", "*.updated"], "nutcache.projects.updated", True),
        (["nutcache.projects.update?"], "nutcache.projects.updated", True),
        (["nutcache.projects"], "nutcache.projects.updated", False),
        (["nutcache?projects.[u]pdated"], "nutcache.projects.updated", False),
        ([], "nutcache.projects.updated", False),
    ],
)
def test_a_star_in_a_type_crosses_dots_and_a_whole_type_is_matched(globs: list[str], type_: str, expected: bool):
    assert matcher(globs)(type_) is expected
    assert Filter(types=globs).matches(make_event(type=type_)) is expected


@pytest.mark.parametrize(
    ("sources", "expected"), [((), True), (("acme",), True), (("shop", "acme"), True), (("acm",), False)]
)
def test_sources_are_names(sources: tuple[str, ...], expected: bool):
    assert Filter(sources=sources).matches(make_event()) is expected


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["*"], False),
        (["*gap"], False),
        (["p*"], False),
        (["poller*"], False),
        (["poller.*"], True),
        (["*", "poller.gap"], True),
    ],
)
def test_operational_events_reach_only_those_who_name_them(types: list[str], expected: bool):
    assert Filter(types=types, sources=["shop"]).matches(make_notice()) is expected


def test_a_subscription_hears_nothing_about_itself():
    about_crm = make_notice(type="poller.subscription.failing", subject="subscriptions/crm")
    assert not Filter(types=["poller.*"], subscription="crm").matches(about_crm)
    assert Filter(types=["poller.*"], subscription="ops").matches(about_crm)


def test_a_source_with_the_namespace_poller_is_a_source():
    assert Filter().matches(make_event(type="poller.projects.created"))


@pytest.mark.parametrize("amount", ["1500", "1500.0", "1.5e3", "1500.5"])
@pytest.mark.parametrize(
    "where",
    [
        "data.object.amount > 1000.0",
        "data.object.amount > 1000",
        "data.object.amount >= 1500",
        "1000 < data.object.amount && data.object.amount < 2000.0",
        "data.object.amount * 1.5 > 2000.0",
        "data.object.amount + data.object.amount / 2.0 > 2000.0",
    ],
)
def test_numbers_count_by_value_however_they_are_spelled(amount: str, where: str):
    event = make_event(raw=f'{{"object": {{"amount": {amount}}}}}'.encode())
    assert Filter(where=where).matches(event)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("data.object.status == 'won' && data.version > 1", True),
        ("type.endsWith('.updated') && source == '/sources/acme'", True),
        ("subject.startsWith('projects/')", True),
        ("data.changes.exists(change, change.path == '/status')", True),
        ("has(data.object.missing)", False),
        ("'vip' in data.object.tags", True),
        ("data.object.paid == null", True),
        ("data.object.number % 2 == 1", True),
        ("data.object.digits > 9000000000000000000.0", True),
        ("timestamp(data.object.at) > timestamp('2026-01-01T00:00:00Z')", True),
        ("data.object.tags.filter(tag, tag.startsWith('v')).size() == 1", True),
    ],
)
def test_where_sees_type_source_subject_and_data(where: str, expected: bool):
    data = {
        "object": {
            "status": "won",
            "tags": ["vip", "new"],
            "paid": None,
            "number": 3.0,
            "digits": 2**63,
            "at": "2026-11-23T22:25:32Z",
        },
        "version": 2,
        "changes": [{"path": "/status", "before": "open", "after": "won"}],
    }
    assert Filter(where=where).matches(make_event(data)) is expected


@pytest.mark.parametrize(
    "where",
    [
        "size(data.object) == 3",
        "'b' in data.object",
        "data.object['b'] == 2",
        "data.object.exists(key, key == 'c')",
        "data.object.exists (key, key == 'c')",
        "data.object.a == 1 && data . object . b == 2",
        "data.object == {'a': 1, 'b': 2, 'c': 3}",
        "data.object.data.object.d == 4",
        "data.object.a == 1 && size(data) == 3",
        "data.version == 2 && data.changes[0].after == 2 && data.object.b == data.changes[0].after",
        "data.object.a == 1 && data.object.ab == 3 || data.object.a == 1",
    ],
)
def test_every_way_to_reach_a_field_sees_it(where: str):
    obj = {"a": 1, "b": 2, "c": 3} if "data.object.data" not in where else {"data": {"object": {"d": 4}}}
    event = make_event({"object": obj, "version": 2, "changes": [{"path": "/b", "after": 2}]})
    assert Filter(where=where).matches(event)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("data.object.missing == 1", "there is no 'missing'"),
        ("data.object.name > 3", "No such overload"),
        ("data.version / 0 == 1", "division by zero"),
        ("data.object.name", "neither true nor false"),
        ("data.object.name.matches('(')", "not a valid regex"),
    ],
)
def test_an_expression_without_an_answer_says_why(where: str, says: str):
    with pytest.raises(FilterError, match="(?s)" + says):
        Filter(where=where).matches(make_event({"object": {"name": "A"}, "version": 1}))


def test_where_is_asked_only_about_events_of_its_types():
    assert not Filter(types=["shop.*"], where="data.missing == 1").matches(make_event())


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("data.object.amount >", "it ends too early"),
        ("", "it ends too early"),
        ("(data.version", "column 14: '\\)' is missing"),
        ("data.version = 1", "column 14: '=' is not understood here"),
        ("data.version == 1 and true", "column 19: 'and' is not understood here"),
        ("subject == “a”", "column 12: '“' is not understood here"),
        ("[1,2", "it ends too early"),
        ("object.amount > 3", "'object' is unknown"),
        ("data.version == 1 && nope", "'nope' is unknown"),
        ("lower(subject) == 'a'", "no function 'lower'"),
        ("subject.lower() == 'a'", "no function 'lower'"),
    ],
)
def test_an_expression_that_can_never_work_is_refused_with_the_place(where: str, says: str):
    with pytest.raises(ExpressionError, match=says):
        Filter(where=where)


def test_an_object_rule_tells_a_soft_deletion():
    rule = ObjectRule("object.status == 7 || has(object.deleted_at) && object.deleted_at != null")
    assert rule.holds({"status": 7.0})
    assert rule.holds({"status": 1, "deleted_at": "2026-11-23"})
    assert not rule.holds({"status": 1})


def test_an_object_rule_without_an_answer_concludes_nothing():
    with pytest.raises(FilterError) as caught:
        ObjectRule("object.status == 7").holds({"state": 7})
    assert "has(" in str(caught.value.hint)


def test_an_expression_that_would_take_for_ever_has_no_answer() -> None:
    lines = [{"id": number} for number in range(5000)]
    event = make_event({"object": {"id": 1, "lines": lines}})
    nested = "data.object.lines.all(a, data.object.lines.all(b, a.id != b.id || true))"

    with pytest.raises(FilterError, match="2 macros within each other over a list of 5,000 take too long"):
        Filter(where=nested).matches(event)
    assert Filter(where=nested).matches(make_event({"object": {"lines": lines[:200]}}))
    assert Filter(where="data.object.lines.all(a, a.id >= 0) && 'all(all(all(' != ''").matches(event)


def test_an_expression_of_endless_length_is_refused() -> None:
    with pytest.raises(ExpressionError, match="has more than 4,096 characters"):
        Filter(where="true && " * 1000 + "true")


def test_macros_three_deep_over_short_lists_have_an_answer() -> None:
    where = "data.object.a.exists(x, x.b.exists(y, y.c.exists(z, z == 1)))"

    assert Filter(where=where).matches(make_event({"object": {"a": [{"b": [{"c": [1]}]}]}}))
