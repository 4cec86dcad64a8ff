"""Rows of subscriptions: registering, pausing, resuming and disabling them, and their cursors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import structs

from state.deliveries import LONGEST_WORD, Feed, Registration, SinkHealth
from state.errors import StateError
from state.rows import room
from state.sqlite.connection import State

ROOM: Final = room("?1", "?2")  # most pending deliveries, now
# A lane is free unless the current owner of the subscription has claimed it, under the epoch of the latest lease.
FREE = (
    "lanes.epoch < coalesce((SELECT l.epoch FROM leases l JOIN subscriptions s ON l.name = 'subscription/' || s.name "
    "WHERE s.id = lanes.subscription), 1)"
)
PAUSED = "on command"  # the reason of a paused subscription, and of a removed one that was paused
CONFIGURATION = "enabled = false"  # the reason of a subscription that the configuration switches off


def register(conn: sqlite3.Connection, registrations: Sequence[Registration]) -> None:
    """Register the subscriptions within the caller's transaction; those not named are kept as removed."""
    names = {registration.name for registration in registrations}
    for (name,) in conn.execute("SELECT name FROM subscriptions WHERE state != 'removed'").fetchall():
        if name not in names:
            conn.execute(
                "UPDATE subscriptions SET state = 'removed', reason = CASE state WHEN 'paused' THEN ? ELSE '' END "
                "WHERE name = ?",
                [PAUSED, name],
            )
    for registration in registrations:
        row = conn.execute(
            "SELECT id, state, reason, digest FROM subscriptions WHERE name = ?", [registration.name]
        ).fetchone()
        if row is None:
            _insert(conn, registration)
        else:
            _change(conn, registration, *row)


def _insert(conn: sqlite3.Connection, registration: Registration) -> None:
    begin = first_cursor(conn, registration.start)
    state, reason = ("active", "") if registration.enabled else ("disabled", CONFIGURATION)
    conn.execute(
        "INSERT INTO subscriptions (name, state, reason, cursor, purged_upto, digest) VALUES (?, ?, ?, ?, ?, ?)",
        [registration.name, state, reason, begin, begin, registration.digest],
    )


def _change(
    conn: sqlite3.Connection, registration: Registration, id_: int, state: str, reason: str, digest: int
) -> None:
    """Store new settings; the cursor, a pause, and a receiver's refusal of all events stay."""
    if not registration.enabled:
        state, reason = "disabled", CONFIGURATION
    elif state == "removed" and reason == PAUSED:
        state = "paused"
    elif state == "removed" or reason == CONFIGURATION:
        state, reason = "active", ""
    conn.execute("UPDATE subscriptions SET state = ?, reason = ? WHERE id = ?", [state, reason, id_])
    if bool(digest) != registration.digest:
        _relane(conn, id_, digest=registration.digest)


