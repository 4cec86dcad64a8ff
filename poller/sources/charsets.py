"""Charsets of answers: bodies that declare another one than UTF-8 are decoded, and the start of any body is text. Pure.

Only charsets of text are known here. Python's codecs also have `hex`, `zlib`, `rot13`, `idna` and `punycode`, which
are no charsets, raise what they like, and cost as much as a server wants.
"""

from __future__ import annotations

import codecs
from typing import Final

import httpx

OPENING: Final = 200  # characters of an answer that an error shows
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
_CHARSETS: Final = frozenset(codecs.lookup(name).name for name in _KNOWN)
_UTF_8: Final = frozenset({"ascii", "utf-8", "utf-8-sig"})
_SEVEN_BITS: Final = "iso2022"  # looks like ASCII, and is not
_LOOKED_AT: Final = 100  # bytes; UTF-16 and UTF-32 have a zero among them


class WrongCharset(ValueError):
    """A body that is not what its charset says."""


def charset_of(response: httpx.Response) -> str | None:
    """The charset that the answer declares, by Python's name; None where it declares none that is known."""
    try:
        name = codecs.lookup(response.charset_encoding or "").name
    except (LookupError, ValueError):  # not a name, or not even text
        return None
    return name if name in _CHARSETS else None


def opening(response: httpx.Response, characters: int = OPENING) -> str:
    """The start of the body as text, whatever its charset is said to be: what cannot be read becomes U+FFFD."""
    start = response.content[: characters * 4]
    return start.decode(charset_of(response) or "utf-8", errors="replace")[:characters]


def as_utf8(body: bytes, charset: str | None) -> bytes:
    """The body in UTF-8. Raises WrongCharset where it is not what `charset` says.

    A body that is UTF-8 already stays as it is: servers declare other charsets by default, and mean nothing by it.
    """
    if charset is None or charset in _UTF_8 or (not charset.startswith(_SEVEN_BITS) and _is_utf8(body)):
        return body
    try:
        return body.decode(charset).encode()
    except UnicodeError as error:
        raise WrongCharset(f"the answer says that it is {charset}, and is not") from error


def _is_utf8(body: bytes) -> bool:
    try:
        return b"\0" not in body[:_LOOKED_AT] and (body.isascii() or bool(body.decode()))
    except UnicodeDecodeError:
        return False
