"""Deliveries and the lanes in which they wait: the steps that dispatch, claim and settle.

A lane is one row per subscription and object. It says when the object's oldest pending delivery is due and who leases
it; claiming looks at lanes only, so what queues behind a retry costs nothing. A lane exists as long as something is
pending in it. What is redelivered or replayed has lanes of its own and so stands outside the order.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from sqlite_utils import Database, Migrations

from state.deliveries import PENDING_LIMIT, Claim, Feed, Health, Job, Reading, Registration, Settlement, Turn, Turned
from state.errors import Conflict, StateError
from state.records import Event, NewEvent
from state.sqlite import passed_over, retention, subscriptions
from state.sqlite.database import State, transaction
from state.sqlite.log import COLUMNS, append, event_of

delivery_migrations = Migrations("deliveries")

EVENT_COLUMNS = ", ".join(f"e.{column}" for column in COLUMNS.split(", "))


@delivery_migrations()
def create_deliveries(db: Database) -> None:
    db.executescript(
        """
        CREATE TABLE subscriptions (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL,                    -- active, paused, disabled, removed
            reason TEXT NOT NULL DEFAULT '',
            started INTEGER NOT NULL,               -- its books begin behind this number
            cursor INTEGER NOT NULL,                -- read up to this number
            digest INTEGER NOT NULL DEFAULT 0,      -- everything waits in one lane
            pending INTEGER NOT NULL DEFAULT 0,
            seen INTEGER NOT NULL DEFAULT 0,        -- events read since it started
            purged_upto INTEGER NOT NULL DEFAULT 0, -- up to here the books are these sums, behind it the rows
            purged_delivered INTEGER NOT NULL DEFAULT 0,
            purged_dead INTEGER NOT NULL DEFAULT 0,
            purged_not_matching INTEGER NOT NULL DEFAULT 0,
            dropped INTEGER NOT NULL DEFAULT 0,
            filter_errors INTEGER NOT NULL DEFAULT 0,
            filter_error TEXT,
            failures INTEGER NOT NULL DEFAULT 0,
            open_until REAL,
            probe_wait REAL NOT NULL DEFAULT 0,
            last_error TEXT,
            notices INTEGER NOT NULL DEFAULT 0      -- the version of its latest operational event
        );
        CREATE TABLE replays (
            id INTEGER PRIMARY KEY,
            subscription INTEGER NOT NULL,
            cursor INTEGER NOT NULL,
            until INTEGER NOT NULL
        );
        CREATE TABLE deliveries (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            subscription INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            origin TEXT NOT NULL,                   -- log, replay, redelivery, ping
            lane TEXT NOT NULL,
            state TEXT NOT NULL,                    -- pending, delivered, dead
            attempts INTEGER NOT NULL DEFAULT 0,
            tries INTEGER NOT NULL DEFAULT 0,       -- of the retry schedule
            refusals INTEGER NOT NULL DEFAULT 0,
            digest INTEGER,                         -- the first delivery of the digest it left with
            queued_at REAL NOT NULL,
            finished_at REAL,
            status TEXT                             -- of the latest attempt
        );
        CREATE UNIQUE INDEX deliveries_log ON deliveries (subscription, seq) WHERE origin = 'log';
        CREATE INDEX deliveries_seq ON deliveries (seq);
        CREATE INDEX deliveries_pending ON deliveries (subscription, lane, id) WHERE state = 'pending';
        CREATE INDEX deliveries_dead ON deliveries (subscription, id) WHERE state = 'dead';
        CREATE TABLE lanes (
            subscription INTEGER NOT NULL,
            lane TEXT NOT NULL,
            due REAL NOT NULL,
            floor REAL NOT NULL DEFAULT 0,          -- the receiver's own word: not before
            lease_until REAL,
            PRIMARY KEY (subscription, lane)
        ) WITHOUT ROWID;
        CREATE INDEX lanes_due ON lanes (subscription, due) WHERE lease_until IS NULL;
        CREATE TABLE attempts (
            delivery INTEGER NOT NULL,
            number INTEGER NOT NULL,
            at REAL NOT NULL,
            latency REAL NOT NULL,
            status TEXT NOT NULL,
            text TEXT NOT NULL,
            reference TEXT,
            PRIMARY KEY (delivery, number)
        ) WITHOUT ROWID;
        CREATE TABLE last_references (
            subscription INTEGER NOT NULL,
            lane TEXT NOT NULL,
            reference TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (subscription, lane)
        ) WITHOUT ROWID;
        """
    )
    passed_over.create(db)


@contextlib.contextmanager
def step(db: State) -> Iterator[sqlite3.Connection]:
    """One transaction; a disk that is full or a lock that is held is a StateError."""
    try:
        with transaction(db) as conn:
            yield conn
    except sqlite3.OperationalError as error:
        raise StateError(
            f"the state cannot be written: {error}", hint="check free space and who else uses it"
        ) from error


class Deliveries:
    """The steps of the way from the log to the sinks, each in one transaction."""

    def __init__(self, db: State, *, pending_limit: int = PENDING_LIMIT) -> None:
        self._db = db
        self._limit = pending_limit

    def register(self, registrations: Sequence[Registration]) -> None:
        """Make the subscriptions known. New ones begin at their `start`; those not named are kept as removed."""
        with step(self._db) as conn:
            subscriptions.register(conn, registrations)

    def free_leases(self) -> None:
        """Give back what a previous run held."""
        with step(self._db) as conn:
            conn.execute("UPDATE lanes SET lease_until = NULL WHERE lease_until IS NOT NULL")

    def pause(self, name: str) -> None:
        """Give a subscription nothing more until it is resumed. Raises StateError where there is none of that name."""
        with step(self._db) as conn:
            subscriptions.pause(conn, name)

    def resume(self, name: str) -> None:
        """Go on with a paused or disabled subscription, at once. Raises StateError where there is none of that name."""
        with step(self._db) as conn:
            subscriptions.resume(conn, name)

    def feeds(self, names: Iterable[str]) -> list[Feed]:
        """Where the active ones of these subscriptions have room and something to read."""
        return subscriptions.feeds(self._db, names, self._limit)

    def read(self, after: int, limit: int) -> list[Event]:
        """The events behind number `after`, in order."""
        rows = self._db.execute(f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", [after, limit])
        return [event_of(row) for row in rows]

    def dispatch(self, readings: Sequence[Reading], *, now: float) -> None:
        """Queue what matched and move the cursors. Raises Conflict if a cursor has moved meanwhile."""
        with step(self._db) as conn:
            for reading in readings:
                _dispatch(conn, reading, now)

    def turn(self, turns: Sequence[Turn]) -> list[Turned]:
        """Settle and claim for several subscriptions at once, in one commit."""
        with step(self._db) as conn:
            return [_turn(conn, turn, self._limit) for turn in turns]

    def redeliver(self, ids: Iterable[int], *, now: float) -> int:
        """Queue deliveries again and return how many: dead letters as they are, delivered ones as a copy.

        One that is pending becomes due at once. Ids that do not exist are passed over.
        """
        with step(self._db) as conn:
            return sum(_redeliver(conn, id_, now) for id_ in ids)

    def replay(self, name: str, *, after: int) -> int:
        """Deliver again what the subscription has read behind number `after`; return the last number of that.

        Raises StateError where there is no subscription of that name.
        """
        with step(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            until = int(conn.execute("SELECT cursor FROM subscriptions WHERE id = ?", [id_]).fetchone()[0])
            if until > after:
                values = [id_, max(after, 0), until]
                conn.execute("INSERT INTO replays (subscription, cursor, until) VALUES (?, ?, ?)", values)
            return until

    def ping(self, name: str, event: Callable[[int], NewEvent], *, now: float) -> int:
        """Record a test event, queue it for this subscription alone, and return the delivery's id.

        `event` is called with its version. Raises StateError where there is no subscription of that name.
        """
        with step(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            [seq] = append(conn, [event(subscriptions.next_version(conn, id_))])
            return _queue_apart(conn, id_, seq, origin="ping", now=now)

    def purge(self, before: float, *, notice: retention.Notice, limit: int = 2000) -> int:
        """Forget at most `limit` of the oldest events from before that time; 0 when there are none left.

        What a subscription was not given by then is dropped, counted in its books, and the subscription disabled;
        `notice(name, version, dropped)` tells it.
        """
        with step(self._db) as conn:
            return retention.purge(conn, before, notice=notice, limit=limit)


def _dispatch(conn: sqlite3.Connection, reading: Reading, now: float) -> None:
    feed = reading.feed
    id_ = subscriptions.id_of(conn, feed.subscription)
    origin = "log" if feed.replay is None else "replay"
    _advance(conn, id_, reading)
    conn.executemany(
        "INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at) VALUES (?, ?, ?, ?, 'pending', ?)",
        [(id_, match.seq, origin, match.lane, now) for match in reading.matches],
    )
    conn.executemany(
        "INSERT INTO lanes (subscription, lane, due) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(id_, match.lane, match.due) for match in reading.matches],
    )
    conn.execute("UPDATE subscriptions SET pending = pending + ? WHERE id = ?", [len(reading.matches), id_])
    if origin == "log":
        passed_over.add(conn, id_, reading.not_matching)


def _advance(conn: sqlite3.Connection, id_: int, reading: Reading) -> None:
    """Move the cursor that was read from, if it still is where it was."""
    feed = reading.feed
    if feed.replay is not None:
        moved = conn.execute(
            "UPDATE replays SET cursor = ? WHERE id = ? AND cursor = ?", [reading.upto, feed.replay, feed.cursor]
        )
        if reading.done:
            conn.execute("DELETE FROM replays WHERE id = ?", [feed.replay])
    else:
        seen = len(reading.matches) + len(reading.not_matching)
        moved = conn.execute(
            "UPDATE subscriptions SET cursor = ?, seen = seen + ?, filter_errors = filter_errors + ?, "
            "filter_error = coalesce(?, filter_error) WHERE id = ? AND cursor = ?",
            [reading.upto, seen, reading.errors, reading.error, id_, feed.cursor],
        )
    if moved.rowcount != 1:
        raise Conflict(f"subscription {feed.subscription}: the cursor has moved from {feed.cursor} meanwhile")


def _turn(conn: sqlite3.Connection, turn: Turn, limit: int) -> Turned:
    id_ = subscriptions.id_of(conn, turn.subscription)
    ended = sum(_settle(conn, id_, settlement) for settlement in turn.settled)
    if ended:
        conn.execute("UPDATE subscriptions SET pending = pending - ? WHERE id = ?", [ended, id_])
    for release in turn.released:
        _release(conn, id_, release.lane, release.due, release.floor, turn.due_at)
    if turn.health is not None:
        subscriptions.write_health(conn, id_, turn.health)
    if turn.disabled is not None:
        subscriptions.disable(conn, id_, turn.disabled)
    if turn.promote:
        conn.execute(
            "UPDATE lanes SET due = max(floor, ?1) WHERE subscription = ?2 AND due > ?1 AND lease_until IS NULL",
            [turn.now, id_],
        )
    recorded = append(conn, [notice(subscriptions.next_version(conn, id_)) for notice in turn.notices])
    state, wants_more, *health = conn.execute(
        "SELECT state, pending < ? AND (cursor < (SELECT max(seq) FROM events) OR EXISTS (SELECT 1 FROM replays r "
        "WHERE r.subscription = s.id)), failures, open_until, probe_wait, last_error FROM subscriptions s WHERE id = ?",
        [limit - limit // 20, id_],
    ).fetchone()
    claims = _claim(conn, id_, turn) if turn.claim and state == "active" else ()
    instant = "floor" if turn.early else "due"
    (due,) = conn.execute(
        f"SELECT min({instant}) FROM lanes WHERE subscription = ? AND lease_until IS NULL", [id_]
    ).fetchone()
    return Turned(
        state=state,
        claims=claims,
        next_due=due,
        recorded=len(recorded),
        wants_more=bool(wants_more),
        health=Health(failures=health[0], open_until=health[1], wait=health[2], last_error=health[3]),
    )


def _settle(conn: sqlite3.Connection, id_: int, settlement: Settlement) -> int:
    """Write what an attempt came to, and return how many deliveries have ended by it (those not purged meanwhile)."""
    attempt = settlement.attempt
    ended = None if settlement.state == "pending" else attempt.at + attempt.latency
    known = conn.executemany(
        "UPDATE deliveries SET state = ?, attempts = ?, tries = ?, refusals = ?, finished_at = ?, status = ? "
        "WHERE id = ? AND state = 'pending'",
        [
            (settlement.state, attempt.number, settlement.tries, settlement.refusals, ended, attempt.status, delivery)
            for delivery in settlement.ids
        ],
    ).rowcount
    if not known:
        return 0
    conn.execute(
        "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            settlement.ids[0],
            attempt.number,
            attempt.at,
            attempt.latency,
            attempt.status,
            attempt.text,
            attempt.reference,
        ],
    )
    if attempt.reference is not None:
        conn.execute(
            "INSERT INTO last_references VALUES (?, ?, ?, ?) ON CONFLICT (subscription, lane) "
            "DO UPDATE SET reference = excluded.reference, at = excluded.at",
            [id_, settlement.lane, attempt.reference, attempt.at],
        )
    return 0 if settlement.state == "pending" else known


def _release(
    conn: sqlite3.Connection,
    id_: int,
    lane: str,
    due: float | None,
    floor: float,
    due_at: Callable[[float], float] | None,
) -> None:
    """Give a lane back: due again with its oldest pending delivery, or gone where nothing is pending."""
    oldest = conn.execute(
        "SELECT queued_at FROM deliveries WHERE subscription = ? AND lane = ? AND state = 'pending' "
        "ORDER BY id LIMIT 1",
        [id_, lane],
    ).fetchone()
    if oldest is None:
        conn.execute("DELETE FROM lanes WHERE subscription = ? AND lane = ?", [id_, lane])
        return
    if due is None:
        due = max(floor, oldest[0] if due_at is None else due_at(oldest[0]))
    conn.execute(
        "UPDATE lanes SET due = ?, floor = ?, lease_until = NULL WHERE subscription = ? AND lane = ?",
        [due, floor, id_, lane],
    )


def _claim(conn: sqlite3.Connection, id_: int, turn: Turn) -> tuple[Claim, ...]:
    condition = "floor <= ?" if turn.early else "due <= ?"
    lanes = conn.execute(
        f"SELECT lane, due, floor FROM lanes WHERE subscription = ? AND lease_until IS NULL AND {condition} "
        "ORDER BY due LIMIT ?",
        [id_, turn.now, turn.claim],
    ).fetchall()
    conn.executemany(
        "UPDATE lanes SET lease_until = ? WHERE subscription = ? AND lane = ?",
        [(turn.now + turn.lease, id_, lane) for lane, _, _ in lanes],
    )
    run = max(1, min(turn.run, turn.claim // max(1, len(lanes))))
    return tuple(
        Claim(
            lane=lane,
            due=due,
            floor=floor,
            jobs=_digest(conn, id_, lane, turn.together) if turn.together else _oldest(conn, id_, lane, run),
            last_reference=_last_reference(conn, id_, lane),
        )
        for lane, due, floor in lanes
    )


JOBS = (
    f"SELECT d.id, d.attempts, d.tries, d.refusals, d.digest, {EVENT_COLUMNS} FROM deliveries d "
    "JOIN events e ON e.seq = d.seq WHERE d.subscription = ? AND d.lane = ? AND d.state = 'pending'"
)


def _oldest(conn: sqlite3.Connection, id_: int, lane: str, run: int) -> tuple[Job, ...]:
    rows = conn.execute(f"{JOBS} ORDER BY d.id LIMIT ?", [id_, lane, run]).fetchall()
    return tuple(_job(row) for row in rows)


def _digest(conn: sqlite3.Connection, id_: int, lane: str, size: int) -> tuple[Job, ...]:
    """All that is pending, or, of a digest that was attempted before, just what it consisted of."""
    rows = conn.execute(f"{JOBS} ORDER BY d.id LIMIT ?", [id_, lane, size]).fetchall()
    if rows and rows[0][4] is not None:
        rows = [row for row in rows if row[4] == rows[0][4]]
    elif rows:
        conn.executemany("UPDATE deliveries SET digest = ? WHERE id = ?", [(rows[0][0], row[0]) for row in rows])
    return tuple(_job(row) for row in rows)


def _job(row: Sequence[object]) -> Job:
    id_, attempts, tries, refusals, _, *event = row
    return Job(id=id_, event=event_of(event), attempts=attempts, tries=tries, refusals=refusals)  # type: ignore[arg-type]


def _last_reference(conn: sqlite3.Connection, id_: int, lane: str) -> str | None:
    row = conn.execute(
        "SELECT reference FROM last_references WHERE subscription = ? AND lane = ?", [id_, lane]
    ).fetchone()
    return None if row is None else str(row[0])


def _redeliver(conn: sqlite3.Connection, delivery: int, now: float) -> bool:
    row = conn.execute("SELECT subscription, seq, state, lane FROM deliveries WHERE id = ?", [delivery]).fetchone()
    if row is None:
        return False
    id_, seq, state, lane = row
    if state == "pending":
        conn.execute("UPDATE lanes SET due = min(due, ?) WHERE subscription = ? AND lane = ?", [now, id_, lane])
    elif state == "delivered":
        _queue_apart(conn, id_, seq, origin="redelivery", now=now)
    else:
        conn.execute(
            "UPDATE deliveries SET state = 'pending', lane = ?, tries = 0, refusals = 0, digest = NULL, "
            "finished_at = NULL, queued_at = ? WHERE id = ?",
            [f"!{delivery}", now, delivery],
        )
        _open_lane(conn, id_, f"!{delivery}", now)
    return True


def _queue_apart(conn: sqlite3.Connection, id_: int, seq: int, *, origin: str, now: float) -> int:
    """Queue one event in a lane of its own, outside the order."""
    cursor = conn.execute(
        "INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at) VALUES (?, ?, ?, '', 'pending', ?)",
        [id_, seq, origin, now],
    )
    delivery = int(cursor.lastrowid or 0)
    conn.execute("UPDATE deliveries SET lane = ? WHERE id = ?", [f"!{delivery}", delivery])
    _open_lane(conn, id_, f"!{delivery}", now)
    return delivery


def _open_lane(conn: sqlite3.Connection, id_: int, lane: str, now: float) -> None:
    conn.execute(
        "INSERT INTO lanes (subscription, lane, due) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", [id_, lane, now]
    )
    conn.execute("UPDATE subscriptions SET pending = pending + 1 WHERE id = ?", [id_])
