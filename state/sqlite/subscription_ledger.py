"""The books of every subscription, computed from the tables: each event that it has read is counted exactly once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from state.deliveries import SubscriptionLedger
from state.errors import StateError
from state.sqlite import not_matching as passed_over
from state.sqlite.connection import State

SHOWN = 1000  # most numbers that are listed


def ledger(db: State) -> list[SubscriptionLedger]:
    """The books of every subscription by name. Nothing is taken from a stored sum if rows can prove it."""
    conn = db.conn
    if conn is None:
        raise StateError("the state is closed")
    with _snapshot(conn):
        names = conn.execute("SELECT id, name FROM subscriptions ORDER BY name").fetchall()
        return [_books(conn, id_, name) for id_, name in names]


@contextlib.contextmanager
def _snapshot(conn: sqlite3.Connection) -> Iterator[None]:
    """Let all reads within the block see one moment, despite concurrent writers."""
    if conn.in_transaction:
        yield
        return
    conn.execute("BEGIN")
    try:
        yield
    finally:
        conn.execute("COMMIT")


def _books(conn: sqlite3.Connection, id_: int, name: str) -> SubscriptionLedger:
    row = conn.execute(
        "SELECT cursor, purged_upto, purged_delivered, purged_dead, purged_not_matching, dropped FROM subscriptions "
        "WHERE id = ?",
        [id_],
    ).fetchone()
    cursor, purged, delivered, dead, not_matching, dropped = row
    counts = dict(
        conn.execute(
            "SELECT state, count(*) FROM deliveries WHERE subscription = ? AND origin = 'log' AND seq > ? "
            "GROUP BY state",
            [id_, purged],
        ).fetchall()
    )
    passed = list(passed_over.numbers(conn, id_))
    missing, stray, kept = _compare(conn, id_, purged, cursor, passed)
    return SubscriptionLedger(
        subscription=name,
        events=kept + delivered + dead + not_matching + dropped,
        delivered=delivered + counts.get("delivered", 0),
        pending=counts.get("pending", 0),
        dead=dead + counts.get("dead", 0),
        not_matching=not_matching + len(passed),
        dropped=dropped,
        unread=int(conn.execute("SELECT count(*) FROM events WHERE seq > ?", [cursor]).fetchone()[0]),
        missing=missing,
        stray=stray,
    )


def _compare(
    conn: sqlite3.Connection, id_: int, purged: int, cursor: int, passed: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Numbers in the log that are accounted for nowhere, numbers accounted for that are not in the log, and the size of
    the log.
    """
    rows = conn.execute(
        "SELECT seq FROM deliveries WHERE subscription = ? AND origin = 'log' AND seq > ? ORDER BY seq", [id_, purged]
    )
    accounted = {row[0] for row in rows}
    accounted.update(passed)
    missing: list[int] = []
    kept = 0
    for seq in _log_numbers(conn, purged, cursor):
        kept += 1
        if seq in accounted:
            accounted.remove(seq)
        elif len(missing) < SHOWN:
            missing.append(seq)
    return tuple(missing), tuple(sorted(accounted)[:SHOWN]), kept


def _log_numbers(conn: sqlite3.Connection, purged: int, cursor: int) -> Iterator[int]:
    # The index on time is small and has every number; reading the table would read all data as well.
    rows = conn.execute("SELECT seq FROM events INDEXED BY events_time WHERE seq > ? AND seq <= ?", [purged, cursor])
    return (row[0] for row in rows)
