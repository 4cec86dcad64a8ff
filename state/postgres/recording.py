"""Statements of a recording, within the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from state.errors import Conflict
from state.leases import Lease
from state.members import Members, packed_as_map
from state.polls import EndpointState, PollRecord, Recorded, Recording, Sweep, UnitState, UnitTimes
from state.postgres.connection import Answer, Connection, Database
from state.postgres.events import append
from state.postgres.leases import ask, judge
from state.postgres.notices import counted
from state.rows import ENDPOINT, UNIT, endpoint_of, marked, unit_of

# Objects that are written: new or changed ones, and those shown unchanged by another unit ...
INSERT = """
INSERT INTO objects (endpoint, object, version, body, unit, seen_at, presence, seen_sweep)
SELECT $1::bigint, object, version, body, unit, seen_at, presence, $2::bigint FROM unnest($3::text[], $4::bigint[],
    $5::bytea[], $6::bigint[], $7::float8[], $8::smallint[]) AS new (object, version, body, unit, seen_at, presence)
ORDER BY object
"""
NEW = f"{INSERT} ON CONFLICT (endpoint, object) DO NOTHING"
UPSERT = f"""{INSERT}
ON CONFLICT (endpoint, object) DO UPDATE SET version = excluded.version, body = excluded.body, unit = excluded.unit,
    seen_at = excluded.seen_at, presence = excluded.presence, seen_sweep = excluded.seen_sweep,
    missing_at = NULL, missing_sweep = NULL, checks = 0, unlisted = false
"""
MOVE = """
UPDATE objects SET unit = coalesce($1, unit), seen_at = $2, seen_sweep = $3, missing_at = NULL, missing_sweep = NULL,
    checks = 0, unlisted = false, presence = CASE presence WHEN 1 THEN 0 ELSE presence END
WHERE endpoint = $4 AND object = ANY($5::text[])
"""
# ... those that the unit (1) does not show in an answer that was complete at that time (2): suspects, last seen at
# before ...
MISS = """
UPDATE objects SET unit = NULL, seen_at = greatest(seen_at, (SELECT asked_at FROM units WHERE id = $1)),
    presence = CASE presence WHEN 0 THEN 1 ELSE presence END, missing_at = $2, checks = 0,
    missing_sweep = (SELECT sweep FROM endpoints WHERE id = $3)
WHERE endpoint = $3 AND object = ANY($4::text[])
"""
# ... and those whose state the answer of the unit (1) does not tell: they belong to no unit from now on.
DOUBT = """
UPDATE objects o SET seen_at = greatest(seen_at, (SELECT asked_at FROM units WHERE id = o.unit)),
    presence = CASE presence WHEN 1 THEN 0 ELSE presence END, checks = 0,
    unit = CASE unit WHEN $1 THEN NULL ELSE unit END, missing_sweep = (SELECT sweep FROM endpoints WHERE id = $2)
WHERE endpoint = $2 AND object = ANY($3::text[])
"""

# A suspect whose own URL answers is no longer one, although no list shows it.
ANSWERING = """
UPDATE objects SET presence = 0, checks = p.checks, unlisted = p.unlisted,
    missing_sweep = (SELECT sweep FROM endpoints WHERE id = $1)
FROM unnest($2::text[], $3::bigint[], $4::boolean[]) AS p (object, checks, unlisted)
WHERE objects.endpoint = $1 AND objects.object = p.object AND unit IS NULL AND presence = 1
"""

# A suspect whose own URL says for the first time that the object is gone.
DENIED = """
UPDATE objects SET denied_at = $1 WHERE endpoint = $2 AND object = ANY($3::text[]) AND unit IS NULL AND presence = 1
"""

# Units are locked in the order of their ids. A poll that was overtaken by a later one of its unit changes nothing.
TIMES = """
WITH locked AS (SELECT id FROM units WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE)
UPDATE units SET asked_at = t.asked_at, answered_at = t.answered_at, asked_order = t.asked_order, failures = 0,
    retry_at = NULL, error = NULL
