"""Text of receivers, made fit for storage. Pure."""

from __future__ import annotations

import re
from typing import Final

RECEIPT_BYTES: Final = 4096  # bytes of an answer that are kept
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")  # characters that neither databases nor UTF-8 can hold


def storable(text: object, limit: int) -> str:
    """The start of the text as valid Unicode without NUL, at most `limit` bytes of UTF-8.

    Lone surrogates, which stand for bytes that were not UTF-8 or come from JSON escapes, become U+FFFD.
    """
    start = str(text)[:limit]
    if start.isascii() and "\x00" not in start:
        return start
    return _UNSTORABLE.sub(_replacement, start).encode()[:limit].decode(errors="ignore")


def _replacement(found: re.Match[str]) -> str:
    return "" if found[0] == "\x00" else "\ufffd"
