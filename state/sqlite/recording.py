"""Statements of a recording, within the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from state.errors import Conflict
from state.polls import PollRecord, Recorded, Recording, UnitState
from state.sqlite.events import append
from state.sqlite.notices import tell
from state.sqlite.objects import ANSWERING, DENIED, DOUBT, MISS, MOVE, write_new, write_snapshots
from state.sqlite.sweeps import read_endpoint, rebaseline, write_marks
from state.sqlite.units import make_unit, read_members, take_members, write_times, write_unit


def write(conn: sqlite3.Connection, recording: Recording) -> Recorded:
    """Write the recording. Raises Conflict if the endpoint's revision is not the recording's base."""
    endpoint = recording.endpoint
    changed = conn.execute(
        "UPDATE endpoints SET revision = revision + 1, objects = objects + ? WHERE id = ? AND revision = ?",
        [recording.growth, endpoint, recording.base],
    )
    if changed.rowcount != 1:
        raise Conflict(f"endpoint {endpoint} has changed since revision {recording.base}")
    write_times(conn, recording.unchanged)
    if recording.marks.rebaseline is not None:
        rebaseline(conn, endpoint, *recording.marks.rebaseline)
    events = [_write_poll(conn, recording, poll) for poll in recording.polls]
    _write_failures(conn, recording)
    drop_units(conn, endpoint, recording.dropped, recording.at)
    units = [make_unit(conn, endpoint, key, position) for key, position in recording.new_units]
    for one in recording.answering:
        if one.is_denied:
            conn.execute(DENIED, (recording.at, endpoint, one.object_id))
        else:
            conn.execute(ANSWERING, (one.checks, endpoint, one.object_id, one.is_unlisted))
    if recording.marks.is_set:
        write_marks(conn, recording)
    notices = tell(conn, recording.notices)
    return Recorded(
        events=events,
        notices=notices,
        units=units,
        state=read_endpoint(conn, endpoint) if recording.marks.is_set else None,
        is_silent=recording.is_silent,
    )


def _write_poll(conn: sqlite3.Connection, recording: Recording, poll: PollRecord) -> list[int]:
    endpoint, unit = recording.endpoint, poll.unit
    if poll.snapshots:
        write_objects = write_new if poll.are_new else write_snapshots
        write_objects(conn, endpoint, poll.snapshots, recording.sweep)
    if unit is not None:
        if not poll.stays_within_unit:
            _write_moves(conn, recording, poll, unit)
        write_unit(conn, unit, poll.members)
    return append(conn, poll.events)


def _write_moves(conn: sqlite3.Connection, recording: Recording, poll: PollRecord, unit: UnitState) -> None:
    """Write objects that moved to the unit and those that it no longer shows, before the unit's time is written."""
    endpoint = recording.endpoint
    if poll.moved_here:
        owner = unit.id if poll.owns_objects else None
        rows = [(owner, unit.asked_at, recording.sweep, endpoint, object_id) for object_id in poll.moved_here]
        conn.executemany(MOVE, rows)
    for loser, ids in poll.moved_from.items():
        take_members(conn, loser, frozenset(ids))
    if poll.missing:
        conn.executemany(MISS, [(unit.id, unit.answered_at, endpoint, object_id) for object_id in poll.missing])
    if poll.unsure:
        conn.executemany(DOUBT, [(unit.id, endpoint, object_id) for object_id in poll.unsure])


def _write_failures(conn: sqlite3.Connection, recording: Recording) -> None:
    if recording.failures:
        rows = [(one.failures, one.retry_at, one.error, one.unit) for one in recording.failures]
        conn.executemany("UPDATE units SET failures = ?, retry_at = ?, error = ? WHERE id = ?", rows)


def drop_units(conn: sqlite3.Connection, endpoint: int, keys: Iterable[str], now: float) -> None:
    """Delete units; their objects become suspects."""
    for key in keys:
        row = conn.execute("SELECT id FROM units WHERE endpoint = ? AND key = ?", [endpoint, key]).fetchone()
        if row is None:
            continue
        ids = read_members(conn, row[0]).values()
        conn.executemany(f"{MISS} AND unit = ?1", [(row[0], now, endpoint, object_id) for object_id in ids])
        conn.execute("DELETE FROM units WHERE id = ?", row)
