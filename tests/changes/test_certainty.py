from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.changes.certainty import LONGEST, PATIENCE, Claims, SweptList, Uncertainty, claims_of, judge, pattern_of
from state.polls import UnitState


def unit(key: str, shown: int, **claims: Any) -> UnitState:
    return UnitState(id=1, key=key, position=b"{}", shown=shown, claims=Claims(**claims).dump())


def swept(*units: UnitState, per_parent: bool = False, repeated: tuple[str, ...] = ()) -> SweptList:
    return SweptList(units={one.key: one for one in units}, per_parent=per_parent, repeated=repeated)


def why(found: Uncertainty | None) -> tuple[str, ...]:
    return () if found is None else found.why


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([unit("page=1", 100, total=288)], ("288 in all, 100 seen",)),
        ([unit("page=1", 100, total=288), unit("page=2", 100, total=188)], ("288 in all, 200 seen",)),
        ([unit("page=1", 100, total=188), unit("page=2", 88, total=188)], ()),
        ([unit("page=1", 100), unit("page=2", 88)], ()),
        ([unit("page=1", 3, total=2)], ()),
        ([unit("page=1", 3, doubts=("a",)), unit("page=2", 3, doubts=("a", "b"))], ("a", "b")),
    ],
)
def test_a_sweep_that_saw_less_than_its_answers_count_is_uncertain(units, expected):
    assert why(judge(swept(*units), None, (), now=5.0)) == expected


def test_a_list_per_parent_is_counted_by_itself():
    found = judge(swept(unit("parent=1", 2, total=2), unit("parent=2", 1, total=3), per_parent=True), None, (), now=5.0)

    assert why(found) == ("3 in all, 1 seen (in parent=2)",)


def test_what_an_operator_accepts_is_certain_whatever_its_numbers():
    found = judge(swept(unit("page=1", 100, total=288), repeated=("7",)), None, (), now=5.0)
    accepted = [pattern_of(doubt) for doubt in why(found)]

    later = swept(unit("page=1", 90, total=300), unit("page=2", 90), repeated=("8", "9"))
    assert judge(later, found, accepted, now=6.0) is None
    assert judge(swept(unit("page=1", 90, doubts=("something else",))), found, accepted, now=6.0) is not None


@pytest.mark.parametrize(
    ("accepted", "later"),
    [
        (swept(unit("p", 30, guessed_total=("n", 58))), swept(unit("p", 1, guessed_total=("n", 2)))),
        (swept(unit("p", 5), repeated=("Users('a')",)), swept(unit("p", 5), repeated=("Users('b')", "Users('c')"))),
        (
            SweptList(units={}, per_parent=False, clashes=["a (b)"]),
            SweptList(units={}, per_parent=False, clashes=["c"]),
        ),
    ],
    ids=["one object", "ids in brackets", "an id with a note in brackets"],
)
def test_what_was_accepted_of_many_is_accepted_of_one_and_of_any_id(accepted, later):
    for one, other in ((accepted, later), (later, accepted)):
        patterns = [pattern_of(doubt) for doubt in why(judge(one, None, (), now=5.0))]

        assert patterns
        assert judge(other, None, patterns, now=6.0) is None


def test_an_episode_keeps_its_beginning_and_counts_its_sweeps():
    first = judge(swept(unit("page=1", 1, total=2)), None, (), now=5.0)
    second = judge(swept(unit("page=1", 1, total=2)), first, (), now=9.0)

    assert second is not None
    assert (second.since, second.sweeps, second.ends_baseline) == (5.0, 2, False)


def test_a_list_that_always_moves_ends_its_baseline_all_the_same():
    found = None
    for _ in range(PATIENCE):
        assert found is None or not found.ends_baseline
        found = judge(swept(unit("page=1", 5), repeated=("7",)), found, (), now=5.0)

    assert found is not None
    assert found.ends_baseline


def sweeps_until_the_baseline_ends(*news: bool, doubts: tuple[str, ...] = (), guesses: tuple[str, ...] = ()) -> int:
    """How many uncertain sweeps in a row, each of which shows something new or not, and then none does."""
    found, number = None, 0
    while found is None or not found.ends_baseline:
        is_new = news[number] if number < len(news) else False
        number += 1
        units = {"list": unit("list", 5, doubts=doubts, guesses=guesses)}
        found = judge(SweptList(units=units, per_parent=False, repeated=("7",), is_new=is_new), found, (), now=5.0)
        if number > 2 * LONGEST:
            return 0
    return number


@pytest.mark.parametrize(
    ("news", "number"),
    [((), PATIENCE), ((True,), 1 + PATIENCE), ((True, False, True), 3 + PATIENCE), ((True,) * 30, LONGEST)],
)
def test_a_baseline_ends_in_uncertain_sweeps_once_they_show_nothing_new(news, number):
    assert sweeps_until_the_baseline_ends(*news) == number
    assert sweeps_until_the_baseline_ends(*news, guesses=("a",)) == number
    assert sweeps_until_the_baseline_ends(*news, doubts=("a",), guesses=("b",)) == 0


@given(st.none() | st.integers(0), st.lists(st.text(), max_size=3), st.booleans())
def test_claims_are_kept_as_they_are(total, doubts, is_last):
    claims = Claims(total=total, doubts=tuple(doubts), guesses=tuple(doubts), is_last=is_last)

    assert claims_of(UnitState(id=1, key="list", position=b"{}", claims=claims.dump())) == claims


