"""The statements of a recording, within the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from msgspec import UNSET

from state.errors import Conflict
from state.polls import EndpointState, PollRecord, Recorded, Recording, Snapshot, Sweep, UnitState, UnitTimes
from state.rows import ENDPOINT, UNIT, endpoint_of, members_of, packed_members, unit_of
from state.sqlite.connection import State
from state.sqlite.events import append
from state.sqlite.notices import tell

# Objects that are written: those that are new or changed, and those shown unchanged by another unit ...
ROW = "(?, ?, ?, ?, ?, ?, ?, ?)"
UPSERT = """
INSERT INTO objects (endpoint, object, version, body, unit, seen_at, presence, seen_sweep) VALUES {rows}
ON CONFLICT (endpoint, object) DO UPDATE SET version = excluded.version, body = excluded.body, unit = excluded.unit,
    seen_at = excluded.seen_at, presence = excluded.presence, seen_sweep = excluded.seen_sweep,
    missing_at = NULL, missing_sweep = NULL, checks = 0, unlisted = 0
"""
MOVE = """
UPDATE objects SET unit = coalesce(?, unit), seen_at = ?, seen_sweep = ?, missing_at = NULL, missing_sweep = NULL,
    checks = 0, unlisted = 0, presence = CASE presence WHEN 1 THEN 0 ELSE presence END
WHERE endpoint = ? AND object = ?
"""
# ... those that the unit (1) no longer shows when it was asked (2): suspects, last seen when it was asked before ...
MISS = """
UPDATE objects SET unit = NULL, seen_at = max(seen_at, (SELECT coalesce(asked_at, 0) FROM units WHERE id = ?1)),
    presence = CASE presence WHEN 0 THEN 1 ELSE presence END, missing_at = ?2, checks = 0,
    missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?3)
WHERE endpoint = ?3 AND object = ?4
"""
# ... and those of which the unit (1) cannot tell how they are: nobody vouches for them from now on.
DOUBT = """
UPDATE objects SET seen_at = max(seen_at, coalesce((SELECT asked_at FROM units WHERE id = unit), 0)),
    presence = CASE presence WHEN 1 THEN 0 ELSE presence END, checks = 0,
    unit = CASE unit WHEN ?1 THEN NULL ELSE unit END, missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2)
WHERE endpoint = ?2 AND object = ?3
"""

# A suspect whose own URL answers is none, though no list shows it.
ANSWERING = """
UPDATE objects SET presence = 0, checks = ?1, unlisted = ?4,
    missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2)
