"""Deletion of the oldest events, with the books of what is deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from state.deliveries import Expiring
from state.errors import Conflict
from state.notices import Notice
from state.sqlite import not_matching as passed_over
from state.sqlite import subscriptions
from state.sqlite.notices import tell

REASON = "retention"


def expiring(conn: sqlite3.Connection, upto: int, limit: int) -> Expiring | None:
    """At most `limit` of the oldest events up to this number, and which subscriptions did not get them."""
    oldest = "SELECT seq FROM events WHERE seq <= ? ORDER BY seq LIMIT ?"
    (last,) = conn.execute(f"SELECT max(seq) FROM ({oldest})", [upto, limit]).fetchone()
    return None if last is None else Expiring(upto=last, dropped=_dropped(conn, last))


def purge(conn: sqlite3.Connection, old: Expiring, *, before: float, notices: Sequence[Notice]) -> int:
    """Delete these events within the caller's transaction, and return how many. Raises Conflict."""
    dropped = _dropped(conn, old.upto)
    if dropped != old.dropped:
        raise Conflict(f"deliveries of events up to {old.upto} have changed since they were counted")
    for id_, name in conn.execute("SELECT id, name FROM subscriptions ORDER BY id").fetchall():
        _drop_unread(conn, id_, old.upto)
        _drop_pending(conn, id_, old.upto)
        _close_books(conn, id_, old.upto)
        if name in dropped:
            subscriptions.disable(conn, id_, REASON)
    tell(conn, notices)
    _forget_deliveries(conn, old.upto)
    conn.execute("DELETE FROM last_references WHERE at < ?", [before])
    return conn.execute("DELETE FROM events WHERE seq <= ?", [old.upto]).rowcount


def _dropped(conn: sqlite3.Connection, upto: int) -> dict[str, int]:
    """For each subscription that takes events: how many up to this number it has not read, or were not delivered."""
    rows = conn.execute(
        "SELECT name, (SELECT count(*) FROM events WHERE seq > s.cursor AND seq <= ?1) + (SELECT count(*) FROM "
        "deliveries d WHERE d.subscription = s.id AND d.state = 'pending' AND d.seq <= ?1 AND d.origin = 'log') "
        "FROM subscriptions s WHERE state IN ('active', 'paused') ORDER BY id",
        [upto],
    )
    return {name: count for name, count in rows if count}


def _drop_unread(conn: sqlite3.Connection, id_: int, upto: int) -> None:
    """Skip the events that a subscription has not read yet."""
    (cursor,) = conn.execute("SELECT cursor FROM subscriptions WHERE id = ?", [id_]).fetchone()
    if cursor >= upto:
        return
    (unread,) = conn.execute("SELECT count(*) FROM events WHERE seq > ? AND seq <= ?", [cursor, upto]).fetchone()
    conn.execute(
        "UPDATE subscriptions SET cursor = ?, dropped = dropped + ? WHERE id = ?",
        [upto, unread, id_],
    )


def _drop_pending(conn: sqlite3.Connection, id_: int, upto: int) -> None:
    """Drop queued events that were not delivered in time, including lanes whose delivery is being attempted."""
    where = "subscription = ? AND state = 'pending' AND seq <= ?"
    (dropped,) = conn.execute(
        f"SELECT count(*) FROM deliveries WHERE {where} AND origin = 'log'", [id_, upto]
    ).fetchone()
    ended = conn.execute(f"DELETE FROM deliveries WHERE {where}", [id_, upto]).rowcount
    if ended:
        conn.execute(
            "UPDATE subscriptions SET pending = pending - ?, dropped = dropped + ? WHERE id = ?", [ended, dropped, id_]
        )
        conn.execute(
            f"DELETE FROM lanes WHERE subscription = ?1 AND {subscriptions.FREE} AND NOT EXISTS "
            "(SELECT 1 FROM deliveries d WHERE d.subscription = ?1 AND d.lane = lanes.lane AND d.state = 'pending')",
            [id_],
        )


def _close_books(conn: sqlite3.Connection, id_: int, upto: int) -> None:
    """Add what is about to be deleted to the sums."""
    counts = dict(
        conn.execute(
            "SELECT state, count(*) FROM deliveries WHERE subscription = ? AND origin = 'log' AND seq <= ? "
            "GROUP BY state",
            [id_, upto],
        ).fetchall()
    )
    conn.execute(
        "UPDATE subscriptions SET purged_delivered = purged_delivered + ?, purged_dead = purged_dead + ?, "
        "purged_not_matching = purged_not_matching + ?, purged_upto = max(purged_upto, ?) WHERE id = ?",
        [counts.get("delivered", 0), counts.get("dead", 0), passed_over.forget(conn, id_, upto), upto, id_],
    )
    conn.execute("UPDATE replays SET cursor = max(cursor, ?) WHERE subscription = ?", [upto, id_])
    conn.execute("DELETE FROM replays WHERE subscription = ? AND cursor >= until", [id_])


def _forget_deliveries(conn: sqlite3.Connection, upto: int) -> None:
    conn.execute("DELETE FROM attempts WHERE delivery IN (SELECT id FROM deliveries WHERE seq <= ?)", [upto])
    conn.execute("DELETE FROM deliveries WHERE seq <= ?", [upto])