FROM unnest($1::bigint[], $2::float8[], $3::float8[], $4::bigint[]) AS t (id, asked_at, answered_at, asked_order)
JOIN locked USING (id) WHERE units.id = t.id AND units.asked_order <= t.asked_order
"""

# A unit shows its objects until its next poll: an object was last seen when its unit was.
KNOWN = "o.object, o.version, o.body, o.unit, greatest(u.asked_at, o.seen_at), o.presence, o.seen_sweep"


def write(conn: Connection, lease: Lease, recording: Recording) -> Recorded:
    """Write the recording. Raises Conflict if the endpoint's revision is not the recording's base, and LeaseLost."""
    endpoint = recording.endpoint
    owner = ask(conn, lease)
    changed = conn.row(
        "UPDATE endpoints SET revision = revision + 1, objects = objects + $1 WHERE id = $2 AND revision = $3 "
        "RETURNING revision",
        [recording.growth, endpoint, recording.base],
    )
    judge(owner, lease)
    if changed is None:
        raise Conflict(f"endpoint {endpoint} has changed since revision {recording.base}")
    _lock_units(conn, recording)
    write_times(conn, recording.unchanged)
    if recording.marks.rebaseline is not None:
        rebaseline(conn, endpoint, *recording.marks.rebaseline)
    new = [answer for poll in recording.polls for answer in _write_poll(conn, recording, poll)]
    _write_failures(conn, recording)
    drop_units(conn, endpoint, recording.dropped, recording.at)
    units = [make_unit(conn, endpoint, key, position) for key, position in recording.new_units]
    if answering := [one for one in recording.answering if not one.is_denied]:
        columns = [[one.object_id for one in answering], [one.checks for one in answering]]
        conn.run(ANSWERING, [endpoint, *columns, [one.is_unlisted for one in answering]])
    if denied := [one.object_id for one in recording.answering if one.is_denied]:
        conn.run(DENIED, [recording.at, endpoint, denied])
    if recording.marks.is_set:
        _write_marks(conn, recording)
    is_silent = recording.is_silent
    if is_silent:
        conn.run("SET LOCAL synchronous_commit = off")  # a crash of the database may undo it, and breaks our connection
    shown = conn.run(f"SELECT {ENDPOINT} FROM endpoints WHERE id = $1", [endpoint]) if recording.marks.is_set else None
    events, notices = _write_log(conn, recording)
    if any(answer.rowcount < rows for answer, rows in new):
        raise Conflict(f"endpoint {endpoint} knows one of the objects that were taken for new ones")
    state = None if shown is None else endpoint_of(shown.fetchone() or ())
    return Recorded(events=events, notices=notices, units=units, state=state, is_silent=is_silent)


def _write_log(conn: Connection, recording: Recording) -> tuple[list[list[int]], list[int]]:
    """Append the events of each poll, and the notices. This comes last, because it locks the log until the commit."""
    said = counted(conn, recording.notices)
    numbers = iter(append(conn, [*(event for poll in recording.polls for event in poll.events), *said]))
    # An id that was in the log already gets no number, so the numbers cannot be assigned to events.
    events = [[number for _, number in zip(poll.events, numbers, strict=False)] for poll in recording.polls]
    return events, list(numbers)


def _lock_units(conn: Connection, recording: Recording) -> None:
    units = {poll.unit.id for poll in recording.polls if poll.unit is not None}
    units |= {one.unit for one in recording.failures} | {one.unit for one in recording.unchanged}
    units |= {loser for poll in recording.polls for loser in poll.moved_from}
    if len(units) > 1:
        conn.run("SELECT id FROM units WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE", [list(units)])


def _write_poll(conn: Connection, recording: Recording, poll: PollRecord) -> list[tuple[Answer, int]]:
    """Write a poll. Returns statements with the number of rows that each must have written if the base is unchanged."""
    unit = poll.unit
    new = [_write_snapshots(conn, recording, poll)] if poll.snapshots else []
    if unit is not None:
        if not poll.stays_within_unit:
            _write_moves(conn, recording, poll, unit)
        _write_unit(conn, unit, poll.members)
    return new


def _write_moves(conn: Connection, recording: Recording, poll: PollRecord, unit: UnitState) -> None:
    """Write objects that moved to the unit and those that it no longer shows, before the unit's time is written."""
    endpoint = recording.endpoint
    if poll.moved_here:
        owner = unit.id if poll.owns_objects else None
        conn.run(MOVE, [owner, unit.asked_at, recording.sweep, endpoint, list(poll.moved_here)])
    for loser, ids in poll.moved_from.items():
        _take_members(conn, loser, frozenset(ids))
    if poll.missing:
        conn.run(MISS, [unit.id, unit.answered_at, endpoint, list(poll.missing)])
    if poll.unsure:
        conn.run(DOUBT, [unit.id, endpoint, list(poll.unsure)])


def _write_snapshots(conn: Connection, recording: Recording, poll: PollRecord) -> tuple[Answer, int]:
    rows = list({one.object_id: one for one in poll.snapshots}.values())
    written = conn.run(
        NEW if poll.are_new else UPSERT,
        [
            recording.endpoint,
            recording.sweep,
            [one.object_id for one in rows],
            [one.version for one in rows],
            [one.body for one in rows],
            [one.unit for one in rows],
            [one.seen_at for one in rows],
            [int(one.presence) for one in rows],
        ],
    )
    return written, len(rows)


