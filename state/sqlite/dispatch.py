"""The steps of deliveries, from the log to the sinks, each in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import orjson

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
from state.records import Event
from state.rows import EVENT, event_of
from state.sqlite import not_matching as passed_over
from state.sqlite import retention, subscriptions
from state.sqlite.claims import settle
from state.sqlite.connection import State, transaction
from state.sqlite.leases import check
from state.sqlite.notices import tell
from state.sqlite.redelivery import queue_apart, redeliver


class Deliveries:
    """The steps of deliveries, from the log to the sinks, each in one transaction."""

    def __init__(self, db: State, *, pending_limit: int = PENDING_LIMIT) -> None:
        self._db = db
        self._limit = pending_limit

    def register(self, registrations: Sequence[Registration], *, now: float) -> None:
        """Register the subscriptions. New ones begin at their `start`; those not named are kept as removed.

        Deliveries due later than is possible, because the clock was wrong, become due at once.
        """
        with transaction(self._db) as conn:
            subscriptions.register(conn, registrations)
            for registration in registrations:
                subscriptions.bound_waits(conn, registration, now)

    def pause(self, name: str) -> None:
        """Stop delivering to a subscription until it is resumed. Raises StateError if it does not exist."""
        with transaction(self._db) as conn:
            subscriptions.pause(conn, name)

    def resume(self, name: str) -> None:
        """Deliver to a paused or disabled subscription at once. Raises StateError if it does not exist."""
        with transaction(self._db) as conn:
            subscriptions.resume(conn, name)

    def feeds(self, leases: Sequence[Lease], *, now: float) -> list[Feed]:
        """The positions from which active ones of these subscriptions can read on, if they have room."""
        return subscriptions.feeds(self._db, [lease.subject for lease in leases], self._limit, now)

    def read(self, after: int, limit: int) -> list[Event]:
        """The events after number `after`, in order."""
        rows = self._db.execute(f"SELECT {EVENT} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", [after, limit])
        return [event_of(row) for row in rows]

    def dispatch(self, lease: Lease, dispatched: Sequence[Dispatched], *, now: float) -> None:
        """Queue what matched and move the cursors. Raises Conflict if a cursor has moved meanwhile, and LeaseLost."""
        with transaction(self._db) as conn:
            check(conn, lease)
            for one in dispatched:
                _dispatch(conn, one, now)

    def settle(self, lease: Lease, batch: Settlement, claim: ClaimRequest | None = None) -> Settled:
        """Write the results of claims, and claim others. Raises LeaseLost."""
        with transaction(self._db) as conn:
            check(conn, lease)
            return settle(conn, lease, batch, claim, self._limit)

    def redeliver(self, ids: Iterable[int], *, now: float) -> int:
        """Queue deliveries again and return how many: dead letters themselves, delivered ones as copies.

        A pending delivery becomes due at once. Unknown ids are skipped.
        """
        with transaction(self._db) as conn:
            return sum(redeliver(conn, id_, now) for id_ in ids)

    def replay(self, name: str, *, after: int) -> int:
        """Deliver again what the subscription has read after number `after`; returns the last of these numbers.

        Raises StateError if the subscription does not exist.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            until = int(conn.execute("SELECT cursor FROM subscriptions WHERE id = ?", [id_]).fetchone()[0])
            if until > after:
                values = [id_, max(after, 0), until]
                conn.execute("INSERT INTO replays (subscription, cursor, until) VALUES (?, ?, ?)", values)
            return until

    def ping(self, name: str, notice: Notice, *, now: float) -> int:
        """Record a test event, queue it for this subscription only, and return the delivery's id.

        Raises StateError if the subscription does not exist.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            subscriptions.probe_at_once(conn, id_, now)
            [seq] = tell(conn, [notice])
            return queue_apart(conn, id_, seq, origin="ping", now=now)

    def prepare(self, before: float) -> None:
        """Does nothing: the rows of a file are deleted one by one."""

    def expiring(self, upto: int, *, before: float, limit: int = 2000) -> Expiring | None:  # noqa: ARG002 - see `Maintenance`
        """The oldest events (at most `limit`) up to number `upto`, and which subscriptions did not get them; None if
        there are none.
        """
        with transaction(self._db) as conn:
            return retention.expiring(conn, upto, limit)

    def purge(self, expiring: Expiring, *, before: float, notices: Sequence[Notice]) -> int:
        """Delete these events and return how many; `notices` report undelivered ones.

        Undelivered events are dropped, counted in the subscription's books, and the subscription is disabled. Raises
        Conflict if deliveries of them changed meanwhile.
        """
        with transaction(self._db) as conn:
            return retention.purge(conn, expiring, before=before, notices=notices)


def _dispatch(conn: sqlite3.Connection, one: Dispatched, now: float) -> None:
    feed = one.feed
    id_ = subscriptions.id_of(conn, feed.subscription)
    origin = "log" if feed.replay is None else "replay"
    _advance(conn, id_, one)
    matches = orjson.dumps([(match.seq, match.lane, match.due) for match in one.matches]).decode()
    conn.execute(  # one statement for all rows, as in `claims`
        "INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at, due) "
        "SELECT ?1, j.value->>0, ?2, j.value->>1, 'pending', ?3, j.value->>2 FROM json_each(?4) j ORDER BY j.key",
        [id_, origin, now, matches],
    )
    conn.execute(
        "INSERT INTO lanes (subscription, lane, due, first_seq) "
        "SELECT ?1, j.value->>1, j.value->>2, j.value->>0 FROM json_each(?2) j WHERE true ORDER BY j.key "
        "ON CONFLICT DO NOTHING",
        [id_, matches],
    )
    conn.execute("UPDATE subscriptions SET pending = pending + ? WHERE id = ?", [len(one.matches), id_])
    if origin == "log":
        passed_over.add(conn, id_, one.not_matching)


def _advance(conn: sqlite3.Connection, id_: int, one: Dispatched) -> None:
    """Move the cursor that was read from, unless it has moved meanwhile."""
    feed = one.feed
    if feed.replay is not None:
        moved = conn.execute(
            "UPDATE replays SET cursor = ? WHERE id = ? AND cursor = ?", [one.upto, feed.replay, feed.cursor]
        )
        if one.done:
            conn.execute("DELETE FROM replays WHERE id = ?", [feed.replay])
    else:
        moved = conn.execute(
            "UPDATE subscriptions SET cursor = ?, filter_errors = filter_errors + ?, "
            "filter_error = coalesce(?, filter_error) WHERE id = ? AND cursor = ?",
            [one.upto, one.errors, one.error, id_, feed.cursor],
        )
    if moved.rowcount != 1:
        raise Conflict(f"subscription {feed.subscription}: the cursor has moved from {feed.cursor} meanwhile")
