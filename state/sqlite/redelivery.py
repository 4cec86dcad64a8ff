"""Queueing deliveries again, outside the order: each in a lane of its own."""

from __future__ import annotations

import sqlite3

from state.sqlite import subscriptions


def redeliver(conn: sqlite3.Connection, delivery: int, now: float) -> bool:
    """Queue a delivery again, and return whether it exists."""
    row = conn.execute("SELECT subscription, seq, state, lane FROM deliveries WHERE id = ?", [delivery]).fetchone()
    if row is None:
        return False
    id_, seq, state, lane = row
    subscriptions.probe_at_once(conn, id_, now)
    if state == "pending":
        conn.execute("UPDATE lanes SET due = 0, not_before = 0 WHERE subscription = ? AND lane = ?", [id_, lane])
    elif state == "delivered":
        queue_apart(conn, id_, seq, origin="redelivery", now=now)
    else:
        conn.execute(
            "UPDATE deliveries SET state = 'pending', lane = ?, retries = 0, refusals = 0, digest = NULL, "
            "finished_at = NULL, queued_at = ?, due = ? WHERE id = ?",
            [f"!{delivery}", now, now, delivery],
        )
        _open_lane(conn, id_, f"!{delivery}")
    return True


def queue_apart(conn: sqlite3.Connection, id_: int, seq: int, *, origin: str, now: float) -> int:
    """Queue one event in a lane of its own, outside the order."""
    cursor = conn.execute(
        "INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at, due) "
        "VALUES (?1, ?2, ?3, '', 'pending', ?4, ?4)",
        [id_, seq, origin, now],
    )
    delivery = int(cursor.lastrowid or 0)
    conn.execute("UPDATE deliveries SET lane = ? WHERE id = ?", [f"!{delivery}", delivery])
    _open_lane(conn, id_, f"!{delivery}")
    return delivery


def _open_lane(conn: sqlite3.Connection, id_: int, lane: str) -> None:
    """Open a lane due at 0, which is due before all others: a probe that a command asks for uses it."""
    conn.execute("INSERT INTO lanes (subscription, lane, due) VALUES (?, ?, 0) ON CONFLICT DO NOTHING", [id_, lane])
    conn.execute("UPDATE subscriptions SET pending = pending + 1 WHERE id = ?", [id_])
