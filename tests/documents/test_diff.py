from __future__ import annotations

from typing import Any

import msgspec
import pytest

from poller.documents.diff import (
    DEPTH,
    ParseError,
    PointerError,
    Rules,
    compared,
    compile_rules,
    diff,
    dump,
    fingerprint,
    parse,
    steps,
    stored,
)
from state.records import FieldChange

NONE = compile_rules()


def changed(path: str, before: Any, after: Any) -> FieldChange:
    return FieldChange(path=path, before=before, after=after)


def added(path: str, after: Any) -> FieldChange:
    return FieldChange(path=path, after=after, had_before=False)


def removed(path: str, before: Any) -> FieldChange:
    return FieldChange(path=path, before=before, has_after=False)


def are_equal(before: dict[str, Any], after: dict[str, Any], rules: Rules = NONE) -> bool:
    """Both ways of telling, which must agree."""
    same = fingerprint(before, rules) == fingerprint(after, rules)
    assert same == (not diff(before, after, rules))
    return same


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"name": "A"}, {"name": "B"}, [changed("/name", "A", "B")]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, [changed("/a/b/c", 1, 2)]),
        ({}, {"a": None}, [added("/a", None)]),
        ({"a": None}, {}, [removed("/a", None)]),
        ({"a": None}, {"a": 0}, [changed("/a", None, 0)]),
        ({"a": 1}, {"a": True}, [changed("/a", 1, True)]),
        ({"a": 0.0}, {"a": False}, [changed("/a", 0.0, False)]),
        ({"a": 1}, {"a": "1"}, [changed("/a", 1, "1")]),
        ({"a": {"b": 1}}, {"a": [1]}, [changed("/a", {"b": 1}, [1])]),
        ({"a": {}}, {"a": []}, [changed("/a", {}, [])]),
        ({"a": [1, 2]}, {"a": [2, 1]}, [changed("/a", [1, 2], [2, 1])]),
        ({"a": ["x"]}, {"a": ["x", "y"]}, [changed("/a", ["x"], ["x", "y"])]),
        ({"b": 1, "a": 1}, {"c": 1, "a": 2}, [changed("/a", 1, 2), removed("/b", 1), added("/c", 1)]),
        ({"a/b": {"~": 1}}, {"a/b": {"~": 2}}, [changed("/a~1b/~0", 1, 2)]),
        ({"": 1}, {"": 2}, [changed("/", 1, 2)]),
        ({"a": 10**30}, {"a": 10**30 + 1}, [changed("/a", 10**30, 10**30 + 1)]),
        ({"a": 2**53}, {"a": 2**53 + 1}, [changed("/a", 2**53, 2**53 + 1)]),
        ({"a": "\u00e9"}, {"a": "e\u0301"}, [changed("/a", "\u00e9", "e\u0301")]),
        ({"a": "x.0, y"}, {"a": "x, y"}, [changed("/a", "x.0, y", "x, y")]),
    ],
)
def test_each_changed_field_is_told_by_its_path(
    before: dict[str, Any], after: dict[str, Any], expected: list[FieldChange]
):
    assert list(diff(before, after, NONE).fields) == expected
    assert not are_equal(before, after)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}'),
        (b'{"a": 1}', b'{"a": 1.0}'),
        (b'{"a": 10}', b'{"a": 1e1}'),
        (b'{"a": -0.0}', b'{"a": 0}'),
        (b'{"a": 1e20}', b'{"a": 100000000000000000000}'),
        (b'{"a": [1.0, {"b": 2.0}]}', b'{"a": [1, {"b": 2}]}'),
        (b'{"a": 0.1}', b'{"a": 0.10000000000000000001}'),
        (b'{"a": "\\u00e9"}', '{"a": "é"}'.encode()),
    ],
)
def test_spelling_is_no_change(one: bytes, other: bytes):
    assert are_equal(parse(one), parse(other))


def test_elements_with_ids_are_matched_wherever_they_stand():
    before = {"lines": [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}, {"id": 3, "n": "c"}]}
    after = {"lines": [{"id": 4, "n": "d"}, {"id": 3, "n": "c"}, {"id": 1, "n": "z"}]}
    assert list(diff(before, after, NONE).fields) == [
        removed("/lines/1", {"id": 2, "n": "b"}),
        added("/lines/0", {"id": 4, "n": "d"}),
        changed("/lines/2/n", "a", "z"),
    ]


