"""Laws of fingerprint, diff and parse, on generated JSON."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.documents.diff import Rules, compile_rules, diff, dump, fingerprint, parse, pointer, steps
from state.records import FieldChange

NONE = compile_rules()
RULES = st.sampled_from(
    [
        NONE,
        compile_rules(ignore=["/a"]),
        compile_rules(ignore=["/b/*"], exclude=["/c/*/a"]),
        compile_rules(unordered=["/a", "/b/*", "/*/id"]),
        compile_rules(ignore=["/*/*/a"], unordered=["/c/*/b", "/b"]),
    ]
)

numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e16, 10**16, 1e20, 10**20, 2**63, -(2**64), 2**70 + 1, 1e-7, 1e300]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(["", "1", "x.0,", "},{", "e+16,", "é", "a/b~"]))
keys = st.sampled_from(["a", "b", "c", "id", "a/b", "~"])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    identified = st.dictionaries(st.sampled_from([1, 2, 3, "x"]), st.dictionaries(keys, inner, max_size=2), max_size=3)
    return st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        identified.map(lambda found: [{**found[key], "id": key} for key in sorted(found, key=str)]),
    )


values = st.recursive(scalars, containers, max_leaves=12)
objects = st.dictionaries(keys, values, max_size=4)


@st.composite
def edited(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """An object, and mostly the same object with a few edits: unrelated ones would seldom share anything."""
    before = draw(objects)
    return before, draw(st.one_of(st.just(before), edits(before), objects))


def edits(value: Any) -> st.SearchStrategy[Any]:
    if isinstance(value, dict):
        return st.fixed_dictionaries({}, optional={key: edits(item) for key, item in value.items()}).flatmap(
            lambda kept: st.dictionaries(keys.filter(lambda key: key != "id"), values, max_size=1).map(
                lambda more: {**kept, **more}
            )
        )
    if isinstance(value, list):
        return st.tuples(*(st.one_of(st.just(item), edits(item)) for item in value)).map(list)
    return st.one_of(st.just(value), st.just(value), scalars)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same value with other orders of keys and, where an int has a float, the float."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], rng) for key in rng.sample(list(value), len(value))}
    if isinstance(value, list):
        return [shuffled(item, rng) for item in value]
    if type(value) is int and abs(value) < 2**53 and rng.random() < 0.5:
        return float(value)
    return value


def applied(before: Any, fields: list[tuple[tuple[str, ...], FieldChange]]) -> Any:
    """The value after these changes, for arrays in which no element that stayed moved past another."""
    for path, field in fields:
        if not path:
            return field.after
    if isinstance(before, dict):
        return applied_to_object(before, fields)
    return applied_to_array(before, fields) if fields else before


def below(fields: list[tuple[tuple[str, ...], FieldChange]], step: str) -> list[tuple[tuple[str, ...], FieldChange]]:
    return [(path[1:], field) for path, field in fields if path[0] == step]


def applied_to_object(before: dict[str, Any], fields: list[tuple[tuple[str, ...], FieldChange]]) -> dict[str, Any]:
    after = dict(before)
    for step in {path[0] for path, _ in fields}:
        inner = below(fields, step)
        if inner[0][0] == () and not inner[0][1].has_after:
            del after[step]
        else:
            after[step] = applied(before.get(step), inner)
    return after


def applied_to_array(before: list[Any], fields: list[tuple[tuple[str, ...], FieldChange]]) -> list[Any]:
    removed = {int(path[0]) for path, field in fields if len(path) == 1 and not field.has_after}
    after = [item for index, item in enumerate(before) if index not in removed]
    added = [(int(path[0]), field.after) for path, field in fields if len(path) == 1 and not field.had_before]
    for index, item in sorted(added, key=lambda pair: pair[0]):
        after.insert(index, item)
    deep = [(path, field) for path, field in fields if len(path) > 1]
    return [applied(item, below(deep, str(index))) for index, item in enumerate(after)]


@given(edited(), RULES)
@settings(max_examples=400, deadline=None)
@example(({"a": True}, {"a": 1}), NONE)
@example(({"a": None}, {}), NONE)
@example(({"a": [{"id": 1}, {"id": 1.0}]}, {"a": [{"id": 1}]}), NONE)
def test_there_is_no_difference_exactly_when_the_fingerprints_are_equal(
    pair: tuple[dict[str, Any], dict[str, Any]], rules: Rules
):
    before, after = pair
    assert bool(diff(before, after, rules)) == (fingerprint(before, rules) != fingerprint(after, rules))


@given(edited(), RULES)
@settings(max_examples=400, deadline=None)
def test_applying_the_changes_to_the_old_object_gives_the_new_one(
    pair: tuple[dict[str, Any], dict[str, Any]], rules: Rules
):
    before, after = pair
    found = diff(before, after, rules)
    assert not found.truncated
    result = applied(before, [(steps(field.path), field) for field in found.fields])
    assert fingerprint(result, rules) == fingerprint(after, rules)
    assert not diff(result, after, rules)


@given(objects, RULES, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_keys_and_the_spelling_of_numbers_never_matter(
    obj: dict[str, Any], rules: Rules, rng: random.Random
):
    other = shuffled(obj, rng)
    assert fingerprint(other, rules) == fingerprint(obj, rules)
    assert diff(obj, other, rules).fields == ()


@given(objects)
@settings(max_examples=200, deadline=None)
def test_what_is_dumped_is_parsed_to_the_same_value(obj: dict[str, Any]):
    raw = dump(obj)
    assert fingerprint(parse(raw), NONE) == fingerprint(obj, NONE)
    assert json.loads(raw) == obj


@given(st.lists(st.one_of(st.text(), st.integers(0, 9)), min_size=1))
def test_a_pointer_leads_back_to_its_steps(path: list[str | int]):
    assert steps(pointer(path)) == tuple(str(step) for step in path)
