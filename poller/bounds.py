"""Pure: an answer's body, decoded as it comes and never beyond its bounds in size or nesting.

httpx decodes each received piece whole: 64 KiB of gzip may become 64 MiB, of brotli far more. Here a decoder is
asked for no more than what is still allowed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import brotli
import numpy as np

ACCEPTED: Final = "gzip, deflate, br"
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_KEPT: Final = b'[]{}"'
_DROPPED: Final = bytes(byte for byte in range(256) if byte not in _KEPT)
_BLOCK: Final = 1 << 20
_SPACE: Final = b" \t\r\n"


class Oversized(ValueError):
    """More bytes than allowed."""


class Undecodable(ValueError):
    """Not what its content-encoding says, or cut short."""


class Body:
    """What was received of a body, decoded. Holds at most `most` bytes of it."""

    def __init__(self, encoding: str, most: int) -> None:
        """`encoding` is the `Content-Encoding`. Raises Undecodable for one that was not asked for."""
        self._most = most
        self._received = 0
        self._size = 0
        self._parts: list[bytes] = []
        self._decode, self._is_complete = _decoder(encoding.strip().lower())

    def feed(self, piece: bytes) -> None:
        """Take what arrived next. Raises Oversized and Undecodable."""
        self._received += len(piece)
        if self._received > self._most:
            raise Oversized
        part = self._decode(piece, self._most - self._size)
        self._size += len(part)
        if self._size > self._most:
            raise Oversized
        self._parts.append(part)

    def whole(self) -> bytes:
        """All of it. Raises Undecodable where its end is missing."""
        if self._received and not self._is_complete():
            raise Undecodable("cut short")
        return b"".join(self._parts)


_Decode = Callable[[bytes, int], bytes]  # a piece, and how much may come of it; one byte more tells that more would


def _decoder(encoding: str) -> tuple[_Decode, Callable[[], bool]]:
    if encoding in ("", "identity"):
        return (lambda piece, _: piece), (lambda: True)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _inflate()
    if encoding == "br":
        return _unbrotli()
    raise Undecodable(f"content-encoding {encoding[:40]!r} was not asked for")


def _inflate() -> tuple[_Decode, Callable[[], bool]]:
    state = zlib.decompressobj(_GZIP_OR_ZLIB)
    began = False

    def decode(piece: bytes, most: int) -> bytes:
        nonlocal state, began
        try:
            part = state.decompress(piece, most + 1)
        except zlib.error as error:
            if began:
                raise Undecodable(str(error)) from error
            return raw(piece, most)
        began = True
        return part

    def raw(piece: bytes, most: int) -> bytes:
        # "deflate" without zlib's wrapping, which some servers send (RFC 9110, 8.4.1.2).
        nonlocal state, began
        state, began = zlib.decompressobj(-zlib.MAX_WBITS), True
        return decode(piece, most)

    return decode, lambda: state.eof


def _unbrotli() -> tuple[_Decode, Callable[[], bool]]:
    state = brotli.Decompressor()

    def decode(piece: bytes, most: int) -> bytes:
        parts, size = [], 0
        try:
            while True:
                part = state.process(piece, output_buffer_limit=most + 1 - size)
                parts.append(part)
                size += len(part)
                piece = b""
                if size > most or state.can_accept_more_data() or state.is_finished():
                    return b"".join(parts)
        except brotli.error as error:
            raise Undecodable(str(error)) from error

    return decode, state.is_finished


def is_deeper(body: bytes, limit: int) -> bool:
    """Whether a JSON text is nested deeper than `limit`, told without parsing it. Other texts never are."""
    if body.count(b"[") + body.count(b"{") <= limit or body[:64].lstrip(_SPACE)[:1] not in (b"[", b"{"):
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes with nothing kept between them open and close: without them the rest is in or out of strings as before.
    outline = body.translate(None, _DROPPED).replace(b'""', b"")
    if b'"' in outline:
        outline = b"".join(outline.split(b'"')[::2])
    return _depth(outline) > limit


def _depth(brackets: bytes) -> int:
    deepest = depth = 0
    for start in range(0, len(brackets), _BLOCK):
        codes = np.frombuffer(brackets, np.uint8, min(_BLOCK, len(brackets) - start), start)
        steps = np.where(codes & 4, -1, 1).cumsum()  # of the four, only ] and } have this bit
        deepest = max(deepest, depth + int(steps.max()))
        depth += int(steps[-1])
    return deepest
