"""The members of a unit: as one run of digests and one text of ids, and in their stored forms."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from state.members import FEW, NO_MEMBERS, Members, packed_as_map

DIGESTS = st.lists(st.binary(min_size=2, max_size=2), max_size=20)


def members_with(digests: Sequence[bytes]) -> dict[bytes, str]:
    return {digest: f"id of {digest.hex()}" for digest in digests}


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.text(), max_size=20))
def test_members_are_the_same_as_a_dict_in_order_and_in_each_stored_form(members: dict[bytes, str]) -> None:
    kept = Members.of(members)
    with_a_list = msgspec.msgpack.encode((b"".join(members), [*members.values()]))  # of an earlier version

    for packed in (kept.packed(), packed_as_map(kept), with_a_list):
        one = Members.unpacked(packed)
        assert list(one.items()) == list(members.items())
        assert one.ids == [one.id_at(place) for place in range(len(one))] == [*members.values()]
        assert len(one) == len(members)
        assert one == members
        assert one.packed() == kept.packed()
    assert packed_as_map(members) == packed_as_map(kept)


def test_edited_objects_keep_their_ids_and_places() -> None:
    edited = Members.of({b"aa": "1", b"bb": "2"}).edited(b"aacc")

    assert edited == {b"aa": "1", b"cc": "2"}
    assert Members.unpacked(edited.packed()) == edited


@pytest.mark.parametrize("packed", [None, b""])
def test_a_unit_that_has_shown_nothing_has_no_members(packed: bytes | None) -> None:
    assert Members.unpacked(packed) == {} == NO_MEMBERS


@given(DIGESTS, DIGESTS)
@example([b"aa", b"bb"], [b"bb", b"aa"])  # two have changed places: none is lost
@example([b"aa", b"bb"], [b"bb", b"bb"])  # shown twice
def test_lost_are_the_members_that_are_not_shown_any_more(before: list[bytes], now: list[bytes]) -> None:
    members = members_with(before)

    assert Members.of(members).lost(now) == [members[digest] for digest in members if digest not in now]


@given(st.lists(st.binary(min_size=2, max_size=2), max_size=20, unique=True), st.data())
def test_few_changed_places_are_found(before: list[bytes], data: st.DataObject) -> None:
    now = [data.draw(st.sampled_from([digest, b"!!", b"??"])) for digest in before]
    places = [place for place, digest in enumerate(now) if digest != before[place]]

    found = Members.of(members_with(before)).changed_places(b"".join(now))

    assert found == (places if len(places) <= FEW else None)


def test_a_longer_or_shorter_run_is_not_compared_by_place() -> None:
    members = Members.of(members_with([b"aa", b"bb"]))

    assert members.changed_places(b"aa") is None
    assert members.changed_places(b"aabbcc") is None