def test_a_new_order_of_elements_with_ids_is_no_change():
    assert are_equal({"a": [{"id": 1}, {"id": "1"}, {"id": 2.5}]}, {"a": [{"id": 2.5}, {"id": 1.0}, {"id": "1"}]})


@pytest.mark.parametrize(
    "array",
    [
        [{"id": 1}, {"id": 1, "n": 2}],
        [{"id": 1}, {"id": 1.0, "n": 2}],
        [{"id": 1}, {"n": 2}],
        [{"id": 1}, 3],
        [{"id": None}, {"id": 2}],
        [{"id": True}, {"id": 2}],
        [{"id": [1]}, {"id": 2}],
    ],
)
def test_an_array_in_which_an_id_is_missing_or_not_unique_is_given_whole(array: list[Any]):
    assert list(diff({"a": array}, {"a": array[::-1]}, NONE).fields) == [changed("/a", array, array[::-1])]
    assert not are_equal({"a": array}, {"a": array[::-1]})


def test_elements_join_and_leave_an_empty_array():
    assert list(diff({"a": []}, {"a": [{"id": 1}]}, NONE).fields) == [added("/a/0", {"id": 1})]
    assert list(diff({"a": [{"id": 1}]}, {"a": []}, NONE).fields) == [removed("/a/0", {"id": 1})]


@pytest.mark.parametrize(
    ("unordered", "one", "other", "equal"),
    [
        ("/tags", {"tags": ["a", "b"]}, {"tags": ["b", "a"]}, True),
        ("/tags", {"tags": ["a", "a", "b"]}, {"tags": ["a", "b", "b"]}, False),
        ("/tags", {"tags": ["a"]}, {"tags": ["a", "a"]}, False),
        ("/tags", {"tags": [1.0, 2]}, {"tags": [2.0, 1]}, True),
        ("/tags", {"tags": [{"x": 1}, {"y": 2.0}]}, {"tags": [{"y": 2}, {"x": 1}]}, True),
        ("/other", {"tags": ["a", "b"]}, {"tags": ["b", "a"]}, False),
        ("/lines/*/tags", {"lines": [{"id": 1, "tags": [1, 2]}]}, {"lines": [{"id": 1, "tags": [2, 1]}]}, True),
        ("/lines/*/tags", {"lines": [{"tags": [1, 2]}]}, {"lines": [{"tags": [2, 1]}]}, True),
        ("/rows/*", {"rows": [[1, 2], [3]]}, {"rows": [[2, 1], [3]]}, True),
        ("/rows/*", {"rows": [[1, 2], [3]]}, {"rows": [[3], [1, 2]]}, False),
    ],
)
def test_an_unordered_array_is_a_multiset(unordered: str, one: dict[str, Any], other: dict[str, Any], equal: bool):
    assert are_equal(one, other, compile_rules(unordered=[unordered])) is equal


def test_an_unordered_array_that_changed_is_given_as_it_stands():
    found = diff({"tags": ["b", "a"]}, {"tags": ["c", "a"]}, compile_rules(unordered=["/tags"]))
    assert list(found.fields) == [changed("/tags", ["b", "a"], ["c", "a"])]


@pytest.mark.parametrize(
    ("pointer", "left"),
    [
        ("/a", {"b": [{"c": 1, "d": 2}, {"c": 3}], "*": {"x": {"y": 1}}}),
        ("/b", {"a": 1, "*": {"x": {"y": 1}}}),
        ("/b/*/c", {"a": 1, "b": [{"d": 2}, {}], "*": {"x": {"y": 1}}}),
        ("/b/*", {"a": 1, "b": [], "*": {"x": {"y": 1}}}),
        ("/b/0", {"a": 1, "b": [None, {"c": 3}], "*": {"x": {"y": 1}}}),
        ("/b/0/c", {"a": 1, "b": [{"d": 2}, {"c": 3}], "*": {"x": {"y": 1}}}),
        ("/b/7", {"a": 1, "b": [{"c": 1, "d": 2}, {"c": 3}], "*": {"x": {"y": 1}}}),
        ("/*/*/y", {"a": 1, "b": [{"c": 1, "d": 2}, {"c": 3}], "*": {"x": {}}}),
        ("/*/x", {"a": 1, "b": [{"c": 1, "d": 2}, {"c": 3}], "*": {}}),
        ("/*", {}),
        ("/missing/deeper", {"a": 1, "b": [{"c": 1, "d": 2}, {"c": 3}], "*": {"x": {"y": 1}}}),
    ],
)
def test_pointers_leave_fields_out(pointer: str, left: dict[str, Any]):
    obj = {"a": 1, "b": [{"c": 1, "d": 2}, {"c": 3}], "*": {"x": {"y": 1}}}
    before = dump(obj)
    assert stored(obj, compile_rules(exclude=[pointer])) == left
    assert compared(obj, compile_rules(ignore=[pointer])) == left
    assert dump(obj) == before


