"""Rows of subscriptions: registering, pausing, resuming and disabling them, and their cursors.

Every step that writes lanes or deliveries of a subscription locks its row first, so no two steps do so at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import structs

from state.deliveries import LONGEST_WORD, Feed, Registration, SinkHealth
from state.errors import StateError
from state.postgres.connection import Connection, Database
from state.rows import room

# A lane is free unless the current owner of the subscription has claimed it, under the epoch of the latest lease.
FREE: Final = (
    "lanes.epoch < coalesce((SELECT l.epoch FROM leases l JOIN subscriptions s ON l.name = 'subscription/' || s.name "
    "WHERE s.id = lanes.subscription), 1)"
)
PAUSED: Final = "on command"  # the reason of a paused subscription, and of a removed one that was paused
CONFIGURATION: Final = "enabled = false"  # the reason of a subscription that the configuration switches off
LANE: Final = "e.source || ' ' || e.subject"  # as the dispatcher writes it, and "replay " before it


def register(conn: Connection, registrations: Sequence[Registration]) -> None:
    """Register the subscriptions within the caller's transaction; those not named are kept as removed.

    A few statements for all of them: there may be thousands.
    """
    known = {
        row[1]: row
        for row in conn.run("SELECT id, name, state, reason, digest FROM subscriptions ORDER BY id FOR NO KEY UPDATE")
    }
    names = [registration.name for registration in registrations]
    conn.run(
        "UPDATE subscriptions SET state = 'removed', reason = CASE state WHEN 'paused' THEN $2 ELSE '' END "
        "WHERE state != 'removed' AND name != ALL($1::text[])",
        [names, PAUSED],
    )
    _insert(conn, [one for one in registrations if one.name not in known])
    changed = []
    for one in registrations:
        if one.name in known:
            id_, _, state, reason, digest = known[one.name]
            if (wanted := _wanted(one, state, reason)) != (state, reason):
                changed.append((id_, *wanted))
            if digest != one.digest:
                _relane(conn, id_, digest=one.digest)
    if changed:
        conn.run(
            "UPDATE subscriptions s SET state = n.state, reason = n.reason "
            "FROM unnest($1::bigint[], $2::text[], $3::text[]) AS n (id, state, reason) WHERE s.id = n.id",
            [list(column) for column in zip(*changed, strict=True)],
        )


def _insert(conn: Connection, new: Sequence[Registration]) -> None:
    starts = {one.start: first_cursor(conn, one.start) for one in new}
    rows = [
        (
            one.name,
            "active" if one.enabled else "disabled",
            "" if one.enabled else CONFIGURATION,
            starts[one.start],
            one.digest,
        )
        for one in new
    ]
    if rows:
        conn.run(
            "INSERT INTO subscriptions (name, state, reason, cursor, purged_upto, digest) "
            "SELECT name, state, reason, cursor, cursor, digest FROM unnest($1::text[], $2::text[], $3::text[], "
            "$4::bigint[], $5::boolean[]) WITH ORDINALITY AS n (name, state, reason, cursor, digest, place) "
            "ORDER BY place ON CONFLICT (name) DO NOTHING",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _wanted(registration: Registration, state: str, reason: str) -> tuple[str, str]:
    """Its new state and reason. A pause and a receiver's refusal of all events stay."""
    if not registration.enabled:
        return "disabled", CONFIGURATION
    if state == "removed" and reason == PAUSED:
        return "paused", reason
    if state == "removed" or reason == CONFIGURATION:
        return "active", ""
    return state, reason


def first_cursor(conn: Connection, start: str | float) -> int:
    """The number after which a new subscription reads."""
    last = int(conn.value("SELECT last FROM log"))
    if start == "now":
        return last
    first = int(conn.value("SELECT coalesce(min(seq), $1::bigint) FROM events", [last + 1]))
    if start == "beginning":
        return first - 1
    if isinstance(start, int):
        return min(max(start, first) - 1, last)
    found = conn.value("SELECT min(seq) FROM events WHERE time >= $1::float8", [start])
    return last if found is None else int(found) - 1


def _relane(conn: Connection, id_: int, *, digest: bool) -> None:
    """Queue pending deliveries again, in one lane or one for each object; deliveries outside the order stay there."""
    conn.run("UPDATE subscriptions SET digest = $1 WHERE id = $2", [digest, id_])
    # If the receiver asked for a wait for any of them, it counts for all.
    not_before = conn.value("SELECT coalesce(max(not_before), 0) FROM lanes WHERE subscription = $1", [id_])
    conn.run("DELETE FROM lanes WHERE subscription = $1", [id_])
    lane = "''" if digest else f"(SELECT {LANE} FROM events e WHERE e.seq = deliveries.seq)"
    conn.run(
        f"UPDATE deliveries SET digest = NULL, due = least(queued_at, due), lane = CASE WHEN lane LIKE '!%' THEN lane "
        f"WHEN origin = 'replay' THEN 'replay ' || {lane} ELSE {lane} END "
        "WHERE subscription = $1 AND state = 'pending'",
        [id_],
    )
    conn.run(
        "INSERT INTO lanes (subscription, lane, due, first_seq, not_before) "
        "SELECT subscription, lane, greatest(min(due), $1::float8), min(seq), $1::float8 FROM deliveries "
        "WHERE subscription = $2 AND state = 'pending' GROUP BY subscription, lane",
        [not_before, id_],
    )