def first_cursor(conn: sqlite3.Connection, start: str | float) -> int:
    """The number after which a new subscription reads."""
    last = int(conn.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'").fetchone()[0])
    if start == "now":
        return last
    first = int(conn.execute("SELECT coalesce(min(seq), ?) FROM events", [last + 1]).fetchone()[0])
    if start == "beginning":
        return first - 1
    if isinstance(start, int):
        return min(max(start, first) - 1, last)
    row = conn.execute("SELECT min(seq) FROM events WHERE time >= ?", [start]).fetchone()
    return last if row[0] is None else int(row[0]) - 1


def _relane(conn: sqlite3.Connection, id_: int, *, digest: bool) -> None:
    """Queue pending deliveries again, in one lane or one for each object; deliveries outside the order stay there."""
    conn.execute("UPDATE subscriptions SET digest = ? WHERE id = ?", [digest, id_])
    # If the receiver asked for a wait for any of them, it counts for all.
    (not_before,) = conn.execute(
        "SELECT coalesce(max(not_before), 0) FROM lanes WHERE subscription = ?", [id_]
    ).fetchone()
    conn.execute("DELETE FROM lanes WHERE subscription = ?", [id_])
    lane = "''" if digest else f"(SELECT {LANE} FROM events e WHERE e.seq = deliveries.seq)"
    conn.execute(
        f"UPDATE deliveries SET digest = NULL, due = min(queued_at, due), lane = CASE WHEN lane LIKE '!%' THEN lane "
        f"WHEN origin = 'replay' THEN 'replay ' || {lane} ELSE {lane} END WHERE subscription = ? AND state = 'pending'",
        [id_],
    )
    conn.execute(
        "INSERT INTO lanes (subscription, lane, due, first_seq, not_before) "
        "SELECT subscription, lane, max(min(due), ?1), min(seq), ?1 FROM deliveries "
        "WHERE subscription = ?2 AND state = 'pending' GROUP BY lane",
        [not_before, id_],
    )


LANE = "e.source || ' ' || e.subject"  # as `lane_of` of the dispatcher writes it, and "replay " before it


def pause(conn: sqlite3.Connection, name: str) -> None:
    """Stop delivering to it until it is resumed."""
    conn.execute("UPDATE subscriptions SET state = 'paused', reason = ? WHERE id = ?", [PAUSED, id_of(conn, name)])


def resume(conn: sqlite3.Connection, name: str) -> None:
    """Deliver at once: make it active, close the breaker, and make waiting deliveries due now.

    A digest that was not attempted yet keeps its time.
    """
    id_ = id_of(conn, name)
    conn.execute("UPDATE subscriptions SET state = 'active', reason = '' WHERE id = ?", [id_])
    write_health(conn, id_, SinkHealth())
    attempted = (
        "EXISTS (SELECT 1 FROM deliveries d WHERE d.subscription = lanes.subscription AND d.lane = lanes.lane "
        "AND d.state = 'pending' AND d.attempts > 0)"
    )
    # 0 means due at once, without reading a clock.
    conn.execute(
        "UPDATE lanes SET not_before = 0, due = CASE WHEN (SELECT digest FROM subscriptions WHERE id = ?1) "
        f"AND NOT {attempted} THEN due ELSE 0 END WHERE subscription = ?1 AND {FREE}",
        [id_],
    )


def probe_at_once(conn: sqlite3.Connection, id_: int, now: float) -> None:
    """Let an attempt through now if the breaker is open."""
    conn.execute("UPDATE subscriptions SET open_until = ? WHERE id = ? AND open_until > ?", [now, id_, now])


def bound_waits(conn: sqlite3.Connection, registration: Registration, now: float) -> None:
    """Make deliveries due at once if their time is later than is possible: the clock was wrong when it was written."""
    id_, latest = id_of(conn, registration.name), now + LONGEST_WORD
    conn.execute("UPDATE lanes SET not_before = 0 WHERE subscription = ? AND not_before > ?", [id_, latest])
    conn.execute(
        "UPDATE lanes SET due = max(not_before, ?) WHERE subscription = ? AND due > ?",
        [now, id_, now + registration.longest_wait],
    )
    conn.execute("UPDATE subscriptions SET open_until = ? WHERE id = ? AND open_until > ?", [now, id_, latest])


def disable(conn: sqlite3.Connection, id_: int, reason: str) -> None:
    """Stop delivering to it because of `reason`; its events are kept."""
    conn.execute("UPDATE subscriptions SET state = 'disabled', reason = ? WHERE id = ?", [reason, id_])


def write_health(conn: sqlite3.Connection, id_: int, health: SinkHealth) -> None:
    """Store the health of its sink."""
    conn.execute(
        "UPDATE subscriptions SET failures = ?, open_until = ?, probe_wait = ?, last_error = ?, dead_reported = ? "
        "WHERE id = ?",
        [health.failures, health.open_until, health.wait, health.last_error, health.dead_reported, id_],
    )


def update_health(conn: sqlite3.Connection, id_: int, health: SinkHealth, kept_until: float | None) -> None:
    """Store the health of its sink; if a command has closed the breaker meanwhile, that stays."""
    (open_until,) = conn.execute("SELECT open_until FROM subscriptions WHERE id = ?", [id_]).fetchone()
    changed = open_until != kept_until
    write_health(conn, id_, structs.replace(health, open_until=open_until) if changed and health.failures else health)


def id_of(conn: sqlite3.Connection, name: str) -> int:
    """The id of its row. Raises StateError if there is no subscription of that name."""
    row = conn.execute("SELECT id FROM subscriptions WHERE name = ?", [name]).fetchone()
    if row is None:
        known = ", ".join(row[0] for row in conn.execute("SELECT name FROM subscriptions ORDER BY name"))
        raise StateError(f"no subscription is named {name!r}", hint=f"known: {known or 'none'}")
    return int(row[0])


def feeds(db: State, names: Iterable[str], limit: int, now: float) -> list[Feed]:
    """The positions from which active ones of these subscriptions can read on, if they have room."""
    last = int(db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
    wanted = set(names)
    own = db.execute(
        f"SELECT name, cursor, {ROOM}, NULL, NULL FROM subscriptions s WHERE state = 'active' AND cursor < ?3",
        [limit, now, last],
    ).fetchall()
    replays = db.execute(
        f"SELECT s.name, r.cursor, {ROOM}, r.id, r.until FROM replays r "
        "JOIN subscriptions s ON s.id = r.subscription WHERE s.state = 'active'",
        [limit, now],
    ).fetchall()
    return [
        Feed(subscription=name, cursor=cursor, room=left, replay=replay, until=until)
        for name, cursor, left, replay, until in (*own, *replays)
        if name in wanted and left > 0
    ]
