"""The parts of comparing a page: what is set aside and why, answers of a chain, and pages that look alike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.changes.aside import SetAside, id_of_unreadable, note_of, summary_of
from poller.changes.comparison import CONTENT, digest_of
from poller.changes.endpoint_rules import EndpointRules
from poller.changes.page import (
    FEW,
    MOST_OBJECTS,
    MOST_VALUES,
    compare,
    digests_of,
    gathered,
    has_too_many_values,
    is_too_deep,
    look_alike,
    quick_ids,
)
from poller.documents.diff import compile_rules
from poller.sources.protocol import Endpoint, PageError, Unparsed


def make_rules(
    *, id: str | tuple[str, ...] = "id", max_depth: int = 64, normalise: Any = None, **fields: Any
) -> EndpointRules:
    return EndpointRules(
        source="shop",
        namespace="shop",
        endpoint=Endpoint(name="items", id=id, normalise=normalise),
        fields=compile_rules(**fields),
        max_depth=max_depth,
    )


def raw(*objects: bytes) -> list[msgspec.Raw]:
    return [msgspec.Raw(one) for one in objects]


# What is set aside


def aside(*whys: str) -> list[SetAside]:
    return [SetAside(why=why, digest=b"%d" % place, object_id=f"id {place}") for place, why in enumerate(whys)]


def test_objects_set_aside_are_counted_by_reason():
    assert summary_of(aside("b", "a", "b")) == "1 object a, 2 objects b"


@pytest.mark.parametrize(("number", "more"), [(5, ""), (6, ", ...")])
def test_the_first_five_set_aside_are_named_with_their_places(number: int, more: str):
    digests = [b"x", *(b"%d" % place for place in range(number))]
    places = ", ".join(f"index {place + 1}: id {place}" for place in range(5))

    assert note_of(aside(*["odd"] * number), digests) == f"{number} objects odd set aside ({places}{more})"


def test_an_object_without_a_known_id_is_named_by_its_place_alone():
    assert SetAside(why="odd", digest=b"b", object_id=None).noted([b"a", b"b"]) == "index 1"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"id":"a","text":"\xff"}', "a"),
        (b'{"id":"\xff"}', None),  # the id itself cannot be read
        (b'{"text":"\xff"}', None),
        (b'["\xff"]', None),
        (b"\xff", None),
    ],
)
def test_the_id_of_an_object_with_an_unreadable_text_is_read_where_it_can_be(body: bytes, found: str | None):
    assert id_of_unreadable(make_rules().identify, body) == found


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b'{"a":1}', 'set `id` to the field that names an object, or to "content"'),
        (b'{"a":"\xff"}', "ask the API for UTF-8, or for the charset in its Content-Type"),
    ],
)
def test_a_page_of_which_nothing_can_be_used_says_what_to_do(body: bytes, hint: str):
    with pytest.raises(PageError, match="none of its objects can be used") as refused:
        compare(make_rules(), raw(body), {})
    assert refused.value.hint == hint


@pytest.mark.parametrize("body", ['{"a":"e"}', '{"a":"é"}'])
def test_an_object_without_an_id_is_said_to_have_none_in_any_script(body: str):
    assert compare(make_rules(), raw(b'{"id":1}', body.encode()), {}).notes == [
        "1 object without an id (`id`) set aside (index 1)"
    ]


def test_the_id_that_is_missing_is_named_as_it_is_configured():
    [note] = compare(make_rules(id=("a", "b")), raw(b'{"a":1}', b'{"a":1,"b":2}'), {}).notes

    assert note == "1 object without an id (`a`, `b`) set aside (index 0)"


def test_more_objects_than_can_be_read_in_one_answer_are_refused():
    most = raw(*[b"{}"] * MOST_OBJECTS)
    assert len(digests_of(make_rules(), most)) == MOST_OBJECTS
    with pytest.raises(PageError, match="more than 100,000 objects in one answer") as refused:
        digests_of(make_rules(), [*most, msgspec.Raw(b"{}")])
    assert refused.value.hint == "ask for smaller pages"


def test_digests_are_those_of_the_bytes_and_equal_objects_are_told_apart_where_content_is_identity():
    one, other = raw(b'{"a":1}', b'{"a":2}')

    assert digests_of(make_rules(), [one, other, one]) == [digest_of(x) for x in (one, other, one)]
    apart = digests_of(make_rules(id=CONTENT), [one, other, one, one])
    assert len(set(apart)) == 4
    assert apart[:2] == [digest_of(one), digest_of(other)]
    assert digests_of(make_rules(id=CONTENT), [one, other, one, one]) == apart


# Depth and size


JSON = st.recursive(
    st.integers(0, 9) | st.sampled_from(["[[[", "}}}", '\\"[', '"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "[", '"{']), inner, max_size=3),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(JSON, st.integers(0, 6))
def test_an_object_is_too_deep_by_its_brackets_and_not_by_those_in_its_texts(value: Any, most: int):
    assert is_too_deep(msgspec.json.encode(value), most) is (depth(value) > most)


@pytest.mark.parametrize(
    ("body", "deepest"), [(b"[[],[[]]]", 3), (b"[[[],[[]]]]", 4), (b'{"a":[{}],"b":[[{}]]}', 4), (b"{}", 1)]
)
def test_depth_counts_from_where_the_last_bracket_was_closed(body: bytes, deepest: int):
    assert is_too_deep(body, deepest - 1)
    assert not is_too_deep(body, deepest)


@pytest.mark.parametrize(("values", "too_many"), [(MOST_VALUES, False), (MOST_VALUES + 1, True)])
def test_an_object_has_too_many_values_by_its_commas_and_brackets(values: int, too_many: bool):
    assert has_too_many_values(b"[" + b",".join([b"0"] * values) + b"]") is too_many


def test_an_object_of_many_small_ones_has_too_many_values():
    assert has_too_many_values(b'{"a":[' + b",".join([b"{}"] * (MOST_VALUES // 2 + 1)) + b"]}")


def test_a_long_text_is_one_value():
    assert not has_too_many_values(b'{"a":"' + b"x" * 3 * MOST_VALUES + b'"}')
    assert not has_too_many_values(b"{" * 9)


# What is new and what is gone


@given(
    st.lists(st.integers(0, 12), max_size=9, unique=True),
    st.lists(st.integers(0, 12), max_size=9, unique=True),
    st.sets(st.integers(0, 12)),
)
def test_a_page_is_compared_as_sets_would_be_and_in_order(before: list[int], after: list[int], edited: set[int]):
    rules = make_rules()
    first = compare(rules, raw(*(b'{"id":%d}' % one for one in before)), {})
    bodies = [b'{"id":%d,"a":1}' % one if one in edited else b'{"id":%d}' % one for one in after]
    found = compare(rules, raw(*bodies), first.members)

    new = [one for one in after if one not in before or one in edited]
    assert [int(one.object_id) for one in found.fresh] == new
    assert [one.body for one in found.fresh] == [bodies[after.index(one)] for one in new]
    assert [int(one) for one in found.missing] == [one for one in before if one not in after]
    assert [int(one) for one in found.members.values()] == after
    assert (found.unsure, found.is_partial, found.notes) == ((), False, [])


@pytest.mark.parametrize("fresh", [FEW, FEW + 1])
def test_few_and_many_new_objects_are_found_alike(fresh: int):
    rules, old = make_rules(), raw(*(b'{"id":%d}' % one for one in range(20)))
    before = compare(rules, old, {}).members
    new = [msgspec.Raw(b'{"id":%d,"a":1}' % one) for one in range(fresh)]

    found = compare(rules, [*old[fresh:], *new], before)
    assert [one.object_id for one in found.fresh] == [f"{one}" for one in range(fresh)]
    assert not found.missing


def test_an_id_that_is_shown_again_by_another_object_of_the_page_is_neither():
    rules = make_rules()
    before = compare(rules, raw(b'{"id":1}', b'{"id":2}'), {}).members
    found = compare(rules, raw(b'{"id":1}', b'{"id":1,"a":1}', b'{"id":2}', b'{"id":3}'), before)

    assert [one.object_id for one in found.fresh] == ["3"]
    assert (list(found.unsure), list(found.missing)) == (["1"], [])
    assert sorted(found.members.values()) == ["2", "3"]


def test_ids_shown_more_than_once_are_counted_and_three_are_named():
    bodies = [b'{"id":%d,"a":%d}' % (one, twice) for one in range(4) for twice in (1, 2)]
    found = compare(make_rules(), raw(*bodies, b'{"id":9}'), {})

    assert found.notes == ["4 ids shown more than once with different content set aside (0, 1, 2)"]
    assert found.doubles == ["0", "1", "2", "3"]
    assert list(found.unsure) == ["0", "1", "2", "3"]


def test_an_id_that_is_shown_once_usable_and_once_not_is_unsure():
    found = compare(make_rules(max_depth=2), raw(b'{"id":1}', b'{"id":1,"a":[[]]}', b'{"id":2}'), {})
    assert ([one.object_id for one in found.fresh], list(found.unsure)) == (["2"], ["1"])


def test_an_object_that_is_set_aside_by_its_id_is_not_missing_and_one_without_makes_all_unsure():
    rules = make_rules(max_depth=2)
    before = compare(rules, raw(b'{"id":1}', b'{"id":2}', b'{"id":3}'), {}, prefix="p/").members
    deep = compare(rules, raw(b'{"id":1,"a":[[]]}', b'{"id":2}'), before, prefix="p/")
    unknown = compare(rules, raw(b'{"a":[[]]}', b'{"id":2}'), before, prefix="p/")

    assert (list(deep.unsure), list(deep.missing), deep.is_partial) == (["p/1"], ["p/3"], False)
    assert (list(unknown.unsure), list(unknown.missing), unknown.is_partial) == (["p/1", "p/3"], [], True)
    assert list(deep.members.values()) == list(unknown.members.values()) == ["p/2"]


@pytest.mark.parametrize(("levels", "is_kept"), [(2, True), (3, True), (4, False)])
def test_objects_without_lists_are_as_deep_as_is_allowed(levels: int, is_kept: bool):
    nested = b'{"id":1,"a":' + b'{"a":' * (levels - 1) + b"1" + b"}" * levels
    found = compare(make_rules(max_depth=3), raw(nested, b'{"id":2}'), {})

    assert [one.object_id for one in found.fresh] == (["1", "2"] if is_kept else ["2"])


def test_an_object_that_is_too_deep_is_not_parsed_for_its_id():
    found = compare(make_rules(max_depth=3), raw(b'{"id":1,\n"a":[[[]]]}', b'{"id":2}'), {})

    assert (found.is_partial, list(found.unsure)) == (True, [])
    assert list(found.members.values()) == ["2"]


def test_an_object_of_which_nothing_is_left_out_is_stored_as_it_came():
    [one] = compare(make_rules(id=("id", "b")), raw(b'{"id":1, "b":2}'), {}).fresh

    assert one.body == b'{"id":1, "b":2}'


def test_an_object_of_a_plugin_may_have_space_around_it():
    found = compare(make_rules(), raw(b' {"id":1} ', b' "7"'), {})

    assert [one.object_id for one in found.fresh] == ["1"]
    assert found.notes == ["1 object given as text set aside (index 1)"]


def test_the_prefix_precedes_every_id():
    rules = make_rules()
    quick = compare(rules, raw(b'{"id":1}'), {}, prefix="p/")
    parsed = compare(rules, raw(b'{\n"id":1}', b'{"id":2,"a":[1]}'), {}, prefix="p/")

    assert [one.object_id for one in quick.fresh] == ["p/1"]
    assert [one.object_id for one in parsed.fresh] == ["p/1", "p/2"]


def test_a_plugins_form_is_stored_and_identified_or_else_the_object_as_it_came():
    rules = make_rules(normalise=lambda value: {"nr": value["id"], "kept": True})
    named = make_rules(id="nr", normalise=lambda value: {"nr": value["id"], "kept": True})

    assert [(one.object_id, one.body) for one in compare(rules, raw(b'{"id":1}'), {}).fresh] == [
        ("1", b'{"nr":1,"kept":true}')
    ]
    assert [one.object_id for one in compare(named, raw(b'{"id":1}'), {}).fresh] == ["1"]


# Answers of a chain


def test_the_objects_of_a_chain_are_those_of_all_its_answers():
    pages = [Unparsed(objects=raw(b'{"id":1}')), Unparsed(objects=raw(b'{"id":1}', b'{"id":2}'))]

    assert list(map(bytes, gathered(make_rules(), pages))) == [b'{"id":1}', b'{"id":1}', b'{"id":2}']
    assert gathered(make_rules(), pages[:1]) is pages[0].objects


def test_equal_objects_of_a_chain_are_as_many_as_one_answer_shows_where_content_is_identity():
    pages = [
        Unparsed(objects=raw(b'{"a":1}', b'{"a":1}', b'{"a":2}')),
        Unparsed(objects=raw(b'{"a":1}', b'{"a":1}', b'{"a":1}', b'{"a":3}', b"7")),
    ]

    found = list(map(bytes, gathered(make_rules(id=CONTENT), pages)))
    assert found == [b'{"a":1}', b'{"a":1}', b'{"a":2}', b'{"a":1}', b'{"a":3}', b"7"]


# Ids without parsing, and pages that look alike


@pytest.mark.parametrize(
    ("objects", "ids"),
    [
        ([b'{"id":1}', b'{"id":"a"}'], ["1", "a"]),
        ([b'{"id":1}', b'{"a":1}'], ["1", b'{"a":1}']),
        ([b'{"id":1}', b"7"], ["1", b"7"]),
        ([b'{"id":1,\n"a":1}', b'{"a":"\xff"}'], ["1", b'{"a":"\xff"}']),
        ([], []),
    ],
)
def test_ids_are_read_quickly_and_an_object_without_one_is_its_bytes(objects: list[bytes], ids: list[Any]):
    assert quick_ids(make_rules(), raw(*objects)) == ids


def test_an_object_that_is_too_deep_has_no_quick_id():
    deep = b'{"id":1,"a":\n[[[]]]}'

    assert quick_ids(make_rules(max_depth=3), raw(deep)) == [deep]
    assert quick_ids(make_rules(max_depth=4), raw(deep)) == ["1"]


@pytest.mark.parametrize(
    ("ours", "theirs", "alike"),
    [
        ([b'{"id":1}'], [b'{"id":1}'], True),
        ([b'{"id":1}', b'{"id":2}'], [b'{"id":2}', b'{"id":1.0}'], True),
        ([b'{"id":1,"seen":1}'], [b'{"id":1,"seen":2}'], True),
        ([b'{"id":1,"a":1}'], [b'{"id":1,"a":2}'], False),
        ([b'{"id":1}'], [b'{"id":1}', b'{"id":1}'], False),
        ([b"7"], [b"7"], True),
        ([b"7", b"8"], [b"8", b"7"], True),
        ([b"7"], [b"7.0"], False),
        ([b'{"a":"\xff"}', b"1"], [b"1", b'{"a":"\xff"}'], True),
        ([b'{"a":"\xff"}'], [b'{"a":"\xfe"}'], False),
        ([b'{"a":[[[1]]]}', b"1"], [b"1", b'{"a":[[[1.0]]]}'], False),  # too deep to be parsed
    ],
)
def test_pages_look_alike_where_their_objects_do_apart_from_ignored_fields(
    ours: list[bytes], theirs: list[bytes], alike: bool
):
    assert look_alike(make_rules(max_depth=3, ignore=["/seen"]), raw(*ours), raw(*theirs)) is alike


def test_an_object_that_is_its_content_is_the_same_one_whatever_its_ignored_fields_show():
    rules = make_rules(id=CONTENT, ignore=["/seen"])
    [one] = compare(rules, raw(b'{"a":1,"seen":1}'), {}).fresh
    [other] = compare(rules, raw(b'{"a":1,"seen":2}'), {}).fresh
    [third] = compare(rules, raw(b'{"a":2,"seen":1}'), {}).fresh

    assert one.object_id == other.object_id != third.object_id