def pause(conn: Connection, name: str) -> None:
    """Stop delivering to it until it is resumed."""
    conn.run("UPDATE subscriptions SET state = 'paused', reason = $1 WHERE id = $2", [PAUSED, id_of(conn, name)])


def resume(conn: Connection, name: str) -> None:
    """Deliver at once: make it active, close the breaker, and make waiting deliveries due now.

    A digest that was not attempted yet keeps its time.
    """
    id_ = id_of(conn, name)
    conn.run("UPDATE subscriptions SET state = 'active', reason = '' WHERE id = $1", [id_])
    write_health(conn, id_, SinkHealth())
    attempted = (
        "EXISTS (SELECT 1 FROM deliveries d WHERE d.subscription = lanes.subscription AND d.lane = lanes.lane "
        "AND d.state = 'pending' AND d.attempts > 0)"
    )
    # 0 means due at once, without reading a clock.
    conn.run(
        "UPDATE lanes SET not_before = 0, due = CASE WHEN (SELECT digest FROM subscriptions WHERE id = $1) "
        f"AND NOT {attempted} THEN due ELSE 0 END WHERE subscription = $1 AND {FREE}",
        [id_],
    )


def probe_at_once(conn: Connection, id_: int, now: float) -> None:
    """Let an attempt through now if the breaker is open."""
    conn.run("UPDATE subscriptions SET open_until = $1::float8 WHERE id = $2 AND open_until > $1::float8", [now, id_])


def bound_waits(conn: Connection, registrations: Sequence[Registration], now: float) -> None:
    """Make deliveries due at once if their time is later than is possible: the clock was wrong when it was written."""
    latest = now + LONGEST_WORD
    bounds = {one.name: now + one.longest_wait for one in registrations}
    rows = conn.run("SELECT id, name FROM subscriptions WHERE name = ANY($1::text[])", [list(bounds)]).fetchall()
    ids = [id_ for id_, _ in rows]
    conn.run(
        "UPDATE lanes SET not_before = 0 WHERE subscription = ANY($1::bigint[]) AND not_before > $2::float8",
        [ids, latest],
    )
    conn.run(
        "UPDATE lanes SET due = greatest(not_before, $1::float8) "
        "FROM unnest($2::bigint[], $3::float8[]) AS n (id, bound) WHERE subscription = n.id AND due > n.bound",
        [now, ids, [bounds[name] for _, name in rows]],
    )
    conn.run(
        "UPDATE subscriptions SET open_until = $1::float8 WHERE id = ANY($2::bigint[]) AND open_until > $3::float8",
        [now, ids, latest],
    )


def disable(conn: Connection, id_: int, reason: str) -> None:
    """Stop delivering to it because of `reason`; its events are kept."""
    conn.run("UPDATE subscriptions SET state = 'disabled', reason = $1 WHERE id = $2", [reason, id_])


def write_health(conn: Connection, id_: int, health: SinkHealth) -> None:
    """Store the health of its sink."""
    conn.run(
        "UPDATE subscriptions SET failures = $1, open_until = $2, probe_wait = $3, last_error = $4, "
        "dead_reported = $5 WHERE id = $6",
        [health.failures, health.open_until, health.wait, health.last_error, health.dead_reported, id_],
    )


def update_health(conn: Connection, id_: int, health: SinkHealth, kept_until: float | None) -> None:
    """Store the health of its sink; if a command has closed the breaker meanwhile, that stays."""
    open_until = conn.value("SELECT open_until FROM subscriptions WHERE id = $1", [id_])
    changed = open_until != kept_until
    write_health(conn, id_, structs.replace(health, open_until=open_until) if changed and health.failures else health)


def id_of(conn: Connection, name: str) -> int:
    """The id of its row, which is locked until the commit. Raises StateError if there is no such subscription."""
    id_ = conn.value("SELECT id FROM subscriptions WHERE name = $1 FOR NO KEY UPDATE", [name])
    if id_ is None:
        known = ", ".join(one for (one,) in conn.run("SELECT name FROM subscriptions ORDER BY name"))
        raise StateError(f"no subscription is named {name!r}", hint=f"known: {known or 'none'}")
    return int(id_)


ROOM: Final = room("$1::bigint", "$2::float8")
FEEDS: Final = f"""
SELECT * FROM (
    SELECT name, cursor, {ROOM} AS room, NULL::bigint, NULL::bigint
    FROM subscriptions s
    WHERE state = 'active' AND name = ANY($3::text[]) AND cursor < (SELECT max(seq) FROM events)
    UNION ALL
    SELECT s.name, r.cursor, {ROOM}, r.id, r.until
    FROM replays r JOIN subscriptions s ON s.id = r.subscription
    WHERE s.state = 'active' AND s.name = ANY($3::text[])
) f WHERE room > 0
"""


def feeds(db: Database, names: Iterable[str], limit: int, now: float) -> list[Feed]:
    """The positions from which active ones of these subscriptions can read on, if they have room."""
    rows = db.run(FEEDS, [limit, now, list(names)])
    return [
        Feed(subscription=name, cursor=cursor, room=left, replay=replay, until=until)
        for name, cursor, left, replay, until in rows
    ]
