"""What one poll writes, within the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from state.polls import Recording, Snapshot, Sweep, UnitState
from state.sqlite.connection import State
from state.sqlite.events import append

# Objects that are written: those that are new or changed, and those shown unchanged by another unit ...
ROW = "(?, ?, ?, ?, ?, ?, ?)"
UPSERT = """
INSERT INTO objects (endpoint, object, version, body, unit, seen_at, presence) VALUES {rows}
ON CONFLICT (endpoint, object) DO UPDATE SET version = excluded.version, body = excluded.body, unit = excluded.unit,
    seen_at = excluded.seen_at, presence = excluded.presence, missing_at = NULL, missing_sweep = NULL, checks = 0
"""
CLAIM = """
UPDATE objects SET unit = coalesce(?, unit), seen_at = ?, missing_at = NULL, missing_sweep = NULL, checks = 0,
    presence = CASE presence WHEN 1 THEN 0 ELSE presence END
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

AT_ONCE = 50  # rows in one statement, which takes two thirds of the time of as many statements
_upsert_one = UPSERT.format(rows=ROW)
_upsert_many = UPSERT.format(rows=", ".join([ROW] * AT_ONCE))

_UNIT_FIELDS = UnitState.__struct_fields__
UNIT = ", ".join(_UNIT_FIELDS)

_decode_members = msgspec.msgpack.Decoder(dict[bytes, str]).decode
_encode_members = msgspec.msgpack.Encoder().encode


class Recorded(NamedTuple):
    """What writing a poll has made."""

    events: list[int]  # their numbers in the log
    units: list[UnitState]  # those that appeared behind this one


def write(conn: sqlite3.Connection, recording: Recording) -> Recorded:
    """Write snapshots, events and the unit."""
    if recording.changes_objects:
        _write_objects(conn, recording)
    if recording.unit is not None:
        _write_unit(conn, recording.unit, recording.members)
    units = [make_unit(conn, recording.endpoint, key, position) for key, position in recording.new_units]
    _write_endpoint(conn, recording)
    return Recorded(append(conn, recording.events), units)


def _write_objects(conn: sqlite3.Connection, recording: Recording) -> None:
    endpoint, unit = recording.endpoint, recording.unit
    _write_snapshots(conn, endpoint, recording.snapshots)
    if unit is None:
        return
    if recording.claimed:
        owner = unit.id if recording.vouches else None
        conn.executemany(CLAIM, [(owner, unit.asked_at, endpoint, object_id) for object_id in recording.claimed])
    for loser, ids in recording.moved_from.items():
        _take_members(conn, loser, frozenset(ids))
    if recording.missing:
        conn.executemany(MISS, [(unit.id, unit.asked_at, endpoint, object_id) for object_id in recording.missing])
    if recording.unsure:
        conn.executemany(DOUBT, [(unit.id, endpoint, object_id) for object_id in recording.unsure])
    drop_units(conn, endpoint, recording.dropped, unit.asked_at or 0.0)


def _write_snapshots(conn: sqlite3.Connection, endpoint: int, snapshots: Sequence[Snapshot]) -> None:
    rows = [(endpoint, s.object_id, s.version, s.body, s.unit, s.seen_at, int(s.presence)) for s in snapshots]
    single = len(rows) % AT_ONCE
    conn.executemany(_upsert_one, rows[:single])
    for start in range(single, len(rows), AT_ONCE):
        conn.execute(_upsert_many, list(chain.from_iterable(rows[start : start + AT_ONCE])))


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


def unit_of(row: Sequence[Any]) -> UnitState:
    """The record of a row of UNIT."""
    return UnitState(**dict(zip(_UNIT_FIELDS, row, strict=True)))


def _write_unit(conn: sqlite3.Connection, unit: UnitState, members: Mapping[bytes, str]) -> None:
    conn.execute(
        "UPDATE units SET position = ?, asked_at = ?, answered_at = ?, digest = ?, members = ?, shown = ?, "
        "validators = ?, next = ?, calls = ?, failures = 0, retry_at = NULL, error = ? WHERE id = ?",
        [
            unit.position,
            unit.asked_at,
            unit.answered_at,
            unit.digest,
            _encode_members(members),
            unit.shown,
            unit.validators,
            unit.next,
            unit.calls,
            unit.error,
            unit.id,
        ],
    )


def _write_endpoint(conn: sqlite3.Connection, recording: Recording) -> None:
    endpoint = recording.endpoint
    if recording.growth:
        conn.execute("UPDATE endpoints SET objects = objects + ? WHERE id = ?", [recording.growth, endpoint])
    if recording.tail_asked_at is not None:
        conn.execute("UPDATE endpoints SET tail_asked_at = ? WHERE id = ?", [recording.tail_asked_at, endpoint])
    if recording.since_at is not None:
        conn.execute("UPDATE endpoints SET since_at = ? WHERE id = ?", [recording.since_at, endpoint])
    if recording.sweep is not None:
        end_sweep(conn, endpoint, recording.sweep)


def read_members(db: State | sqlite3.Connection, unit: int) -> dict[bytes, str]:
    """What a unit showed last: the digest of each object's bytes -> its id, in order."""
    row = db.execute("SELECT members FROM units WHERE id = ?", [unit]).fetchone()
    return _decode_members(row[0]) if row is not None and row[0] else {}


def _take_members(conn: sqlite3.Connection, unit: int, ids: frozenset[str]) -> None:
    """Take objects from a unit that showed them before; what it shows next is compared whole."""
    kept = {digest: object_id for digest, object_id in read_members(conn, unit).items() if object_id not in ids}
    conn.execute(
        "UPDATE units SET members = ?, digest = NULL, validators = NULL WHERE id = ?", [_encode_members(kept), unit]
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
    # Who is known, belongs to no unit and was not seen in the whole sweep is a suspect now; one whose own URL
    # has said that it lives is asked again after twice as many sweeps each time.
    conn.execute(
        "UPDATE objects SET presence = 1, missing_at = ?1, missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2) "
        "WHERE endpoint = ?2 AND unit IS NULL AND presence = 0 "
        "AND seen_at < (SELECT sweep_began FROM endpoints WHERE id = ?2) "
        "AND (missing_sweep IS NULL "
        "OR missing_sweep + (1 << min(checks, 10)) <= (SELECT sweep FROM endpoints WHERE id = ?2))",
        [sweep.ended_at, endpoint],
    )
    gone = conn.execute(
        # A baseline takes what its sweep did not show as deleted, silently.
        "UPDATE objects SET presence = 2, missing_at = NULL WHERE endpoint = ?1 AND unit IS NULL AND presence < 2 "
        "AND seen_at < (SELECT baseline_before FROM endpoints WHERE id = ?1)",
        [endpoint],
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
        "UPDATE endpoints SET last_sweep = ?1, last_sweep_began = sweep_began, "
        "steady_began = CASE WHEN ?2 AND calm_began IS NOT NULL THEN calm_began ELSE steady_began END, "
        "calm_began = CASE WHEN ?2 THEN sweep_began END, "
        "baseline_before = NULL, sweep = sweep + 1, sweep_began = ?1, objects = objects - ?3 WHERE id = ?4",
        [sweep.ended_at, sweep.steady, gone, endpoint],
    )
