"""Notes of what was set aside, and by what they are known again."""

from __future__ import annotations

import pytest

from poller.changes.aside import SHOWN, SetAside, note_of
from poller.changes.certainty import pattern_of


def note(count: int, why: str = "without an id (`id`)") -> str:
    digests = [bytes([place]) for place in range(count)]
    return note_of([SetAside(why=why, digest=digest, object_id=None) for digest in digests], digests)


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (note(1), note(2), True),
        (note(7), note(3), True),
        (note(1), note(1, "given as a number"), False),
        ("1 object odd set aside (index 0: items(1))", "2 objects odd set aside (index 3: a, index 4: b)", True),
        ("1 change found by a complete sweep only (7)", "2 changes found by a complete sweep only (8, 9)", True),
        ("1 id shown more than once (7)", "2 ids shown more than once (7, 8)", True),
    ],
)
def test_a_note_is_the_same_with_other_numbers_and_examples(one: str, other: str, are_same: bool) -> None:
    assert (pattern_of(one) == pattern_of(other)) is are_same


@pytest.mark.parametrize(("length", "shown"), [(SHOWN, "a" * SHOWN), (SHOWN + 1, "a" * SHOWN + "…")])
def test_a_note_cuts_a_long_id(length: int, shown: str) -> None:
    aside = SetAside(why="odd", digest=b"1", object_id="a" * length)
    assert aside.noted([b"0", b"1"]) == f"index 1: {shown}"