def make_unit(conn: Connection, endpoint: int, key: str, position: bytes) -> UnitState:
    """The stored unit, which is created if it is new."""
    made = conn.value(
        "INSERT INTO units (endpoint, key, position) VALUES ($1, $2, $3) ON CONFLICT (endpoint, key) DO NOTHING "
        "RETURNING id",
        [endpoint, key, position],
    )
    if made is not None:
        return UnitState(id=made, key=key, position=position)
    row = conn.row(f"SELECT {UNIT} FROM units WHERE endpoint = $1 AND key = $2", [endpoint, key])
    assert row is not None
    return unit_of(row)


def _write_unit(conn: Connection, unit: UnitState, members: Mapping[bytes, str]) -> None:
    conn.run(
        "UPDATE units SET position = $1, asked_at = $2, answered_at = $3, asked_order = $4, digest = $5, members = $6, "
        "shown = $7, validators = $8, next = $9, calls = $10, failures = 0, retry_at = NULL, error = $11, "
        "claims = $12 WHERE id = $13",
        [
            unit.position,
            unit.asked_at,
            unit.answered_at,
            unit.asked_order,
            unit.digest,
            packed_as_map(members),
            unit.shown,
            unit.validators,
            unit.next,
            unit.calls,
            unit.error,
            unit.claims,
            unit.id,
        ],
    )


def write_times(conn: Connection, times: Iterable[UnitTimes]) -> None:
    """Record which units showed exactly what they showed before, and when."""
    latest = {one.unit: one for one in times}
    rows = list(latest.values())
    if rows:
        conn.run(
            TIMES,
            [
                [one.unit for one in rows],
                [one.asked_at for one in rows],
                [one.answered_at for one in rows],
                [one.asked_order for one in rows],
            ],
        )


def _write_failures(conn: Connection, recording: Recording) -> None:
    for one in recording.failures:
        conn.run(
            "UPDATE units SET failures = $1, retry_at = $2, error = $3 WHERE id = $4",
            [one.failures, one.retry_at, one.error, one.unit],
        )


def _write_marks(conn: Connection, recording: Recording) -> None:
    new = marked(recording.marks)
    if new:
        columns = ", ".join(f"{name} = ${place}" for place, name in enumerate(new, start=2))
        conn.run(f"UPDATE endpoints SET {columns} WHERE id = $1", [recording.endpoint, *new.values()])
    if recording.marks.ended is not None:
        end_sweep(conn, recording.endpoint, recording.marks.ended)


def rebaseline(conn: Connection, endpoint: int, now: float, order: int) -> None:
    """Begin a new baseline: units are deleted, and the next complete sweep is recorded without events."""
    conn.run("DELETE FROM units WHERE endpoint = $1", [endpoint])
    conn.run("UPDATE objects SET unit = NULL WHERE endpoint = $1", [endpoint])
    conn.run(
        "UPDATE endpoints SET sweep = sweep + 1, sweep_began = $1, sweep_order = $2, baseline_before = $1, "
        "last_sweep = NULL, last_sweep_began = NULL, steady_began = NULL, calm_began = NULL, "
        "tail_asked_at = NULL, since_at = NULL, held = NULL, accepted = NULL, uncertain = NULL WHERE id = $3",
        [now, order, endpoint],
    )


def read_endpoint(db: Database | Connection, endpoint: int) -> EndpointState:
    """The endpoint's current state."""
    row = db.row(f"SELECT {ENDPOINT} FROM endpoints WHERE id = $1", [endpoint])
    assert row is not None
    return endpoint_of(row)


def read_members(db: Database | Connection, unit: int) -> Members:
    """The members of a unit at its latest poll."""
    return Members.unpacked(db.value("SELECT members FROM units WHERE id = $1", [unit]))


def _take_members(conn: Connection, unit: int, ids: frozenset[str]) -> None:
    """Remove objects from a unit that showed them before; its next answer is compared completely."""
    kept = {digest: object_id for digest, object_id in read_members(conn, unit).items() if object_id not in ids}
    conn.run(
        "UPDATE units SET members = $1, digest = NULL, validators = NULL WHERE id = $2",
        [packed_as_map(kept), unit],
    )


