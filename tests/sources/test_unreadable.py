"""Answers that are JSON but for single values."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.sources.unreadable import MOST_QUOTES, reason_of, set_apart

split = msgspec.json.Decoder(list[msgspec.Raw]).decode


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (b'"a\\ud800b"', "half of a surrogate pair"),
        (b'"\\uDC00\\ud800"', "half of a surrogate pair"),
        (b"NaN", "NaN or Infinity"),
        (b"-Infinity", "NaN or Infinity"),
        (b'"a\nb"', "a control character"),
    ],
)
def test_the_objects_beside_one_that_holds_such_a_value_can_be_read(odd, reason):
    good = [b'{"id":1,"a":"NaN \\\\ud800 \\ud83d\\ude00"}', b'{"id":3}']
    mended = set_apart(b'[%b,{"id":2,"a":%b},%b]' % (good[0], odd, good[1]))

    assert mended is not None
    first, second, third = map(bytes, split(mended))
    assert [first, third] == good
    assert reason in reason_of(second)
    with pytest.raises(UnicodeDecodeError):
        second.decode()


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_json_is_left_as_it_is(value):
    for form in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert set_apart(form.encode("utf-8", "ignore")) is None


@given(st.binary())
def test_nothing_that_is_answered_makes_it_fail(content):
    set_apart(content)


def test_an_answer_of_very_many_texts_is_not_looked_through():
    assert set_apart(b'["\\ud800",' + b'"",' * (MOST_QUOTES // 2) + b'""]') is None
