"""What an endpoint remembers of ids that name two objects, and how it is stored."""

from __future__ import annotations

import pytest

from poller.changes.exemptions import MOST_UNSHOWN, Clash, Exemptions, Misleading, Unlisted, clashes_after
from poller.changes.guards import Quarantined, Shape, ShapeShift


@pytest.mark.parametrize(
    ("ends", "known"),
    [
        ([10.0], True),
        ([10.0, 20.0], True),
        ([10.0, 20.0, 29.0, 30.0], True),  # many sweeps, and too little time
        ([100.0], True),  # much time, and one sweep
        ([100.0, 101.0], False),
        ([10.0, 20.0, 31.0], False),
    ],
)
def test_a_clash_is_over_when_two_sweeps_and_enough_time_have_passed_without_it(ends: list[float], known: bool):
    clashes = clashes_after({}, ["7"], ended_at=0.0, absent_for=30.0)
    for end in ends:
        clashes = clashes_after(clashes, [], ended_at=end, absent_for=30.0)
    assert ("7" in clashes) is known


def test_a_clash_that_is_seen_again_begins_anew():
    clashes = clashes_after({"7": Clash(0.0, 5)}, ["7", "8"], ended_at=20.0, absent_for=30.0)
    assert clashes == {"7": Clash(20.0), "8": Clash(20.0)}


def test_a_clash_counts_the_sweeps_that_have_missed_it():
    clashes = {"7": Clash(100.0)}
    for ended_at in (110.0, 120.0):
        clashes = clashes_after(clashes, [], ended_at=ended_at, absent_for=30.0)

    assert clashes == {"7": Clash(100.0, 2)}
    assert clashes_after(clashes, [], ended_at=131.0, absent_for=30.0) == {}


def test_exemptions_are_stored_whole():
    exemptions = Exemptions(
        shift=ShapeShift(fields={"/name": Shape.NULLED}, objects=10),
        shift_until=3,
        nulled=frozenset({"/name"}),
        deletions_until=4,
        doubts=frozenset({"a doubt"}),
        failing=frozenset({"list"}),
        unread=frozenset({"parent"}),
        misleading=Misleading(object_id="7", url="https://shop.example/items/7"),
        unlisted=Unlisted(is_reported=True, unshown={"8": 204}),
        quarantine={"page=2": Quarantined(ShapeShift(fields={"/a": Shape.NULLED}, objects=10, is_torn=True), 3, 5)},
        clashes={"7": Clash(20.0, 1)},
        certain_since=12.5,
    )
    assert Exemptions.load(exemptions.dump()) == exemptions
    assert Exemptions.load(None) == Exemptions()


def test_a_clash_seen_by_a_clock_that_was_ahead_counts_from_now():
    clashes = {"7": Clash(9e9)}
    for ended_at in (100.0, 120.0):
        clashes = clashes_after(clashes, [], ended_at=ended_at, absent_for=30.0)
        assert clashes != {}

    assert clashes_after(clashes, [], ended_at=131.0, absent_for=30.0) == {}


def test_own_urls_that_answer_without_their_objects_are_known_until_it_is_known_what_became_of_those():
    exemptions = Exemptions(deletions_until=4, unlisted=Unlisted(is_reported=True))
    both = exemptions.with_unshown("7", 200).with_unshown("8", 204).with_unshown("7", 301)

    assert both == Exemptions(deletions_until=4, unlisted=Unlisted(is_reported=True, unshown={"7": 301, "8": 204}))
    assert both.with_shown(["7", "9"]).unlisted == Unlisted(is_reported=True, unshown={"8": 204})
    assert both.with_shown(["7", "8"]) == exemptions
    assert both.with_shown(["9"]) is both


def test_only_so_many_of_them_are_known_and_their_latest_status():
    exemptions = Exemptions()
    for number in range(MOST_UNSHOWN):
        exemptions = exemptions.with_unshown(str(number), 200)

    assert len(exemptions.unlisted.unshown) == MOST_UNSHOWN
    assert exemptions.with_unshown("one more", 200) is exemptions
    assert exemptions.with_unshown("0", 204).unlisted.unshown["0"] == 204