WHERE endpoint = ?2 AND object = ?3 AND unit IS NULL AND presence = 1
"""

# Objects that were never known: what they have in common is bound once.
NEW = """
INSERT INTO objects (endpoint, unit, seen_at, presence, version, seen_sweep, object, body) VALUES {rows}
"""
NEW_ROW = "(?1, ?2, ?3, ?4, ?5, ?6, ?{id}, ?{body})"

# A blob is bound as a bytearray: for bytes the sqlite3 module looks for an adapter, which takes longest.
AT_ONCE = 50  # rows in one statement, which takes two thirds of the time of as many statements
_upsert_one = UPSERT.format(rows=ROW)
_upsert_many = UPSERT.format(rows=", ".join([ROW] * AT_ONCE))
_new_rows = [NEW_ROW.format(id=place, body=place + 1) for place in range(7, 7 + 2 * AT_ONCE, 2)]
_insert_one, _insert_many = NEW.format(rows=_new_rows[0]), NEW.format(rows=", ".join(_new_rows))

# What the unit showed last it vouches for until it is asked again: the object was seen when the unit was.
KNOWN = (
    "o.object, o.version, o.body, o.unit, "
    "CASE WHEN u.asked_at > o.seen_at THEN u.asked_at ELSE o.seen_at END, o.presence, o.seen_sweep"
)


def write(conn: sqlite3.Connection, recording: Recording) -> Recorded:
    """Write it all. Raises Conflict where the endpoint has another revision than the recording is based on."""
    endpoint = recording.endpoint
    changed = conn.execute(
        "UPDATE endpoints SET revision = revision + 1, objects = objects + ? WHERE id = ? AND revision = ?",
        [recording.growth, endpoint, recording.base],
    )
    if changed.rowcount != 1:
        raise Conflict(f"endpoint {endpoint} has changed since revision {recording.base}")
    write_times(conn, recording.unchanged)
    if recording.rebaseline is not None:
        rebaseline(conn, endpoint, *recording.rebaseline)
    events = [_write_poll(conn, recording, poll) for poll in recording.polls]
    _write_failures(conn, recording)
    drop_units(conn, endpoint, recording.dropped, recording.at)
    units = [make_unit(conn, endpoint, key, position) for key, position in recording.new_units]
    if recording.answering:
        conn.executemany(
            ANSWERING, [(one.checks, endpoint, one.object_id, one.is_unlisted) for one in recording.answering]
        )
    if recording.changes_marks:
        _write_marks(conn, recording)
    notices = tell(conn, recording.notices)
    return Recorded(
        events=events,
        notices=notices,
        units=units,
        state=read_endpoint(conn, endpoint) if recording.changes_marks else None,
        is_silent=_is_silent(recording),
    )


def _is_silent(recording: Recording) -> bool:
    """Whether nobody is told of it: polls that have changed something silently, and complete no sweep."""
    told = (recording.notices, recording.failures, recording.answering, recording.ended, recording.begin_sweep)
    changes = recording.rebaseline or recording.held is not UNSET or recording.accepted is not UNSET
    return not (any(told) or changes or any(poll.events for poll in recording.polls))


def _write_poll(conn: sqlite3.Connection, recording: Recording, poll: PollRecord) -> list[int]:
    endpoint, unit = recording.endpoint, poll.unit
    if poll.snapshots:
        write_snapshots = _write_new if poll.are_new else _write_snapshots
        write_snapshots(conn, endpoint, poll.snapshots, recording.sweep)
    if unit is not None:
        if not poll.stays_within_unit:
            _write_moves(conn, recording, poll, unit)
        _write_unit(conn, unit, poll.members)
    return append(conn, poll.events)


def _write_moves(conn: sqlite3.Connection, recording: Recording, poll: PollRecord, unit: UnitState) -> None:
    """Write what came to the unit, and what it no longer shows, before its own time is written."""
    endpoint = recording.endpoint
    if poll.moved_here:
        owner = unit.id if poll.owns_objects else None
        rows = [(owner, unit.asked_at, recording.sweep, endpoint, object_id) for object_id in poll.moved_here]
        conn.executemany(MOVE, rows)
    for loser, ids in poll.moved_from.items():
        _take_members(conn, loser, frozenset(ids))
    if poll.missing:
        conn.executemany(MISS, [(unit.id, unit.asked_at, endpoint, object_id) for object_id in poll.missing])
    if poll.unsure:
        conn.executemany(DOUBT, [(unit.id, endpoint, object_id) for object_id in poll.unsure])


def _write_snapshots(conn: sqlite3.Connection, endpoint: int, snapshots: Sequence[Snapshot], sweep: int) -> None:
    rows = [
        (endpoint, s.object_id, s.version, bytearray(s.body), s.unit, s.seen_at, int(s.presence), sweep)
        for s in snapshots
    ]
    single = len(rows) % AT_ONCE
    conn.executemany(_upsert_one, rows[:single])
    for start in range(single, len(rows), AT_ONCE):
        conn.execute(_upsert_many, list(chain.from_iterable(rows[start : start + AT_ONCE])))


def _write_new(conn: sqlite3.Connection, endpoint: int, snapshots: Sequence[Snapshot], sweep: int) -> None:
    """Write objects that were never known. Raises Conflict where one is."""
    one = snapshots[0]
    shared = [endpoint, one.unit, one.seen_at, int(one.presence), one.version, sweep]
    rows = [(s.object_id, bytearray(s.body)) for s in snapshots]
    single = len(rows) % AT_ONCE
    try:
        conn.executemany(_insert_one, [(*shared, *row) for row in rows[:single]])
        for start in range(single, len(rows), AT_ONCE):
            conn.execute(_insert_many, [*shared, *chain.from_iterable(rows[start : start + AT_ONCE])])
    except sqlite3.IntegrityError as error:
        raise Conflict(f"endpoint {endpoint} knows one of the objects that were taken for new ones") from error


def make_unit(conn: sqlite3.Connection, endpoint: int, key: str, position: bytes) -> UnitState:
    """A unit as it is kept, made where it is new."""
    made = conn.execute(
        "INSERT INTO units (endpoint, key, position) VALUES (?, ?, ?) ON CONFLICT (endpoint, key) DO NOTHING",
        [endpoint, key, position],
    )
    if made.rowcount == 1 and made.lastrowid is not None:
        return UnitState(id=made.lastrowid, key=key, position=position)
    row = conn.execute(f"SELECT {UNIT} FROM units WHERE endpoint = ? AND key = ?", [endpoint, key]).fetchone()
    return unit_of(row)


def _write_unit(conn: sqlite3.Connection, unit: UnitState, members: Mapping[bytes, str]) -> None:
    conn.execute(
        "UPDATE units SET position = ?, asked_at = ?, answered_at = ?, asked_order = ?, digest = ?, members = ?, "
        "shown = ?, validators = ?, next = ?, calls = ?, failures = 0, retry_at = NULL, error = ?, claims = ? "
        "WHERE id = ?",
        [
            unit.position,
            unit.asked_at,
            unit.answered_at,
            unit.asked_order,
            unit.digest,
            bytearray(packed_members(members)),
            unit.shown,
            unit.validators,
            unit.next,
            unit.calls,
            unit.error,
            unit.claims,
            unit.id,
        ],
    )


def write_times(conn: sqlite3.Connection, times: Iterable[UnitTimes]) -> None:
    """Note which units showed just what they showed before, and when."""
    rows = [(one.asked_at, one.answered_at, one.asked_order, one.unit) for one in times]
    if rows:
        conn.executemany(
            "UPDATE units SET asked_at = ?, answered_at = ?, asked_order = ?, failures = 0, retry_at = NULL, "
            "error = NULL WHERE id = ?",
            rows,
        )


def _write_failures(conn: sqlite3.Connection, recording: Recording) -> None:
    if recording.failures:
        rows = [(one.failures, one.retry_at, one.error, one.unit) for one in recording.failures]
        conn.executemany("UPDATE units SET failures = ?, retry_at = ?, error = ? WHERE id = ?", rows)


def _write_marks(conn: sqlite3.Connection, recording: Recording) -> None:
    began, order = recording.begin_sweep or (None, None)
    marks = {
        "tail_asked_at": recording.tail_asked_at,
        "since_at": recording.since_at,
        "sweep_began": began,
        "sweep_order": order,
    }
    new: dict[str, Any] = {name: value for name, value in marks.items() if value is not None}
    new |= {name: getattr(recording, name) for name in ("held", "accepted") if getattr(recording, name) is not UNSET}
    if new:
        columns = ", ".join(f"{name} = ?" for name in new)
        conn.execute(f"UPDATE endpoints SET {columns} WHERE id = ?", [*new.values(), recording.endpoint])
    if recording.ended is not None:
        end_sweep(conn, recording.endpoint, recording.ended)


def rebaseline(conn: sqlite3.Connection, endpoint: int, now: float, order: int) -> None:
    """Begin a new baseline: no unit is known, and the next complete sweep is taken as it is."""
    conn.execute("DELETE FROM units WHERE endpoint = ?", [endpoint])
    conn.execute("UPDATE objects SET unit = NULL WHERE endpoint = ?", [endpoint])
    conn.execute(
        "UPDATE endpoints SET sweep = sweep + 1, sweep_began = ?1, sweep_order = ?2, baseline_before = ?1, "
        "last_sweep = NULL, last_sweep_began = NULL, steady_began = NULL, calm_began = NULL, "
        "tail_asked_at = NULL, since_at = NULL, held = NULL, accepted = NULL, uncertain = NULL WHERE id = ?3",
        [now, order, endpoint],
    )


def read_endpoint(db: State | sqlite3.Connection, endpoint: int) -> EndpointState:
    """The endpoint's own state as it is now."""
    return endpoint_of(db.execute(f"SELECT {ENDPOINT} FROM endpoints WHERE id = ?", [endpoint]).fetchone())