def drop_units(conn: Connection, endpoint: int, keys: Iterable[str], now: float) -> None:
    """Delete units; their objects become suspects."""
    for key in keys:
        unit = conn.value("SELECT id FROM units WHERE endpoint = $1 AND key = $2", [endpoint, key])
        if unit is None:
            continue
        ids = list(read_members(conn, unit).values())
        conn.run(f"{MISS} AND unit = $1", [unit, now, endpoint, ids])
        conn.run("DELETE FROM units WHERE id = $1", [unit])


def end_sweep(conn: Connection, endpoint: int, sweep: Sweep) -> None:
    """Record the consequences of a complete sweep, and begin the next one."""
    _spare_unseen(conn, endpoint, sweep)
    _suspect_missing(conn, endpoint, sweep)
    gone = _end_baseline(conn, endpoint, sweep)
    if not sweep.confirms:
        conn.run(
            "UPDATE objects SET missing_sweep = (SELECT sweep FROM endpoints WHERE id = $1) "
            "WHERE endpoint = $1 AND unit IS NULL AND presence = 1",
            [endpoint],
        )
    _begin_next(conn, endpoint, sweep, gone)


def _spare_unseen(conn: Connection, endpoint: int, sweep: Sweep) -> None:
    # Objects about which the sweep says nothing count as seen in it; for those that were missing the time starts again.
    for prefix in sweep.unseen:
        conn.run(
            "UPDATE objects SET seen_sweep = (SELECT sweep FROM endpoints WHERE id = $1), missing_sweep = "
            "CASE presence WHEN 1 THEN (SELECT sweep FROM endpoints WHERE id = $1) ELSE missing_sweep END "
            "WHERE endpoint = $1 AND unit IS NULL AND presence < 2 AND starts_with(object, $2)",
            [endpoint, prefix],
        )


def _suspect_missing(conn: Connection, endpoint: int, sweep: Sweep) -> None:
    # A known object that belongs to no unit and was not seen in the sweep becomes a suspect. If its own URL
    # has shown it, that URL is requested again after twice as many sweeps each time.
    conn.run(
        "UPDATE objects SET presence = 1, missing_at = $1, missing_sweep = (SELECT sweep FROM endpoints WHERE id = $2) "
        "WHERE endpoint = $2 AND unit IS NULL AND presence = 0 "
        "AND seen_sweep < (SELECT sweep FROM endpoints WHERE id = $2) "
        "AND (missing_sweep IS NULL "
        "OR missing_sweep + (1 << least(checks, 10)::int) <= (SELECT sweep FROM endpoints WHERE id = $2))",
        [sweep.ended_at, endpoint],
    )


def _end_baseline(conn: Connection, endpoint: int, sweep: Sweep) -> int:
    """Mark objects that a baseline did not show as deleted, and return how many."""
    return conn.changed(
        # Objects that the sweep of a baseline did not show count as deleted, silently. Exempt are objects seen since it
        # began that had events before and, if the sweep is uncertain, all objects seen since it began.
        "UPDATE objects SET presence = 2, missing_at = NULL WHERE endpoint = $1 AND unit IS NULL AND presence < 2 "
        "AND $2::boolean "
        "AND seen_sweep < (SELECT sweep FROM endpoints WHERE id = $1 AND baseline_before IS NOT NULL) "
        "AND (($3::bytea IS NULL AND version = 0) OR seen_at < (SELECT baseline_before FROM endpoints WHERE id = $1))",
        [endpoint, sweep.ends_baseline, sweep.uncertain],
    )


def _begin_next(conn: Connection, endpoint: int, sweep: Sweep, gone: int) -> None:
    # One sweep may miss an object that a shift moved from an unread page to one already read. If nothing moved in the
    # next sweep either, there was no such shift.
    conn.run(
        "UPDATE endpoints SET last_sweep = CASE WHEN $6::boolean OR last_sweep IS NOT NULL THEN $1::float8 END, "
        "last_sweep_began = CASE WHEN $6 OR last_sweep IS NOT NULL THEN coalesce($8::float8, sweep_began) END, "
        "uncertain = $7, "
        "steady_began = CASE WHEN $2::boolean AND calm_began IS NOT NULL THEN calm_began ELSE steady_began END, "
        "calm_began = CASE WHEN $2 THEN coalesce($8, sweep_began) END, "
        "baseline_before = CASE WHEN $6 THEN NULL ELSE baseline_before END, "
        "sweep = sweep + 1, sweep_began = $1, sweep_order = $5, "
        "objects = objects - $3 WHERE id = $4",
        [
            sweep.ended_at,
            sweep.steady,
            gone,
            endpoint,
            sweep.ended_order,
            sweep.ends_baseline,
            sweep.uncertain,
            sweep.began,
        ],
    )
