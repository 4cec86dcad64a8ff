import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller import PageError
from poller.documents.diff import compile_rules
from poller.sources.paths import MISSING, MOST_KEYS, Answer, PathError, compile_path, identity, reader, wrapped

JSON_KEYS = st.text(alphabet="abc.$_ é'\"\\", min_size=1, max_size=5)


def listed(body: object, path: str | None = None) -> list[object]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = Answer(content).objects(None if path is None else compile_path(path))
    return [json.loads(bytes(item)) if isinstance(item, msgspec.Raw) else item for item in found]


ONE = {"id": 1}


@pytest.mark.parametrize(
    ("body", "forms", "found"),
    [
        ({"data": {"items": None}}, ["null"], []),
        ({"data": None}, ["null"], []),
        ({"data": {}}, ["absent"], []),
        ({}, ["absent"], []),
        ({"data": {"items": ""}}, ["text"], []),
        ({"data": {"items": ONE}}, ["object"], [ONE]),
        ({"data": {"items": None}}, ["absent", "text", "object"], None),
        ({"data": {}}, ["null", "text", "object"], None),
        ({"data": {"items": ""}}, ["null", "absent", "object"], None),
        ({"data": {"items": "x"}}, ["null", "absent", "text", "object"], None),
        ({"data": {"items": ONE}}, ["null", "absent", "text"], None),
        ({"data": {"items": [ONE]}}, ["null", "absent", "text", "object"], None),
        ({"data": {"items": 0}}, ["null", "absent", "text", "object"], None),
        ({"data": "down"}, ["null", "absent", "text", "object"], None),
        ([], ["null", "absent", "text", "object"], None),
        (b"<html>", ["null", "absent", "text", "object"], None),
    ],
    ids=str,
)
def test_only_a_form_that_was_named_stands_for_a_list(body, forms, found):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    instead = Answer(content).instead(compile_path("$.data.items"), forms)

    assert (instead if instead is None else [json.loads(bytes(item)) for item in instead]) == found


@pytest.mark.parametrize("body", [{"items": None}, {}, {"items": ONE}], ids=str)
def test_a_key_is_named_only_to_a_source_that_has_it(body):
    answer, path = Answer(json.dumps(body).encode()), compile_path("$.items")

    with pytest.raises(PageError, match="no list at") as without:
        answer.objects(path)
    with pytest.raises(PageError, match="no list at") as with_it:
        answer.objects(path, instead=())

    assert (without.value.hint, "instead_of_list" in str(with_it.value.hint)) == (None, True)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([{"id": 1}], None),
        ([{"id": 1}], "$"),
        ({"items": [{"id": 1}], "total": 1}, None),
        (b'{"errors": [ ], "items": [{"id": 1}], "warnings": []}', None),
        ({"data": {"items": [{"id": 1}]}, "meta": {"page": 1}}, None),
        ({"data": {"items": [{"id": 1}]}}, "data.items"),
        ({"data": {"items": [{"id": 1}]}}, "$.data.items"),
        ({"data": {"my items": [{"id": 1}]}}, "$['data']['my items']"),
        ({"edges": [{"node": {"id": 1}}]}, "$.edges[*].node"),
        ({"groups": [{"of": [{"id": 1}]}, {"of": []}]}, "$.groups[*].of"),
        ([{"of": [{"id": 1}]}], "$[0].of"),
        ({"items": [{"id": 1}, {"id": 2, "off": True}]}, "$.items[?!@.off]"),
        (b'\xef\xbb\xbf\n [ {"id": 1} ]\n', None),
    ],
    ids=str,
)
def test_the_list_is_found_anywhere_in_the_answer(body, path):
    assert listed(body, path) == [{"id": 1}]


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        ({"a": [], "b": []}, None, r"several lists \(\$\.a, \$\.b\)"),
        ({"a": {"b": []}, "c": {"d": []}}, None, "several lists"),
        ({"errors": []}, None, "contains only a list of errors"),
        ({"a": [], "errors": [{"code": 1}]}, None, "several lists"),
        ({"errors": [{"id": 1}]}, None, "contains only a list of errors"),
        ({"items": None}, "$.items", "it is null"),
        ({"items": {}}, "$.items", "it is an object"),
        ({"error": "x"}, "$.items", "no list at"),
        ({"error": "x"}, "$.items[*].node", "no \\$.items"),
        ([], "$[0].of", "no list at"),
        ({"items": [[1]]}, "$.items[*]", "not an object"),
        ("text", None, "no list"),
        (b"<html>", "$.items", "HTML"),
        (b"<html>", "$.items[*]", "HTML|no \\$"),
    ],
    ids=str,
)
def test_an_answer_of_another_form_is_no_empty_list(body, path, says):
    with pytest.raises(PageError, match=says):
        listed(body, path)


def test_an_answer_nested_too_deeply_is_set_aside():
    with pytest.raises(PageError, match="too deeply"):
        listed(b"[" * 100_000 + b"]" * 100_000, "$")


def test_integers_keep_all_their_digits():
    assert listed(b'[{"id": 123456789012345678901234567890}]') == [{"id": 123456789012345678901234567890}]


