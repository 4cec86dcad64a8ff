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


def forget(conn: Connection, upto: int) -> dict[int, int]:
    """Remove the numbers up to `upto` of every subscription, and return how many each had."""
    rows = conn.run(
        "WITH gone AS (DELETE FROM passed_over WHERE block < $1 RETURNING subscription, bit_count(bits) AS bits) "
        "SELECT subscription, sum(bits)::bigint FROM gone GROUP BY subscription",
        [upto // WIDTH],
    )
    forgotten: dict[int, int] = dict(rows.fetchall())
    block = upto // WIDTH
    for id_, stored in conn.run("SELECT subscription, bits FROM passed_over WHERE block = $1", [block]).fetchall():
        bits, below = int.from_bytes(stored, "little"), upto % WIDTH + 1
        kept = bits >> below << below
        if kept != bits:
            forgotten[id_] = forgotten.get(id_, 0) + bits.bit_count() - kept.bit_count()
            _write(conn, id_, block, kept)
    return forgotten


def numbers(conn: Connection, subscription: int) -> Iterator[int]:
    """All the numbers, in rising order."""
    rows = conn.run("SELECT block, bits FROM passed_over WHERE subscription = $1 ORDER BY block", [subscription])
    for block, stored in rows:
        bits = int.from_bytes(stored, "little")
        yield from (block * WIDTH + place for place in range(bits.bit_length()) if bits >> place & 1)


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