def test_ids_that_name_two_objects_are_a_doubt_that_names_three_of_them():
    clashing = SweptList(units={}, per_parent=False, clashes=["9", "8", "7", "6"])
    found = judge(clashing, None, (), now=5.0)

    assert found is not None
    assert found.why == ("ids that name different objects on two pages: 4 (6, 7, 8): `id` must tell them apart",)
    assert (found.is_lasting, found.repeats_only, found.since, found.sweeps) == (True, False, 5.0, 1)


def test_objects_on_two_pages_are_told_with_those_of_chains():
    chain = UnitState(id=1, key="chain", position=b"{}", claims=Claims(repeated=("5", "4")).dump())
    found = judge(SweptList(units={"chain": chain}, per_parent=False, repeated=["7", "6"]), None, (), now=5.0)

    assert found is not None
    assert found.why == ("objects on two pages of one sweep: 4 (4, 5, 6): the list moved, or its order is not stable",)
    assert (found.is_lasting, found.repeats_only) == (False, True)


@pytest.mark.parametrize(
    ("fields", "repeats_only", "lasting"),
    [
        ({"doubts": ("a",)}, False, True),
        ({"guesses": ("a",)}, False, False),
        ({"doubts": ("a",), "guesses": ("b",)}, False, True),
    ],
)
def test_a_doubt_keeps_a_baseline_open_and_a_guess_does_not(fields, repeats_only, lasting):
    found = judge(swept(unit("page=1", 5, **fields), repeated=("7",)), None, (), now=5.0)

    assert found is not None
    assert (found.repeats_only, found.is_lasting) == (repeats_only, lasting)


def test_five_reasons_at_most_are_kept_doubts_first_and_each_once():
    doubts, guesses = tuple("fedcb"), tuple("aaa")
    found = judge(swept(unit("page=1", 5, doubts=doubts[:3], guesses=guesses), repeated=("7",)), None, (), now=5.0)
    many = judge(swept(unit("page=1", 5, doubts=doubts, guesses=guesses), repeated=("7",)), None, (), now=5.0)

    assert why(found) == ("f", "e", "d", "a", why(found)[-1])
    assert why(found)[-1].startswith("objects on two pages")
    assert why(many) == doubts
    assert many is not None
    assert many.text == "f; e; d; c; b"


def test_the_largest_total_counts_where_pages_name_several():
    pages = [unit("page=1", 3, total=5), unit("page=2", 3, total=9), unit("page=3", 1)]
    assert why(judge(swept(*pages), None, (), now=5.0)) == ("9 in all, 7 seen",)


def test_lists_per_parent_without_a_total_are_not_counted():
    assert judge(swept(unit("a", 2), unit("b", 3, total=3), per_parent=True), None, (), now=5.0) is None


def test_what_is_settled_counts_sweeps_without_anything_new():
    units = {"list": unit("list", 5, guesses=("a",))}
    first = judge(SweptList(units=units, per_parent=False), None, (), now=5.0)
    second = judge(SweptList(units=units, per_parent=False), first, (), now=6.0)
    third = judge(SweptList(units=units, per_parent=False, is_new=True), second, (), now=7.0)

    assert [one and one.settled for one in (first, second, third)] == [1, 2, 0]
    assert [one and one.since for one in (first, second, third)] == [5.0] * 3
    assert [one and one.sweeps for one in (first, second, third)] == [1, 2, 3]


def test_a_single_object_is_said_to_be_one():
    found = judge(swept(unit("page=1", 1, guessed_total=("count", 2))), None, (), now=5.0)

    assert why(found) == ("the answer says count = 2, and 1 object was seen",)


@pytest.mark.parametrize(("total", "why"), [(58, "the answer says count = 58, and 30 objects were seen"), (30, None)])
def test_a_total_that_nobody_configured_is_compared_with_what_all_pages_show(total, why):
    units = swept(unit("page=1", 20), unit("page=2", 10, guessed_total=("count", total)))
    found = judge(units, None, (), now=5.0)

    assert (found and found.text) == why
    assert judge(units, None, (pattern_of(why or ""),), now=5.0) is None


def test_what_a_sweep_contradicts_is_known_as_long_as_sweeps_are_uncertain():
    found = None
    for doubts in (("a 1",), ("b 2",), ("a 3",)):
        found = judge(swept(unit("page=1", 5, doubts=doubts)), found, (), now=5.0)

    assert found is not None
    assert (found.why, found.known) == (("a 3",), ("a #", "b #"))


def test_an_uncertainty_is_kept_as_it_is():
    found = judge(swept(unit("page=1", 5, doubts=("a",)), repeated=("7",)), None, (), now=5.0)

    assert found is not None
    assert Uncertainty.load(found.dump()) == found
    assert Uncertainty.load(None) is None


def test_a_unit_without_claims_claims_nothing_and_keeps_nothing():
    assert Claims().dump() is None
    assert claims_of(UnitState(id=1, key="list", position=b"{}")) == Claims()


@pytest.mark.parametrize(
    ("doubt", "pattern"),
    [
        ("288 in all, 100 seen", "# in all, # seen"),
        ("3 in all, 1 seen (in parent=2)", "# in all, # seen #"),
        ("no numbers", "no numbers"),
    ],
)
def test_a_doubt_is_accepted_without_its_numbers_and_examples(doubt, pattern):
    assert pattern_of(doubt) == pattern