def read_members(db: State | sqlite3.Connection, unit: int) -> dict[bytes, str]:
    """What a unit showed last: the digest of each object's bytes -> its id, in order."""
    row = db.execute("SELECT members FROM units WHERE id = ?", [unit]).fetchone()
    return members_of(None if row is None else row[0])


def _take_members(conn: sqlite3.Connection, unit: int, ids: frozenset[str]) -> None:
    """Take objects from a unit that showed them before; what it shows next is compared whole."""
    kept = {digest: object_id for digest, object_id in read_members(conn, unit).items() if object_id not in ids}
    conn.execute(
        "UPDATE units SET members = ?, digest = NULL, validators = NULL WHERE id = ?", [packed_members(kept), unit]
    )


def drop_units(conn: sqlite3.Connection, endpoint: int, keys: Iterable[str], now: float) -> None:
    """Forget units; what they showed is suspect."""
    for key in keys:
        row = conn.execute("SELECT id FROM units WHERE endpoint = ? AND key = ?", [endpoint, key]).fetchone()
        if row is None:
            continue
        ids = read_members(conn, row[0]).values()
        conn.executemany(f"{MISS} AND unit = ?1", [(row[0], now, endpoint, object_id) for object_id in ids])
        conn.execute("DELETE FROM units WHERE id = ?", row)