def test_what_is_ignored_is_stored_and_what_is_excluded_is_not():
    rules = compile_rules(ignore=["/seen"], exclude=["/secret"])
    assert stored({"id": 1, "seen": 2, "secret": 3}, rules) == {"id": 1, "seen": 2}
    assert are_equal({"id": 1, "seen": 2, "secret": 3}, {"id": 1, "seen": 4}, rules)


def test_a_changed_array_is_told_without_what_is_ignored_in_it():
    rules = compile_rules(ignore=["/a/*/seen"])
    found = diff({"a": [{"n": 1, "seen": 1}]}, {"a": [{"n": 2, "seen": 9}]}, rules)
    assert list(found.fields) == [changed("/a", [{"n": 1}], [{"n": 2}])]


def test_an_object_without_excluded_fields_is_not_copied():
    obj = {"id": 1}
    assert stored(obj, NONE) is obj
    assert stored(obj, compile_rules(exclude=["/secret", "/a/b"])) is obj


@pytest.mark.parametrize("pointer", ["", "name", "#/name", "/a~", "/a~2b", "/~x/b"])
def test_a_bad_pointer_is_named(pointer: str):
    with pytest.raises(PointerError, match=r"JSON Pointer|must be followed") as caught:
        compile_rules(ignore=[pointer])
    assert repr(pointer) in str(caught.value)


def test_pointer_steps_are_unescaped_once():
    assert steps("/a~1b/~01/*") == ("a/b", "~1", "*")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"NaN", b"[Infinity]", b"[1e400,NaN]", b"01", b'"\xff"', b"\xef\xbb\xbf{}", b"<html>"]
)
def test_what_is_no_json_is_refused(raw: bytes):
    with pytest.raises(ParseError):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"1e400", "1e400"),
        (b'{"a":[-1E+999,1.5],"b":"1e400"}', {"a": ["-1E+999", 1.5], "b": "1e400"}),
        (b"7" * 5000, "7" * 5000),
        (b"7" * 400, int("7" * 400)),
        (b"1e-400", 0.0),
    ],
)
def test_a_number_that_nothing_can_hold_is_its_text(raw: bytes, value: object):
    assert parse(raw) == value
    assert parse(dump(parse(raw))) == value


def test_json_nested_without_end_is_refused():
    with pytest.raises(ParseError, match="nested too deeply"):
        parse(b"[" * 100_000 + b"]" * 100_000)


def test_raw_parts_of_a_page_are_parsed_with_all_digits():
    assert parse(msgspec.Raw(b'{"id": 123456789012345678901234567890}')) == {"id": 123456789012345678901234567890}
    assert dump({"id": 123456789012345678901234567890}) == b'{"id":123456789012345678901234567890}'


def nested(depth: int, leaf: Any) -> dict[str, Any]:
    for _ in range(depth):
        leaf = {"a": leaf}
    return leaf


def test_a_change_far_down_is_told_at_the_depth_limit():
    found = diff(nested(200, 1), nested(200, 2), NONE)
    assert [field.path for field in found.fields] == ["/a" * DEPTH]
    assert not are_equal(nested(200, 1), nested(200, 2))
    assert are_equal(nested(DEPTH, 1), nested(DEPTH, 1.0))


def test_objects_nested_deeper_than_the_encoder_goes_are_still_compared():
    assert are_equal(nested(300, 1), nested(300, 1))
    assert not are_equal(nested(300, 1), nested(300, 2))


def test_fields_beyond_the_limit_are_cut_and_it_is_said():
    before, after = ({f"k{number:03}": value for number in range(200)} for value in (1, 2))
    found = diff(before, after, NONE, most=100)
    assert len(found.fields) == 100
    assert found.truncated
    assert not diff(before, after, NONE, most=200).truncated


def test_values_beyond_the_size_limit_leave_their_paths():
    found = diff({"a": 1, "big": "x" * 600, "c": 1}, {"a": 2, "big": "y" * 600, "c": 2}, NONE, most_bytes=1000)
    assert found.truncated
    assert [field.path for field in found.fields] == ["/a", "/big", "/c"]
    assert [(field.had_before, field.has_after) for field in found.fields] == [
        (True, True),
        (False, False),
        (True, True),
    ]