@given(
    keys=st.lists(JSON_KEYS, min_size=1, max_size=3),
    ids=st.lists(st.integers(), max_size=4),
)
def test_a_plain_path_and_a_query_find_the_same(keys, ids):
    body: object = [{"id": n} for n in ids]
    for key in reversed(keys):
        body = {key: body, "other": {"key": 1}}
    path = "$" + "".join(f"[{json.dumps(key)}]" for key in keys)

    compiled = compile_path(path)

    assert compiled.query is None
    assert listed(body, path) == [{"id": n} for n in ids]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.a.b", 1),
        ("a.b", 1),
        ("$.c[-1].d", 3),
        ("$.c[*].d", 2),
        ("$.x", MISSING),
        ("$.a.b.c", MISSING),
        ("$.n", None),
    ],
)
def test_a_value_is_found_or_missing(path, value):
    body = {"a": {"b": 1}, "c": [{"d": 2}, {"d": 3}], "n": None}

    assert Answer(json.dumps(body).encode()).value(compile_path(path)) is value or value in (1, 2, 3)
    assert reader(path)(body) == value


@pytest.mark.parametrize("text", ["", "a..b", ".a", "$.[", "$.a |", "$.a | $.b"])
def test_what_is_no_path_is_refused_with_an_example(text):
    with pytest.raises(PathError) as raised:
        compile_path(text)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), ("007", "007"), (7.0, "7"), (12345678901234567890123, "12345678901234567890123"), ("é/:", "é/:")],
)
def test_an_id_is_text(value, text):
    assert identity("id")({"id": value}) == text
    assert identity("data.id")({"data": {"id": value}}) == text
    assert identity("$.data['id']")({"data": {"id": value}}) == text
    assert identity("$.ids[0]")({"ids": [value]}) == text


@pytest.mark.parametrize("value", [None, "", True, 1.5, [1], {"a": 1}])
def test_anything_else_is_no_id(value):
    assert identity("id")({"id": value}) is None
    assert identity(("id", "number"))({"id": value, "number": None}) is None


def test_an_absent_id_is_none():
    assert identity("id")({}) is None
    assert identity("data.id")({"data": 1}) is None


def test_a_composite_id_may_have_null_parts_but_no_absent_ones():
    compose = identity(("invoice", "tax.code"))

    assert compose({"invoice": 1, "tax": {"code": "HST"}}) == "1:HST"
    assert compose({"invoice": 1, "tax": {"code": None}}) == "1:"
    assert compose({"invoice": 1, "tax": {"code": ""}}) == "1:%"
    assert compose({"invoice": 1, "tax": {}}) is None
    assert compose({"invoice": None, "tax": {"code": None}}) is None


parts = st.tuples(st.text(alphabet="ab:%2", max_size=4), st.text(alphabet="ab:%2", max_size=4))


@given(one=parts, other=parts)
def test_composite_ids_are_equal_for_equal_parts_only(one, other):
    compose = identity(("a", "b"))
    ids = [compose({"a": a, "b": b}) for a, b in (one, other)]

    assert (ids[0] == ids[1]) == (one == other or ids == [None, None])
    assert one[0] == "" or compose({"a": one[0], "b": None}) not in ids


def test_content_is_its_value_not_its_text():
    same = identity("content")

    assert same({"a": 1, "b": [1.0]}) == same({"b": [1], "a": 1.0})
    assert same({"a": 1}) != same({"a": 2})


def test_content_leaves_out_what_is_ignored():
    same = identity("content", rules=compile_rules(ignore=["/seen"]))

    assert same({"a": 1, "seen": 1}) == same({"a": 1, "seen": 2})


def test_objects_that_are_listed_under_their_keys_carry_them():
    answer = Answer(b'{"rates": {"EUR": {"rate": 1.1}, "a\\"b": {}, "GBP": 0.9}}')

    found = [json.loads(bytes(item)) for item in answer.keyed(compile_path("rates"))]

    assert found == [{"key": "EUR", "rate": 1.1}, {"key": 'a"b'}, {"key": "GBP", "value": 0.9}]


@pytest.mark.parametrize(
    ("body", "says"), [(b'{"a": {"key": 1}}', 'a member "key" of its own'), (b"[]", "there is no object at")]
)
def test_a_keyed_list_that_is_none_is_refused(body, says):
    with pytest.raises(PageError, match=says):
        Answer(body).keyed()


def test_texts_and_numbers_become_objects_with_that_value():
    found = wrapped(Answer(b'["a", 2, {"value": 3}, null]').objects())

    assert [json.loads(bytes(item)) for item in found] == [{"value": "a"}, {"value": 2}, {"value": 3}, None]


def wide(members: int) -> bytes:
    return b"{%b}" % b",".join(b'"k%d":1' % place for place in range(members))


def test_a_list_beside_others_is_found_however_many_keys_its_objects_have():
    listed = b",".join(b'{"id":%d,"a":1,"b":1,"c":1}' % place for place in range(MOST_KEYS // 4 + 1))
    answer = Answer(b'{"total":3,"items":[%b],"n\\u00e4chste":null}' % listed)

    assert answer.members().keys() == {"total", "items", "nächste"}
    assert len(answer.objects()) == MOST_KEYS // 4 + 1
    assert answer.value(compile_path("total")) == 3


@pytest.mark.parametrize(
    "read",
    [
        lambda answer: answer.members(),
        lambda answer: answer.objects(),
        lambda answer: answer.keyed(),
        lambda answer: answer.value(compile_path("$.a")),
        lambda answer: answer.value(compile_path("$..a")),
    ],
)
def test_an_object_of_very_many_members_is_never_built(read):
    with pytest.raises(PageError, match="more than 400,000 keys"):
        read(Answer(wide(MOST_KEYS + 1)))


def test_an_object_of_many_members_is_read_while_it_can_be():
    assert len(Answer(wide(1000)).members()) == 1000
