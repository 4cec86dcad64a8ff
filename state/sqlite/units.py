"""Statements on units, within the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import orjson

from state.members import NO_MEMBERS, Members
from state.polls import UnitState, UnitTimes
from state.rows import UNIT, unit_of
from state.sqlite.connection import State, blob


def make_unit(conn: sqlite3.Connection, endpoint: int, key: str, position: bytes) -> UnitState:
    """The stored unit, which is created if it is new."""
    made = conn.execute(
        "INSERT INTO units (endpoint, key, position) VALUES (?, ?, ?) ON CONFLICT (endpoint, key) DO NOTHING",
        [endpoint, key, position],
    )
    if made.rowcount == 1 and made.lastrowid is not None:
        return UnitState(id=made.lastrowid, key=key, position=position)
    row = conn.execute(f"SELECT {UNIT} FROM units WHERE endpoint = ? AND key = ?", [endpoint, key]).fetchone()
    return unit_of(row)


def write_unit(conn: sqlite3.Connection, unit: UnitState, members: Mapping[bytes, str]) -> None:
    conn.execute(
        "UPDATE units SET position = ?, asked_at = ?, answered_at = ?, asked_order = ?, digest = ?, members = ?, "
        "shown = ?, validators = ?, next = ?, calls = ?, failures = 0, retry_at = NULL, error = ?, claims = ? "
        "WHERE id = ?",
        [
            blob(unit.position),
            unit.asked_at,
            unit.answered_at,
            unit.asked_order,
            blob(unit.digest),
            blob(Members.of(members).packed()),
            unit.shown,
            blob(unit.validators),
            blob(unit.next),
            unit.calls,
            unit.error,
            blob(unit.claims),
            unit.id,
        ],
    )


def write_times(conn: sqlite3.Connection, times: Iterable[UnitTimes]) -> None:
    """Record which units showed exactly what they showed before, and when."""
    rows = [(one.asked_at, one.answered_at, one.asked_order, one.unit) for one in times]
    if rows:
        conn.executemany(
            "UPDATE units SET asked_at = ?, answered_at = ?, asked_order = ?, failures = 0, retry_at = NULL, "
            "error = NULL WHERE id = ?",
            rows,
        )


def read_members(db: State | sqlite3.Connection, unit: int) -> Members:
    """The members of a unit at its latest poll."""
    row = db.execute("SELECT members FROM units WHERE id = ?", [unit]).fetchone()
    return Members.unpacked(None if row is None else row[0])


def read_many_members(db: State, units: Sequence[int]) -> list[Members]:
    """The members of each of these units, in one statement; none of a unit that does not exist."""
    rows = db.execute(
        "SELECT u.id, u.members FROM json_each(?) asked CROSS JOIN units u ON u.id = asked.value",
        [orjson.dumps(units).decode()],
    )
    found = {row[0]: Members.unpacked(row[1]) for row in rows}
    return [found.get(unit, NO_MEMBERS) for unit in units]


def take_members(conn: sqlite3.Connection, unit: int, ids: frozenset[str]) -> None:
    """Remove objects from a unit that showed them before; its next answer is compared completely."""
    kept = {digest: object_id for digest, object_id in read_members(conn, unit).items() if object_id not in ids}
    conn.execute(
        "UPDATE units SET members = ?, digest = NULL, validators = NULL WHERE id = ?", [Members.of(kept).packed(), unit]
    )
