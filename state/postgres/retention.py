"""Deletion of the oldest events, with the books of what is deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from state.deliveries import Expiring
from state.errors import Conflict
from state.notices import Notice
from state.postgres import not_matching as passed_over
from state.postgres import partitions, subscriptions
from state.postgres.connection import Connection
from state.postgres.notices import tell

REASON: Final = "retention"

# How many events up to number $1 a subscription `s` has not read. Those of a subscription that has read none of them
# are counted once for all.
UNREAD: Final = (
    "CASE WHEN s.cursor >= $1::bigint THEN 0 "
    "WHEN s.cursor < (SELECT min(seq) FROM events) THEN (SELECT count(*) FROM events WHERE seq <= $1::bigint) "
    "ELSE (SELECT count(*) FROM events WHERE seq > s.cursor AND seq <= $1::bigint) END"
)
# Drops queued events that were not delivered in time, including those whose delivery is being attempted.
DROP_PENDING: Final = """
WITH gone AS (
    DELETE FROM deliveries WHERE state = 'pending' AND seq <= $1 RETURNING subscription, origin
), counted AS (
    SELECT subscription, count(*) AS pending, count(*) FILTER (WHERE origin = 'log') AS dropped FROM gone
    GROUP BY subscription
)
UPDATE subscriptions s SET pending = s.pending - c.pending, dropped = s.dropped + c.dropped
FROM counted c WHERE s.id = c.subscription RETURNING s.id, c.dropped
"""
DROP_LANES: Final = (
    f"DELETE FROM lanes WHERE subscription = ANY($1::bigint[]) AND {subscriptions.FREE} AND NOT EXISTS (SELECT 1 "
    "FROM deliveries d WHERE d.subscription = lanes.subscription AND d.lane = lanes.lane AND d.state = 'pending')"
)
# What must not change from the count of the deliveries up to number $1 until the subscriptions are locked.
MARKS: Final = "SELECT id, least(cursor, $1::bigint), purged_upto FROM subscriptions ORDER BY id"
COUNT: Final = (
    "SELECT subscription, count(*) FROM deliveries WHERE {of} origin = 'log' AND seq <= $1 GROUP BY subscription"
)
CLOSE_BOOKS: Final = (
    "UPDATE subscriptions s SET purged_delivered = purged_delivered + n.delivered, purged_dead = purged_dead + n.dead, "
    "purged_not_matching = purged_not_matching + n.not_matching, purged_upto = greatest(purged_upto, $1::bigint) "
    "FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n (id, delivered, dead, not_matching) "
    "WHERE s.id = n.id"
)


def expiring(conn: Connection, upto: int, before: float, limit: int) -> Expiring | None:
    """The oldest events up to this number, and which subscriptions did not get them.

    The events of a partition that is over expire together if they can; others expire at most `limit` at once, where the
    oldest is from long `before` that time.
    """
    last = _last_of_partition(conn, upto) or _last_old(conn, upto, before, limit)
    return None if last is None else Expiring(upto=last, dropped=_dropped(conn, last))


def purge(conn: Connection, old: Expiring, *, before: float, notices: Sequence[Notice]) -> int:
    """Delete these events within the caller's transaction, and return how many. Raises Conflict.

    A partition may have millions of deliveries: they are counted before anything is locked.
    """
    conn.lift_limits()
    partitions.wait_for_others(conn)
    marks = conn.run(MARKS, [old.upto]).fetchall()
    counts: dict[int, int] = dict(conn.run(COUNT.format(of=""), [old.upto]).fetchall())
    gone = int(conn.value("SELECT count(*) FROM events WHERE seq <= $1", [old.upto]))
    partitions.lock_subscriptions(conn)
    if conn.run(MARKS, [old.upto]).fetchall() != marks or _dropped(conn, old.upto) != old.dropped:
        raise Conflict(f"deliveries of events up to {old.upto} have changed since they were counted")
    conn.run(
        f"UPDATE subscriptions s SET cursor = $1::bigint, dropped = dropped + {UNREAD} WHERE cursor < $1::bigint",
        [old.upto],
    )
    _close_books(conn, old.upto, [mark[0] for mark in marks], counts)
    conn.run("UPDATE replays SET cursor = greatest(cursor, $1)", [old.upto])
    conn.run("DELETE FROM replays WHERE cursor >= until")
    conn.run(
        "UPDATE subscriptions SET state = 'disabled', reason = $1 WHERE name = ANY($2::text[])",
        [REASON, [*old.dropped]],
    )
    conn.run("DELETE FROM last_references WHERE at < $1::float8", [before])
    _forget(conn, old.upto)
    tell(conn, notices)
    return gone


def _close_books(conn: Connection, upto: int, ids: Sequence[int], counts: Mapping[int, int]) -> None:
    """Drop what is pending, and add the rest of what is about to be deleted to the sums."""
    pending: dict[int, int] = dict(conn.run(DROP_PENDING, [upto]).fetchall())
    if pending:
        conn.run(DROP_LANES, [list(pending)])
    dead: dict[int, int] = dict(conn.run(COUNT.format(of="state = 'dead' AND"), [upto]).fetchall())
    not_matching = passed_over.forget(conn, upto)
    rows = [
        (id_, counts.get(id_, 0) - pending.get(id_, 0) - dead.get(id_, 0), dead.get(id_, 0), not_matching.get(id_, 0))
        for id_ in ids
    ]
    conn.run(CLOSE_BOOKS, [upto, *([list(column) for column in zip(*rows, strict=True)] or [[]] * 4)])


def _last_of_partition(conn: Connection, upto: int) -> int | None:
    """The last number of the first partition, if it is over and ends up to this number."""
    first = partitions.oldest(conn)
    return None if first is None or first.upper is None or first.upper - 1 > upto else first.upper - 1


def _last_old(conn: Connection, upto: int, before: float, limit: int) -> int | None:
    rows = conn.run("SELECT seq, time FROM events WHERE seq <= $1 ORDER BY seq LIMIT $2", [upto, limit]).fetchall()
    if not rows:
        return None
    is_over = partitions.oldest(conn) is not None
    if is_over and rows[0][1] >= before - partitions.patience(conn, before):
        return None
    return int(rows[-1][0])


def _dropped(conn: Connection, upto: int) -> dict[str, int]:
    """For each subscription that takes events: how many up to this number it has not read, or were not delivered."""
    rows = conn.run(
        f"SELECT name, {UNREAD} + (SELECT count(*) FROM deliveries d WHERE d.subscription = s.id "
        "AND d.state = 'pending' AND d.seq <= $1 AND d.origin = 'log') "
        "FROM subscriptions s WHERE state IN ('active', 'paused') ORDER BY id",
        [upto],
    )
    return {name: count for name, count in rows if count}


def _forget(conn: Connection, upto: int) -> None:
    """Delete the events, deliveries and attempts up to a number: whole partitions, and the rest row by row."""
    if partitions.has_whole(conn, upto):
        partitions.drop(conn, upto)
    conn.run(
        "DELETE FROM attempts USING deliveries WHERE attempts.delivery = deliveries.id AND deliveries.seq <= $1", [upto]
    )
    conn.run("DELETE FROM deliveries WHERE seq <= $1", [upto])
    conn.run("DELETE FROM events WHERE seq <= $1", [upto])
