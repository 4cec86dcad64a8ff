"""Charsets of answers: bodies in other charsets than UTF-8 are decoded, and the start of any body is shown as text.
Pure.

Only charsets of text are accepted. Python's codecs also have `hex`, `zlib`, `rot13`, `idna` and `punycode`, which are
not charsets, raise arbitrary exceptions, and may be arbitrarily expensive.
"""

from __future__ import annotations

import codecs
from functools import cache
from typing import Final

import httpx

OPENING: Final = 200  # characters of an answer shown in an error
_KNOWN: Final = [
    "ascii",
    "big5",
    "cp1250",
    "cp1251",
    "cp1252",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "cp1258",
    "cp437",
    "cp850",
    "cp866",
    "cp874",
    "cp932",
    "cp949",
    "cp950",
    "euc_jp",
    "euc_kr",
    "gb18030",
    "gb2312",
    "gbk",
    "iso2022_jp",
    "iso8859-1",
    "iso8859-2",
    "iso8859-3",
    "iso8859-4",
    "iso8859-5",
    "iso8859-6",
    "iso8859-7",
    "iso8859-8",
    "iso8859-9",
    "iso8859-10",
    "iso8859-11",
    "iso8859-13",
    "iso8859-14",
    "iso8859-15",
    "iso8859-16",
    "koi8-r",
    "koi8-u",
    "mac-roman",
    "shift_jis",
    "tis-620",
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-be",
    "utf-16-le",
    "utf-32",
    "utf-32-be",
    "utf-32-le",
]
_UTF_8: Final = frozenset({"ascii", "utf-8", "utf-8-sig"})
_SEVEN_BITS: Final = "iso2022"  # looks like ASCII, but is not
_LOOKED_AT: Final = 100  # bytes; UTF-16 and UTF-32 have a zero among them


class WrongCharset(ValueError):
    """A body that is not in its declared charset."""


def charset_of(response: httpx.Response) -> str | None:
    """The charset that the answer declares, by Python's name; None if it declares none that is known."""
    try:
        name = codecs.lookup(response.charset_encoding or "").name
    except (LookupError, ValueError):  # not a name, or not even text
        return None
    return name if name in _UTF_8 or name in _charsets() else None


@cache
def _charsets() -> frozenset[str]:
    """The known charsets by Python's names. Each is a module that Python loads."""
    return frozenset(codecs.lookup(name).name for name in _KNOWN)


def opening(response: httpx.Response, characters: int = OPENING) -> str:
    """The start of the body as text, whatever its charset; unreadable bytes become U+FFFD."""
    start = response.content[: characters * 4]
    return start.decode(charset_of(response) or "utf-8", errors="replace")[:characters]


def as_utf8(body: bytes, charset: str | None) -> bytes:
    """The body in UTF-8. Raises WrongCharset if it is not in `charset`.

    A body that is valid UTF-8 is left unchanged, because servers declare other charsets by default without using them.
    """
    if charset is None or charset in _UTF_8 or (not charset.startswith(_SEVEN_BITS) and _is_utf8(body)):
        return body
    try:
        return body.decode(charset).encode()
    except UnicodeError as error:
        raise WrongCharset(f"the answer declares {charset}, but is not in it") from error


def _is_utf8(body: bytes) -> bool:
    try:
        return b"\0" not in body[:_LOOKED_AT] and (body.isascii() or bool(body.decode()))
    except UnicodeDecodeError:
        return False