def end_sweep(conn: sqlite3.Connection, endpoint: int, sweep: Sweep) -> None:
    """Draw the conclusions of a complete sweep, and begin the next one."""
    # What the sweep says nothing about counts as seen in it, and what was missing there begins to be so now.
    conn.executemany(
        "UPDATE objects SET seen_sweep = (SELECT sweep FROM endpoints WHERE id = ?1), missing_sweep = "
        "CASE presence WHEN 1 THEN (SELECT sweep FROM endpoints WHERE id = ?1) ELSE missing_sweep END "
        "WHERE endpoint = ?1 AND unit IS NULL AND presence < 2 AND substr(object, 1, length(?2)) = ?2",
        [(endpoint, prefix) for prefix in sweep.unseen],
    )
    # Who is known, belongs to no unit and was not seen in the whole sweep is a suspect now; one whose own URL
    # has said that it lives is asked again after twice as many sweeps each time.
    conn.execute(
        "UPDATE objects SET presence = 1, missing_at = ?1, missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2) "
        "WHERE endpoint = ?2 AND unit IS NULL AND presence = 0 "
        "AND seen_sweep < (SELECT sweep FROM endpoints WHERE id = ?2) "
        "AND (missing_sweep IS NULL "
        "OR missing_sweep + (1 << min(checks, 10)) <= (SELECT sweep FROM endpoints WHERE id = ?2))",
        [sweep.ended_at, endpoint],
    )
    gone = conn.execute(
        # A baseline takes what its sweep did not show as deleted, silently. An uncertain sweep proves that of nothing
        # that was seen since the baseline began.
        "UPDATE objects SET presence = 2, missing_at = NULL WHERE endpoint = ?1 AND unit IS NULL AND presence < 2 "
        "AND ?2 AND seen_sweep < (SELECT sweep FROM endpoints WHERE id = ?1 AND baseline_before IS NOT NULL) "
        "AND (?3 IS NULL OR seen_at < (SELECT baseline_before FROM endpoints WHERE id = ?1))",
        [endpoint, sweep.ends_baseline, sweep.uncertain],
    ).rowcount
    if not sweep.confirms:
        conn.execute(
            "UPDATE objects SET missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?1) "
            "WHERE endpoint = ?1 AND unit IS NULL AND presence = 1",
            [endpoint],
        )
    # One sweep may miss an object that a shift took from a page not yet read to one already read. The next one,
    # if nothing moved in it either, shows that there was no such shift.
    conn.execute(
        "UPDATE endpoints SET last_sweep = CASE WHEN ?6 OR last_sweep IS NOT NULL THEN ?1 END, "
        "last_sweep_began = CASE WHEN ?6 OR last_sweep IS NOT NULL THEN sweep_began END, uncertain = ?7, "
        "steady_began = CASE WHEN ?2 AND calm_began IS NOT NULL THEN calm_began ELSE steady_began END, "
        "calm_began = CASE WHEN ?2 THEN sweep_began END, "
        "baseline_before = CASE WHEN ?6 THEN NULL ELSE baseline_before END, "
        "sweep = sweep + 1, sweep_began = ?1, sweep_order = ?5, "
        "objects = objects - ?3 WHERE id = ?4",
        [
            sweep.ended_at,
            sweep.steady,
            gone,
            endpoint,
            sweep.ended_order,
            sweep.ends_baseline,
            sweep.uncertain,
        ],
    )
