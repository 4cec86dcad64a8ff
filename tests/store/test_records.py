from __future__ import annotations

import pytest

from state.records import Event


def make_event(raw: bytes) -> Event:
    return Event(id="a", source="/sources/acme", type="t", subject="s", time=0.0, observed_after=None, raw=raw, seq=1)


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40 + 7])
def test_integers_of_an_event_keep_all_their_digits(number: int):
    assert make_event(b'{"object":{"id":%d}}' % number).data == {"object": {"id": number}}


def test_data_is_parsed_once():
    event = make_event(b'{"version":1}')

    assert event.data is event.data
