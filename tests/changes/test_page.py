"""An answer's objects, held against what its unit showed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from poller.changes.comparison import CONTENT, PageComparison
from poller.changes.own_url import own_object
from poller.changes.page import LONGEST_ID, MOST_VALUES, EndpointRules, compare
from poller.documents.diff import compile_rules, parse
from poller.sources.paths import identity, unparsed_identity
from poller.sources.protocol import Endpoint, PageError
from state.members import Members


def watch(*, id: str | tuple[str, ...] = "id", exclude: Sequence[str] = (), max_depth: int = 64) -> EndpointRules:
    return EndpointRules(
        source="shop",
        namespace="shop",
        endpoint=Endpoint(name="items", id=id),
        fields=compile_rules(exclude=exclude),
        max_depth=max_depth,
    )


def raw(*objects: bytes) -> list[msgspec.Raw]:
    return msgspec.json.decode(b"[%b]" % b",".join(objects), type=list[msgspec.Raw])


def shown(comparison: PageComparison) -> dict[str, Any]:
    return {one.object_id: one.parsed() for one in comparison.fresh}


def test_what_was_shown_in_the_same_bytes_is_not_fresh_and_what_is_gone_is_missing() -> None:
    before = compare(watch(), raw(b'{"id":1}', b'{"id":2}', b'{"id":3}'), {}).members
    comparison = compare(watch(), raw(b'{"id":3}', b'{"id":1,"a":1}'), before)

    assert shown(comparison) == {"1": {"id": 1, "a": 1}}
    assert [*comparison.members.values()] == ["3", "1"]
    assert list(comparison.missing) == ["2"]
    assert not comparison.is_partial


OBJECTS = st.sampled_from(
    [
        *(b'{"id":%d,"name":"%c"}' % (number, name) for number in range(1, 7) for name in b"ab"),
        b'{"id":1,  "name":"a"}',  # the same in other bytes
        b'{"name":"without an id"}',
        b"7",
    ]
)


PAIR = [b'{"id":1,"name":"a"}', b'{"id":2,"name":"a"}']


@given(
    st.lists(OBJECTS, min_size=1, max_size=8),
    st.dictionaries(st.integers(0, 7), OBJECTS, max_size=3),
    st.sampled_from(["id", CONTENT]),
)
@example(PAIR, {0: b'{"name":"without an id"}'}, "id")
@example(PAIR, {1: b"7"}, CONTENT)
@example(PAIR, {1: PAIR[0]}, "id")
@example(PAIR, {0: PAIR[1], 1: PAIR[0]}, "id")
@example(PAIR, {1: b'{"id":1,  "name":"a"}'}, CONTENT)
@settings(max_examples=300)
def test_edits_in_place_are_found_as_by_comparing_everything(
    before: list[bytes], edits: dict[int, bytes], id: str
) -> None:
    rules = watch(id=id)
    now = [edits.get(place, one) for place, one in enumerate(before)]
    try:
        members = compare(rules, raw(*before), {}).members
        expected = compare(rules, raw(*now), dict(members))
    except PageError:
        return
    found = compare(rules, raw(*now), Members.of(members))

    assert [*found.members.items()] == [*expected.members.items()]
    assert list(found.fresh) == list(expected.fresh)
    assert {*found.unsure, *found.doubles, *found.notes} == {*expected.unsure, *expected.doubles, *expected.notes}
    assert found.is_partial == expected.is_partial
    assert set(found.missing) == set(expected.missing)


@pytest.mark.parametrize("odd", [b"7", b'"text"', b"null", b"[1]", b"true"])
def test_a_list_of_something_else_is_no_page(odd: bytes) -> None:
    with pytest.raises(PageError, match="none of its objects can be used"):
        compare(watch(), raw(odd), {})


@pytest.mark.parametrize(("odd", "noun"), [(b"7", "a number"), (b'"text"', "text"), (b"null", "null")])
def test_what_is_no_object_among_objects_is_set_aside_with_its_place(odd: bytes, noun: str) -> None:
    before = compare(watch(), raw(b'{"id":1}', b'{"id":2}'), {}).members
    comparison = compare(watch(), raw(b'{"id":1}', odd, b'{"id":3}'), before)

    assert list(shown(comparison)) == ["3"]
    assert (list(comparison.missing), list(comparison.unsure)) == ([], ["2"])  # it may be any object
    assert comparison.notes == [f"1 object given as {noun} set aside (index 1)"]


def test_an_object_that_cannot_be_read_is_set_aside_by_its_id_and_the_others_are_concluded_on() -> None:
    before = compare(watch(), raw(b'{"id":1,"a":1}', b'{"id":2}', b'{"id":3}'), {}, prefix="p/").members
    broken = msgspec.Raw(b'{"id":1,"a":"\xff\xfe"}')
    comparison = compare(watch(), [broken, *raw(b'{"id":2}')], before, prefix="p/")

    assert not comparison.is_partial
    assert (list(comparison.missing), list(comparison.unsure)) == (["p/3"], ["p/1"])
    assert comparison.notes == ["1 object with NaN or Infinity set aside (index 0: p/1)"]


@pytest.mark.parametrize("odd", [b'{"a":1}', b'{"id":null}', b'{"id":""}', b'{"id":true}', b'{"id":"a\\u0000b"}'])
def test_an_object_without_an_id_is_set_aside_and_nothing_is_concluded(odd: bytes) -> None:
    before = compare(watch(), raw(b'{"id":1}', b'{"id":2}'), {}).members
    comparison = compare(watch(), raw(b'{"id":1}', odd), before)

    assert comparison.is_partial
    assert (list(comparison.missing), list(comparison.unsure)) == ([], ["2"])
    assert comparison.notes == ["1 object without an id (`id`) set aside (index 1)"]


@pytest.mark.parametrize("prefix", ["", "p/"])
@pytest.mark.parametrize(("letter", "size"), [("x", 1), ("é", 2), ("\\u00e9", 2)])
def test_an_id_that_is_too_long_is_set_aside(letter: str, size: int, prefix: str) -> None:
    most = (LONGEST_ID - len(prefix)) // size
    objects = raw(*(f'{{"id":"{letter * length}"}}'.encode() for length in (most, most + 1)))
    comparison = compare(watch(), objects, {}, prefix=prefix)

    ((kept, _),) = shown(comparison).items()
    assert len(kept) == len(prefix) + most
    assert not comparison.is_partial
    (note,) = comparison.notes
    assert note.startswith(f"1 object with an id of more than 2,000 bytes set aside (index 1: {prefix}")
    assert len(note) < 300


def test_a_page_without_any_id_is_no_page() -> None:
    with pytest.raises(PageError, match=r"none of its objects can be used: 2 objects without an id"):
        compare(watch(), raw(b'{"a":1}', b'{"a":2}'), {})


def test_a_text_that_is_no_utf_8_is_set_aside() -> None:
    comparison = compare(watch(), [msgspec.Raw(b'{"id":1,"a":"\xff"}'), *raw('{"id":2,"a":"é"}'.encode())], {})

    assert shown(comparison) == {"2": {"id": 2, "a": "é"}}
    assert list(comparison.unsure) == ["1"]
    assert comparison.notes == ["1 object with text that is not UTF-8 set aside (index 0: 1)"]


@pytest.mark.parametrize("nested", [b'{"id":1,"a":[[[1]]]}', b'{"id":1,"a":{"b":{"c":{}}}}'])
def test_an_object_nested_too_deeply_is_set_aside(nested: bytes) -> None:
    flat = b'{"id":2,"a":[1],"b":{},"c":"[[[[[[{{{{"}'
    comparison = compare(watch(max_depth=3), raw(nested, flat), {})

    assert list(shown(comparison)) == ["2"]
    assert comparison.notes == ["1 object nested deeper than max_depth = 3 set aside (index 0: 1)"]


def test_an_object_of_too_many_values_is_set_aside() -> None:
    large = b'{"id":1,"a":[%b]}' % b",".join([b"0"] * MOST_VALUES)
    long = b'{"id":2,"a":"%b"}' % (b"x" * 2 * MOST_VALUES)
    comparison = compare(watch(), raw(large, long), {})

    assert [one.object_id for one in comparison.fresh] == ["2"]
    assert comparison.notes == ["1 object of more than 200,000 values set aside (index 0: 1)"]
    assert own_object(watch(), large, "1") is None


@pytest.mark.parametrize(
    ("number", "given"), [(b"1e400", "1e400"), (b"-1.5e999", "-1.5e999"), (b"9" * 5000, "9" * 5000), (b"1e4", 1e4)]
)
def test_a_number_that_nothing_can_hold_is_given_as_its_text(number: bytes, given: Any) -> None:
    comparison = compare(watch(), raw(b'{"id":1,"a":%b}' % number), {})

    assert shown(comparison) == {"1": {"id": 1, "a": given}}


@pytest.mark.parametrize("number", [b"1e400", b"7" * 2000])
def test_an_id_that_is_no_number_anybody_can_hold_is_its_text(number: bytes) -> None:
    comparison = compare(watch(), raw(b'{"id":%b}' % number, b'{"id":1}'), {})

    assert [one.object_id for one in comparison.fresh] == [number.decode(), "1"]


def test_an_object_spread_over_lines_is_kept_on_one() -> None:
    [one] = compare(watch(), raw(b'{\n "id": 1,\n "a": "b\\nc"\n}'), {}).fresh

    assert one.body == b'{"id":1,"a":"b\\nc"}'


def test_an_id_is_that_of_the_object_as_it_came_also_where_a_field_is_excluded() -> None:
    [one] = compare(watch(id="$.*.id", exclude=["/first"]), raw(b'{"first":{"id":1},"second":{"id":2}}'), {}).fresh

    assert (one.object_id, one.body) == ("1", b'{"second":{"id":2}}')


def test_excluded_fields_are_not_kept() -> None:
    [one] = compare(watch(exclude=["/secret"]), raw(b'{"id":1,"secret":2}'), {}).fresh

    assert one.body == b'{"id":1}'


@pytest.mark.parametrize("twice", [(b'{"id":1,"a":1}', b'{"id":1,"a":2}'), (b'{"id":1,"a":2}', b'{"id":1}')])
def test_two_different_objects_under_one_id_are_told_of_neither(twice: tuple[bytes, bytes]) -> None:
    before = compare(watch(), raw(b'{"id":1}', b'{"id":2}'), {}).members
    comparison = compare(watch(), raw(*twice, b'{"id":2}'), before)

    assert list(comparison.fresh) == []
    assert (list(comparison.missing), list(comparison.unsure)) == ([], ["1"])
    assert comparison.notes == ["1 id shown more than once with different content set aside (1)"]


def test_the_same_object_twice_is_one() -> None:
    comparison = compare(watch(), raw(b'{"id":1}', b'{"id":1}'), {})

    assert [one.object_id for one in comparison.fresh] == ["1"]
    assert not comparison.notes


def test_where_objects_are_their_content_the_second_of_two_equals_is_another() -> None:
    set_of = watch(id=CONTENT)
    first = compare(set_of, raw(b'{"a":1}', b'{"a":1}', b'{"a":1.0}'), {})
    names = [one.object_id for one in first.fresh]
    again = compare(set_of, raw(b'{"a":1}', b'{"a":1.0}'), first.members)

    assert names == [names[0], f"{names[0]}#2", f"{names[0]}#3"]
    assert not again.fresh
    assert list(again.missing) == [f"{names[0]}#2"]


keys = st.sampled_from(["id", "data", "a"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(keys, values), max_size=5), st.sampled_from(["id", "data.id", "$.data.id"]))
def test_reading_the_id_alone_gives_what_the_whole_object_has(objects: list[Mapping[str, Any]], spec: str) -> None:
    bodies = [msgspec.json.encode(one) for one in objects]
    identify, identify_unparsed = identity(spec), unparsed_identity(spec)
    assert identify_unparsed is not None
    ids = [identify(parse(body)) for body in bodies]
    try:
        found = identify_unparsed(b"[%b]" % b",".join(bodies))
    except msgspec.DecodeError:
        assert None in ids
    else:
        assert found == ids


@pytest.mark.parametrize("spec", [("a", "b"), "content", "$..id", "$.list[0].id"])
def test_an_id_that_takes_more_than_one_plain_path_is_read_from_the_whole_object(spec: str | tuple[str, ...]) -> None:
    assert unparsed_identity(spec) is None


def test_a_key_that_is_written_otherwise_is_the_same_key() -> None:
    comparison = compare(watch(), raw(b'{"\\u0069d":1}', b'{"id":"x"}'), {})

    assert shown(comparison) == {"1": {"id": 1}, "x": {"id": "x"}}


@pytest.mark.parametrize("prefix", ["", "7/"])
def test_only_the_edited_object_of_a_page_gets_objects_of_its_own(prefix: str) -> None:
    bodies = [b'{"id":%d}' % one for one in range(100)]
    before = Members.of(compare(watch(), raw(*bodies), {}, prefix=prefix).members)
    bodies[37] = b'{"id":37,"name":"new"}'

    comparison = compare(watch(), raw(*bodies), before, prefix=prefix)

    assert shown(comparison) == {f"{prefix}37": {"id": 37, "name": "new"}}
    assert comparison.members == compare(watch(), raw(*bodies), {}, prefix=prefix).members
    assert before._by_digest is None
