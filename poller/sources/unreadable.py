"""Answers that are valid JSON except for single values: half a surrogate pair, NaN, Infinity, control characters in
texts. Pure.

Such a value is replaced by bytes that are not UTF-8, so that the answer can be split and only the objects that hold one
are unreadable. The bytes also tell what is wrong with them.
"""

from __future__ import annotations

import re
from typing import Final

MOST_QUOTES: Final = 1_000_000  # each text takes a hundred bytes while it is checked
_SUSPECT: Final = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|[\x00-\x1f]")
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)', re.DOTALL)
_WRONG_IN_TEXT: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair, which is valid
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
    rb"|\\[^u]|\\u[0-9a-fA-F]{4}"
    rb"|[\x00-\x1f]"
)
_HALF_PAIR: Final = b"\xed\xa0\x80"  # U+D800 in UTF-8, which is not valid
_NO_NUMBER: Final = b'"\xff\xfe"'
_CONTROL: Final = b"\xff\xfd"
_REASONS: Final = {
    _HALF_PAIR: "with half of a surrogate pair",
    _NO_NUMBER: "with NaN or Infinity",
    _CONTROL: "with a control character in a text",
}
NOT_UTF8: Final = "with text that is not UTF-8"


def set_apart(content: bytes) -> bytes | None:
    """The answer with such values replaced, so that its other objects can be read.

    None if it has none, or so many texts that checking each would take gigabytes.
    """
    if content.count(b'"') > MOST_QUOTES or not _SUSPECT.search(content):
        return None
    mended = _TOKENS.sub(_mended, content)
    return None if mended == content else mended


def reason_of(raw: bytes) -> str:
    """Why an object that is not UTF-8 cannot be read."""
    return next((reason for mark, reason in _REASONS.items() if mark in raw), NOT_UTF8)


def _mended(found: re.Match[bytes]) -> bytes:
    token = found[0]
    return _WRONG_IN_TEXT.sub(_mended_text, token) if token.startswith(b'"') else _NO_NUMBER


def _mended_text(found: re.Match[bytes]) -> bytes:
    part = found[0]
    if len(part) == 1:
        return _CONTROL
    is_half = len(part) == 6 and part[2:3] in b"dD" and part[3:4].lower() in b"89abcdef"
    return _HALF_PAIR if is_half else part
