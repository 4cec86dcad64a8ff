"""Queueing deliveries again, outside the order: each in a lane of its own."""

from __future__ import annotations

from collections.abc import Sequence

from state.postgres import subscriptions
from state.postgres.connection import Connection


def redeliver(conn: Connection, deliveries: Sequence[int], now: float) -> int:
    """Queue deliveries again, and return how many of these ids there are."""
    wanted = [delivery for delivery in deliveries if abs(delivery) < 2**63]
    conn.run(
        "SELECT id FROM subscriptions WHERE id IN (SELECT subscription FROM deliveries WHERE id = ANY($1::bigint[])) "
        "ORDER BY id FOR NO KEY UPDATE",
        [wanted],
    )
    return sum(_redeliver(conn, delivery, now) for delivery in wanted)


def _redeliver(conn: Connection, delivery: int, now: float) -> bool:
    row = conn.row("SELECT subscription, seq, state, lane FROM deliveries WHERE id = $1", [delivery])
    if row is None:
        return False
    id_, seq, state, lane = row
    subscriptions.probe_at_once(conn, id_, now)
    if state == "pending":
        conn.run("UPDATE lanes SET due = 0, not_before = 0 WHERE subscription = $1 AND lane = $2", [id_, lane])
    elif state == "delivered":
        queue_apart(conn, id_, seq, origin="redelivery", now=now)
    else:
        conn.run(
            "UPDATE deliveries SET state = 'pending', lane = '!' || id::text, retries = 0, refusals = 0, "
            "digest = NULL, finished_at = NULL, queued_at = $1::float8, due = $1::float8 WHERE id = $2",
            [now, delivery],
        )
        _open_lane(conn, id_, f"!{delivery}")
    return True


def queue_apart(conn: Connection, id_: int, seq: int, *, origin: str, now: float) -> int:
    """Queue one event in a lane of its own, outside the order."""
    delivery = int(
        conn.value(
            "INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at, due) "
            "VALUES ($1, $2, $3, '', 'pending', $4::float8, $4::float8) RETURNING id",
            [id_, seq, origin, now],
        )
    )
    conn.run("UPDATE deliveries SET lane = '!' || id::text WHERE id = $1", [delivery])
    _open_lane(conn, id_, f"!{delivery}")
    return delivery


def _open_lane(conn: Connection, id_: int, lane: str) -> None:
    """Open a lane due at 0, which is due before all others: a probe that a command asks for uses it."""
    conn.run("INSERT INTO lanes (subscription, lane, due) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING", [id_, lane])
    conn.run("UPDATE subscriptions SET pending = pending + 1 WHERE id = $1", [id_])
