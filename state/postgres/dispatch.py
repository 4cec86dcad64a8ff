"""The steps of deliveries, from the log to the sinks, each in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from state.deliveries import (
    PENDING_LIMIT,
    ClaimRequest,
    Dispatched,
    Expiring,
    Feed,
    Registration,
    Settled,
    Settlement,
)
from state.errors import Conflict
from state.leases import Lease
from state.notices import Notice
from state.postgres import not_matching as passed_over
from state.postgres import partitions, retention, subscriptions
from state.postgres.claims import settle
from state.postgres.connection import Connection, Database, transaction
from state.postgres.leases import check
from state.postgres.notices import tell
from state.postgres.redelivery import queue_apart, redeliver
from state.records import Event
from state.rows import EVENT, event_of

OWNED: Final = (
    "SELECT l.worker, l.epoch, s.id FROM leases l CROSS JOIN subscriptions s WHERE l.name = $1 AND s.name = $2 "
    "FOR KEY SHARE OF l FOR NO KEY UPDATE OF s"
)
NEWS: Final = "NOTIFY poller_deliveries"  # makes the owner of a subscription look at its lanes again


class Deliveries:
    """The steps of deliveries, from the log to the sinks, each in one transaction."""

    def __init__(self, db: Database, *, pending_limit: int = PENDING_LIMIT) -> None:
        self._db = db
        self._limit = pending_limit

    def register(self, registrations: Sequence[Registration], *, now: float) -> None:
        """Register the subscriptions. New ones begin at their `start`; those not named are kept as removed.

        Deliveries due later than is possible, because the clock was wrong, become due at once.
        """
        with transaction(self._db) as conn:
            subscriptions.register(conn, registrations)
            subscriptions.bound_waits(conn, registrations, now)

    def pause(self, name: str) -> None:
        """Stop delivering to a subscription until it is resumed. Raises StateError if it does not exist."""
        with transaction(self._db) as conn:
            subscriptions.pause(conn, name)
            conn.run(NEWS)

    def resume(self, name: str) -> None:
        """Deliver to a paused or disabled subscription at once. Raises StateError if it does not exist."""
        with transaction(self._db) as conn:
            subscriptions.resume(conn, name)
            conn.run(NEWS)

    def feeds(self, leases: Sequence[Lease], *, now: float) -> list[Feed]:
        """The positions from which active ones of these subscriptions can read on, if they have room."""
        return subscriptions.feeds(self._db, [lease.subject for lease in leases], self._limit, now)

    def read(self, after: int, limit: int) -> list[Event]:
        """The events after number `after`, in order."""
        rows = self._db.run(f"SELECT {EVENT} FROM events WHERE seq > $1 ORDER BY seq LIMIT $2", [after, limit])
        return [event_of(row) for row in rows]

    def dispatch(self, lease: Lease, dispatched: Sequence[Dispatched], *, now: float) -> None:
        """Queue what matched and move the cursors. Raises Conflict if a cursor has moved meanwhile, and LeaseLost."""
        with transaction(self._db) as conn:
            id_ = _owned(conn, lease)
            for one in dispatched:
                _dispatch(conn, id_, one, now)

    def settle(self, lease: Lease, batch: Settlement, claim: ClaimRequest | None = None) -> Settled:
        """Write the results of claims, and claim others. Raises LeaseLost."""
        with transaction(self._db) as conn:
            id_ = _owned(conn, lease)
            return settle(conn, lease, id_, batch, claim, self._limit)

    def redeliver(self, ids: Iterable[int], *, now: float) -> int:
        """Queue deliveries again and return how many: dead letters themselves, delivered ones as copies.

        A pending delivery becomes due at once. Unknown ids are skipped.
        """
        with transaction(self._db) as conn:
            conn.run(NEWS)
            return redeliver(conn, list(ids), now)

    def replay(self, name: str, *, after: int) -> int:
        """Deliver again what the subscription has read after number `after`; returns the last of these numbers.

        Raises StateError if the subscription does not exist.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            until = int(conn.value("SELECT cursor FROM subscriptions WHERE id = $1", [id_]))
            if until > after:
                values = [id_, max(after, 0), until]
                conn.run("INSERT INTO replays (subscription, cursor, until) VALUES ($1, $2, $3)", values)
                conn.run(NEWS)
            return until

    def ping(self, name: str, notice: Notice, *, now: float) -> int:
        """Record a test event, queue it for this subscription only, and return the delivery's id.

        Raises StateError if the subscription does not exist.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            subscriptions.probe_at_once(conn, id_, now)
            [seq] = tell(conn, [notice])
            conn.run(NEWS)
            return queue_apart(conn, id_, seq, origin="ping", now=now)

    def prepare(self, before: float) -> None:
        """Begin partitions ahead for a log whose events before that time are deleted. Raises Held."""
        partitions.extend(self._db, before)

    def expiring(self, upto: int, *, before: float, limit: int = 2000) -> Expiring | None:
        """The oldest events (at most `limit`) up to number `upto`, and which subscriptions did not get them; None if
        there are none.
        """
        with transaction(self._db) as conn:
            return retention.expiring(conn, upto, before, limit)

    def purge(self, expiring: Expiring, *, before: float, notices: Sequence[Notice]) -> int:
        """Delete these events and return how many; `notices` report undelivered ones.

        Undelivered events are dropped, counted in the subscription's books, and the subscription is disabled. Raises
        Conflict if deliveries of them changed meanwhile, and Held if another transaction uses them for long.
        """
        with partitions.held_if_busy(), transaction(self._db) as conn:
            return retention.purge(conn, expiring, before=before, notices=notices)


def _owned(conn: Connection, lease: Lease) -> int:
    """The row of the subscription of a lease; both are locked until the commit. Raises LeaseLost and StateError."""
    row = conn.row(OWNED, [lease.name, lease.subject])
    if row is None or row[:2] != (lease.worker, lease.epoch):
        check(conn, lease)
        return subscriptions.id_of(conn, lease.subject)
    return int(row[2])


def _dispatch(conn: Connection, id_: int, one: Dispatched, now: float) -> None:
    feed = one.feed
    origin = "log" if feed.replay is None else "replay"
    _advance(conn, id_, one)
    if one.matches:
        conn.run(
            "WITH new AS (SELECT * FROM unnest($3::bigint[], $4::text[], $5::float8[]) WITH ORDINALITY "
            "AS m (seq, lane, due, place)), "
            "opened AS (INSERT INTO lanes (subscription, lane, due, first_seq) "
            "SELECT DISTINCT ON (lane) $1::bigint, lane, due, seq FROM new ORDER BY lane, place "
            "ON CONFLICT DO NOTHING), "
            "counted AS (UPDATE subscriptions SET pending = pending + (SELECT count(*) FROM new) WHERE id = $1) "
            "INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at, due) "
            "SELECT $1::bigint, seq, $2, lane, 'pending', $6, due FROM new ORDER BY place",
            [
                id_,
                origin,
                [match.seq for match in one.matches],
                [match.lane for match in one.matches],
                [match.due for match in one.matches],
                now,
            ],
        )
    if origin == "log":
        passed_over.add(conn, id_, one.not_matching)


def _advance(conn: Connection, id_: int, one: Dispatched) -> None:
    """Move the cursor that was read from, unless it has moved meanwhile."""
    feed = one.feed
    if feed.replay is not None:
        moved = conn.changed(
            "UPDATE replays SET cursor = $1 WHERE id = $2 AND cursor = $3", [one.upto, feed.replay, feed.cursor]
        )
        if one.done:
            conn.run("DELETE FROM replays WHERE id = $1", [feed.replay])
    else:
        moved = conn.changed(
            "UPDATE subscriptions SET cursor = $1, filter_errors = filter_errors + $2, "
            "filter_error = coalesce($3, filter_error) WHERE id = $4 AND cursor = $5",
            [one.upto, one.errors, one.error, id_, feed.cursor],
        )
    if moved != 1:
        raise Conflict(f"subscription {feed.subscription}: the cursor has moved from {feed.cursor} meanwhile")
