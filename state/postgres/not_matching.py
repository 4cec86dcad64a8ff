"""Events that a subscription read but that did not match: one bit for each, so that the books can be checked.

A row of 512 bytes covers 4,096 numbers of the log; a row per event would cost more than its delivery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from state.postgres.connection import Connection

WIDTH: Final = 4096  # numbers in a block


def add(conn: Connection, subscription: int, numbers: Iterable[int]) -> None:
    """Add these numbers, in rising order."""
    for block, members in groupby(numbers, key=lambda number: number // WIDTH):
        bits = _bits(conn, subscription, block)
        for number in members:
            bits |= 1 << (number % WIDTH)
        _write(conn, subscription, block, bits)


def forget(conn: Connection, subscription: int, upto: int) -> int:
    """Remove the numbers up to `upto` and return how many there were."""
    forgotten = 0
    for block, bits in _blocks(conn, subscription, upto // WIDTH):
        kept = 0 if block < upto // WIDTH else bits >> (upto % WIDTH + 1) << (upto % WIDTH + 1)
        forgotten += bits.bit_count() - kept.bit_count()
        _write(conn, subscription, block, kept)
    return forgotten


def numbers(conn: Connection, subscription: int) -> Iterator[int]:
    """All the numbers, in rising order."""
    for block, bits in _blocks(conn, subscription, None):
        yield from (block * WIDTH + place for place in range(bits.bit_length()) if bits >> place & 1)


def _blocks(conn: Connection, subscription: int, last: int | None) -> list[tuple[int, int]]:
    rows = conn.run(
        "SELECT block, bits FROM passed_over WHERE subscription = $1 AND ($2::bigint IS NULL OR block <= $2::bigint) "
        "ORDER BY block",
        [subscription, last],
    )
    return [(block, int.from_bytes(bits, "little")) for block, bits in rows]


def _bits(conn: Connection, subscription: int, block: int) -> int:
    bits = conn.value("SELECT bits FROM passed_over WHERE subscription = $1 AND block = $2", [subscription, block])
    return 0 if bits is None else int.from_bytes(bits, "little")


def _write(conn: Connection, subscription: int, block: int, bits: int) -> None:
    if not bits:
        conn.run("DELETE FROM passed_over WHERE subscription = $1 AND block = $2", [subscription, block])
        return
    conn.run(
        "INSERT INTO passed_over VALUES ($1, $2, $3) "
        "ON CONFLICT (subscription, block) DO UPDATE SET bits = excluded.bits",
        [subscription, block, bits.to_bytes((bits.bit_length() + 7) // 8, "little")],
    )
