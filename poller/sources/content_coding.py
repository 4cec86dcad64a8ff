"""Decoding of content codings (RFC 9110, 8.4) in small pieces, so that a small answer cannot unpack to gigabytes. Pure.

Every piece has about 64 KiB, also between nested codings, and every layer may produce `most` bytes in all.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import brotli

ACCEPTED: Final = "gzip, deflate, br"
PIECE: Final = 64 * 1024  # bytes
MOST_CODINGS: Final = 3  # codings of one answer; a proxy that compresses again makes two
_OTHERS: Final = frozenset(
    {"compress", "zstd", "dcb", "dcz", "aes128gcm", "exi", "pack200-gzip"}
)  # registered codings that are not requested; any other name, such as UTF-8, is no coding and changes nothing
_MEMBER: Final = b"\x1f\x8b"  # the beginning of each member of a gzip body (RFC 1952, 2.3.1)


class CodingError(ValueError):
    """A body that does not match its `Content-Encoding`."""


class TooMuch(ValueError):
    """A body that unpacks to more bytes than allowed."""


def codings_of(header: str) -> list[str]:
    """The codings in the order in which they were applied. Raises CodingError for one that was not requested, or for
    too many.
    """
    names = [name.strip().lower().removeprefix("x-") for name in header.split(",")]
    if others := [name for name in names if name in _OTHERS]:
        raise CodingError(f"it is encoded as {others[0]!r}, which was not requested")
    codings = [name for name in names if name in _LAYERS]
    if len(codings) > MOST_CODINGS:
        raise CodingError(f"it is encoded {len(codings)} times")
    return codings


class Unpacker:
    """Decodes one body. `most` limits what each of its codings produces, including the last."""

    def __init__(self, codings: Sequence[str], *, most: int) -> None:
        self._layers: list[_Layer] = [_LAYERS[name]() for name in reversed(codings)]
        self._given = [0] * len(self._layers)
        self._most = most
        self._has_data = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded form of this part of the body, piece by piece. Raises CodingError or TooMuch.

        A body that begins as gzip does is unpacked, too, if its header does not say so: it cannot be text.
        """
        if not (self._layers or self._has_data) and data.startswith(_MEMBER):
            self._layers, self._given = [_Gzip()], [0]
        self._has_data = self._has_data or bool(data)
        return self._through(0, data)

    def finish(self) -> None:
        """Finish the body. Raises CodingError if its coding is incomplete."""
        if self._has_data and not all(layer.is_finished() for layer in self._layers):
            raise CodingError("it ends before its coding does")

    def _through(self, number: int, data: bytes) -> Iterator[bytes]:
        if number == len(self._layers):
            yield data
            return
        for piece in self._layers[number].pieces(data):
            self._given[number] += len(piece)
            if self._given[number] > self._most:
                raise TooMuch
            yield from self._through(number + 1, piece)


class _Layer(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]: ...

    def is_finished(self) -> bool: ...


class _Zlib:
    def __init__(self, bits: int = zlib.MAX_WBITS) -> None:
        self._inflate = zlib.decompressobj(bits)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while not self._inflate.eof:  # bytes after the end are ignored, as in every client
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error as error:
                raise CodingError(str(error)) from error
            data = self._inflate.unconsumed_tail
            if piece:
                yield piece
            if len(piece) < PIECE and not data:
                return

    def is_finished(self) -> bool:
        return self._inflate.eof


class _Gzip(_Zlib):
    """Members, one after the other (RFC 1952, 2.2): some servers compress each part that they write by itself."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS | 16)
        self._rest = b""  # too few bytes after a member to know whether another one follows
        self._is_over = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while not self._is_over:
            if not self._inflate.eof:
                yield from super().pieces(data)
                data = self._inflate.unused_data
            if not self._inflate.eof:
                return
            self._rest += data
            if len(self._rest) < len(_MEMBER) and _MEMBER.startswith(self._rest):
                return
            data, self._rest = self._rest, b""
            self._is_over = not data.startswith(_MEMBER)
            if not self._is_over:
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)


class _Deflate(_Zlib):
    """Zlib's format, or the raw one that some servers send under the same name."""

    def __init__(self) -> None:
        super().__init__()
        self._is_first = True

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if self._is_first and data:
            self._is_first = False
            try:
                zlib.decompressobj(zlib.MAX_WBITS).decompress(data, 1)
            except zlib.error:
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        return super().pieces(data)


class _Brotli:
    def __init__(self) -> None:
        self._inflate = brotli.Decompressor()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while not self._inflate.is_finished():
            try:
                piece = self._inflate.process(data, output_buffer_limit=PIECE)
            except brotli.error as error:
                raise CodingError(str(error)) from error
            data = b""
            if piece:
                yield piece
            elif self._inflate.can_accept_more_data():  # only this is true while there is still output
                return

    def is_finished(self) -> bool:
        return bool(self._inflate.is_finished())


_LAYERS: Final[dict[str, type[_Layer]]] = {"gzip": _Gzip, "deflate": _Deflate, "br": _Brotli}
