"""Deletion of the oldest events, with the books of what is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from state.deliveries import Expiring
from state.errors import Conflict
from state.notices import Notice
from state.postgres import not_matching as passed_over
from state.postgres import subscriptions
from state.postgres.connection import Connection
from state.postgres.notices import tell

REASON: Final = "retention"


def expiring(conn: Connection, before: float, limit: int) -> Expiring | None:
    """At most `limit` of the oldest events before that time, and which subscriptions did not get them.

    Only a beginning of the log is deleted: an event after a younger one stays until that one is old enough.
    """
    upto = _last_old(conn, before, limit)
    return None if upto is None else Expiring(upto=upto, dropped=_dropped(conn, upto))


def purge(conn: Connection, old: Expiring, *, before: float, notices: Sequence[Notice]) -> int:
    """Delete these events within the caller's transaction, and return how many. Raises Conflict."""
    rows = conn.run("SELECT id, name FROM subscriptions ORDER BY id FOR NO KEY UPDATE").fetchall()
    dropped = _dropped(conn, old.upto)
    if dropped != old.dropped:
        raise Conflict(f"deliveries of events up to {old.upto} have changed since they were counted")
    for id_, name in rows:
        _drop_unread(conn, id_, old.upto)
        _drop_pending(conn, id_, old.upto)
        _close_books(conn, id_, old.upto)
        if name in dropped:
            subscriptions.disable(conn, id_, REASON)
    _forget_deliveries(conn, old.upto)
    conn.run("DELETE FROM last_references WHERE at < $1::float8", [before])
    gone = conn.changed("DELETE FROM events WHERE seq <= $1", [old.upto])
    tell(conn, notices)
    return gone


def _dropped(conn: Connection, upto: int) -> dict[str, int]:
    """For each subscription that takes events: how many up to this number it has not read, or were not delivered."""
    rows = conn.run(
        "SELECT name, (SELECT count(*) FROM events WHERE seq > s.cursor AND seq <= $1) + (SELECT count(*) FROM "
        "deliveries d WHERE d.subscription = s.id AND d.state = 'pending' AND d.seq <= $1 AND d.origin = 'log') "
        "FROM subscriptions s WHERE state IN ('active', 'paused') ORDER BY id",
        [upto],
    )
    return {name: count for name, count in rows if count}


def _last_old(conn: Connection, before: float, limit: int) -> int | None:
    rows = conn.run("SELECT seq, time FROM events ORDER BY seq LIMIT $1", [limit]).fetchall()
    young = next((place for place, (_, time) in enumerate(rows) if time >= before), len(rows))
    return int(rows[young - 1][0]) if young else None


def _drop_unread(conn: Connection, id_: int, upto: int) -> None:
    """Skip the events that a subscription has not read yet."""
    conn.run(
        "UPDATE subscriptions s SET cursor = $1::bigint, dropped = dropped + "
        "(SELECT count(*) FROM events WHERE seq > s.cursor AND seq <= $1::bigint) "
        "WHERE id = $2 AND cursor < $1::bigint",
        [upto, id_],
    )


def _drop_pending(conn: Connection, id_: int, upto: int) -> None:
    """Drop queued events that were not delivered in time, including lanes whose delivery is being attempted."""
    rows = conn.run(
        "DELETE FROM deliveries WHERE subscription = $1 AND state = 'pending' AND seq <= $2 RETURNING origin",
        [id_, upto],
    ).fetchall()
    if rows:
        dropped = sum(origin == "log" for (origin,) in rows)
        conn.run(
            "UPDATE subscriptions SET pending = pending - $1, dropped = dropped + $2 WHERE id = $3",
            [len(rows), dropped, id_],
        )
        conn.run(
            f"DELETE FROM lanes WHERE subscription = $1 AND {subscriptions.FREE} AND NOT EXISTS "
            "(SELECT 1 FROM deliveries d WHERE d.subscription = $1 AND d.lane = lanes.lane AND d.state = 'pending')",
            [id_],
        )


def _close_books(conn: Connection, id_: int, upto: int) -> None:
    """Add what is about to be deleted to the sums."""
    counts: dict[str, int] = dict(
        conn.run(
            "SELECT state, count(*) FROM deliveries WHERE subscription = $1 AND origin = 'log' AND seq <= $2 "
            "GROUP BY state",
            [id_, upto],
        ).fetchall()
    )
    conn.run(
        "UPDATE subscriptions SET purged_delivered = purged_delivered + $1, purged_dead = purged_dead + $2, "
        "purged_not_matching = purged_not_matching + $3, purged_upto = greatest(purged_upto, $4) WHERE id = $5",
        [counts.get("delivered", 0), counts.get("dead", 0), passed_over.forget(conn, id_, upto), upto, id_],
    )
    conn.run("UPDATE replays SET cursor = greatest(cursor, $1) WHERE subscription = $2", [upto, id_])
    conn.run("DELETE FROM replays WHERE subscription = $1 AND cursor >= until", [id_])


def _forget_deliveries(conn: Connection, upto: int) -> None:
    conn.run(
        "DELETE FROM attempts USING deliveries WHERE attempts.delivery = deliveries.id AND deliveries.seq <= $1", [upto]
    )
    conn.run("DELETE FROM deliveries WHERE seq <= $1", [upto])
