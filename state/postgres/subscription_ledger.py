"""The books of every subscription, computed from the tables: each event that it has read is counted exactly once."""

from __future__ import annotations

from typing import Final

from state.deliveries import SubscriptionLedger
from state.postgres import not_matching as passed_over
from state.postgres.connection import Connection, Database

SHOWN: Final = 1000  # most numbers that are listed


def ledger(db: Database) -> list[SubscriptionLedger]:
    """The books of every subscription by name. Nothing is taken from a stored sum if rows can prove it."""
    with db.snapshot() as conn:
        # A partition that is dropped disappears from every transaction that has not locked it before its first read.
        conn.run("LOCK TABLE events, deliveries IN ACCESS SHARE MODE")
        names = conn.run("SELECT id, name FROM subscriptions ORDER BY name").fetchall()
        return [_books(conn, id_, name) for id_, name in names]


def _books(conn: Connection, id_: int, name: str) -> SubscriptionLedger:
    row = conn.row(
        "SELECT cursor, purged_upto, purged_delivered, purged_dead, purged_not_matching, dropped FROM subscriptions "
        "WHERE id = $1",
        [id_],
    )
    assert row is not None
    cursor, purged, delivered, dead, not_matching, dropped = row
    counts: dict[str, int] = dict(
        conn.run(
            "SELECT state, count(*) FROM deliveries WHERE subscription = $1 AND origin = 'log' AND seq > $2 "
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
        unread=int(conn.value("SELECT count(*) FROM events WHERE seq > $1", [cursor])),
        missing=missing,
        stray=stray,
    )


def _compare(
    conn: Connection, id_: int, purged: int, cursor: int, passed: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Numbers in the log that are accounted for nowhere, numbers accounted for that are not in the log, and the size of
    the log."""
    rows = conn.run("SELECT seq FROM deliveries WHERE subscription = $1 AND origin = 'log' AND seq > $2", [id_, purged])
    accounted = {row[0] for row in rows}
    accounted.update(passed)
    missing: list[int] = []
    kept = 0
    for (seq,) in conn.run("SELECT seq FROM events WHERE seq > $1 AND seq <= $2 ORDER BY seq", [purged, cursor]):
        kept += 1
        if seq in accounted:
            accounted.remove(seq)
        elif len(missing) < SHOWN:
            missing.append(seq)
    return tuple(missing), tuple(sorted(accounted)[:SHOWN]), kept
