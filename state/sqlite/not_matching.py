"""Events that a subscription read but that did not match: one bit for each, so that the books can be checked.

A row of 512 bytes covers 4,096 numbers of the log; a row per event would cost more than its delivery.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database

WIDTH = 4096  # numbers in a block


def create(db: Database) -> None:
    """The table, as part of the schema of deliveries."""
    db.executescript(
        "CREATE TABLE passed_over (subscription INTEGER NOT NULL, block INTEGER NOT NULL, bits BLOB NOT NULL, "
        "PRIMARY KEY (subscription, block)) WITHOUT ROWID;"
    )


def add(conn: sqlite3.Connection, subscription: int, numbers: Iterable[int]) -> None:
    """Add these numbers, in rising order."""
    for block, members in groupby(numbers, key=lambda number: number // WIDTH):
        bits = _bits(conn, subscription, block)
        for number in members:
            bits |= 1 << (number % WIDTH)
        _write(conn, subscription, block, bits)


def forget(conn: sqlite3.Connection, subscription: int, upto: int) -> int:
    """Remove the numbers up to `upto` and return how many there were."""
    forgotten = 0
    for block, bits in _blocks(conn, subscription, upto // WIDTH):
        kept = bits
        if block < upto // WIDTH:
            kept = 0
        else:
            kept = bits >> (upto % WIDTH + 1) << (upto % WIDTH + 1)
        forgotten += bits.bit_count() - kept.bit_count()
        _write(conn, subscription, block, kept)
    return forgotten


def numbers(conn: sqlite3.Connection, subscription: int) -> Iterator[int]:
    """All the numbers, in rising order."""
    for block, bits in _blocks(conn, subscription, None):
        yield from (block * WIDTH + place for place in range(bits.bit_length()) if bits >> place & 1)


def _blocks(conn: sqlite3.Connection, subscription: int, last: int | None) -> list[tuple[int, int]]:
    rows = conn.execute(
        "SELECT block, bits FROM passed_over WHERE subscription = ?1 AND (?2 IS NULL OR block <= ?2) ORDER BY block",
        [subscription, last],
    )
    return [(block, int.from_bytes(bits, "little")) for block, bits in rows]


def _bits(conn: sqlite3.Connection, subscription: int, block: int) -> int:
    row = conn.execute(
        "SELECT bits FROM passed_over WHERE subscription = ? AND block = ?", [subscription, block]
    ).fetchone()
    return 0 if row is None else int.from_bytes(row[0], "little")


def _write(conn: sqlite3.Connection, subscription: int, block: int, bits: int) -> None:
    if not bits:
        conn.execute("DELETE FROM passed_over WHERE subscription = ? AND block = ?", [subscription, block])
        return
    conn.execute(
        "INSERT INTO passed_over VALUES (?, ?, ?) ON CONFLICT (subscription, block) DO UPDATE SET bits = excluded.bits",
        [subscription, block, bits.to_bytes((bits.bit_length() + 7) // 8, "little")],
    )
