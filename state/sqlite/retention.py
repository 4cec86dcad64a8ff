"""Forgetting the oldest events, and keeping the books of what is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from state.records import NewEvent
from state.sqlite import not_matching as passed_over
from state.sqlite import subscriptions
from state.sqlite.events import append

Notice = Callable[[str, int, int], NewEvent]  # (subscription, version, events dropped) -> the event that tells it

REASON = "retention"


def purge(conn: sqlite3.Connection, before: float, *, notice: Notice, limit: int) -> int:
    """Forget at most `limit` of the oldest events from before that time, within the caller's transaction.

    Only a beginning of the log goes: an event behind a younger one stays until that one is old enough.
    """
    upto = _last_old(conn, before, limit)
    if upto is None:
        return 0
    for id_, name, state in conn.execute("SELECT id, name, state FROM subscriptions ORDER BY id").fetchall():
        dropped = _drop_unread(conn, id_, upto) + _drop_pending(conn, id_, upto)
        _close_books(conn, id_, upto)
        if dropped and state in ("active", "paused"):
            subscriptions.disable(conn, id_, REASON)
            append(conn, [notice(name, subscriptions.next_version(conn, id_), dropped)])
    _forget_deliveries(conn, upto)
    conn.execute("DELETE FROM last_references WHERE at < ?", [before])
    return conn.execute("DELETE FROM events WHERE seq <= ?", [upto]).rowcount


def _last_old(conn: sqlite3.Connection, before: float, limit: int) -> int | None:
    rows = conn.execute("SELECT seq, time FROM events ORDER BY seq LIMIT ?", [limit]).fetchall()
    young = next((place for place, (_, time) in enumerate(rows) if time >= before), len(rows))
    return int(rows[young - 1][0]) if young else None


def _drop_unread(conn: sqlite3.Connection, id_: int, upto: int) -> int:
    """Step over what a subscription has not read yet."""
    (cursor,) = conn.execute("SELECT cursor FROM subscriptions WHERE id = ?", [id_]).fetchone()
    if cursor >= upto:
        return 0
    (unread,) = conn.execute("SELECT count(*) FROM events WHERE seq > ? AND seq <= ?", [cursor, upto]).fetchone()
    conn.execute(
        "UPDATE subscriptions SET cursor = ?, seen = seen + ?, dropped = dropped + ? WHERE id = ?",
        [upto, unread, unread, id_],
    )
    return int(unread)


def _drop_pending(conn: sqlite3.Connection, id_: int, upto: int) -> int:
    """Drop what is queued and was not given in time; a lane whose delivery is just being attempted is dropped, too."""
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
            "DELETE FROM lanes WHERE subscription = ?1 AND lease_until IS NULL AND NOT EXISTS "
            "(SELECT 1 FROM deliveries d WHERE d.subscription = ?1 AND d.lane = lanes.lane AND d.state = 'pending')",
            [id_],
        )
    return int(dropped)


def _close_books(conn: sqlite3.Connection, id_: int, upto: int) -> None:
    """Add what is about to be forgotten to the sums."""
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
