"""Text of others on a terminal and in the journal: it shows what it is and does nothing."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.rendering.terminal import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\nb\r\tc\x00", r"a\nb\r\tc\x00"),
        ("\x9b31m", r"\x9b31m"),  # C1's own CSI
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\udcff", r"\udcff"),
        ("Müller & Söhne “B” 👩‍👧 日本 עברית", "Müller & Söhne “B” 👩‍👧 日本 עברית"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_of_a_text_stay_and_none_of_them_begins_like_a_priority() -> None:
    assert printable_lines("a\n<0>\x1b[1mb\n<b>") == "a\n\\x3c0>\\x1b[1mb\n<b>"


@given(st.text(st.characters(codec=None)))
def test_what_is_printed_is_one_line_without_controls_that_can_be_encoded(text: str) -> None:
    shown = printable(text)

    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert len(f"{shown}.".splitlines()) == 1
    assert shown.encode().decode() == shown
