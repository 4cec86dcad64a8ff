"""Endpoints, units and objects: what a poll reads, and what it records in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import orjson
from sqlite_utils import Database, Migrations

from state.notices import Notice
from state.polls import EndpointState, Presence, Recording, Snapshot, Suspect, Sweep, UnitState
from state.sqlite.connection import State, transaction
from state.sqlite.notices import tell
from state.sqlite.recording import UNIT, Recorded, drop_units, end_sweep, make_unit, read_members, unit_of, write

polls_migrations = Migrations("polls")

# An object belongs to the one unit that showed it last: its id is in that unit's members, and nowhere else. So an
# unchanged unit vouches for all of its objects by its own time, and no object is written for having been seen again.
SCHEMA = """
CREATE TABLE endpoints (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    shape TEXT NOT NULL,
    objects INTEGER NOT NULL DEFAULT 0,
    sweep INTEGER NOT NULL DEFAULT 1,
    sweep_began REAL NOT NULL,
    last_sweep REAL,
    last_sweep_began REAL,
    steady_began REAL,
    calm_began REAL,
    baseline_before REAL,
    tail_asked_at REAL,
    since_at REAL,
    held BLOB,
    accepted BLOB,
    UNIQUE (source, name)
);
CREATE TABLE units (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: an answer may be under way for a unit that is gone
    endpoint INTEGER NOT NULL REFERENCES endpoints (id),
    key TEXT NOT NULL,
    position BLOB NOT NULL,
    asked_at REAL,
    answered_at REAL,
    digest BLOB,
    members BLOB,
    shown INTEGER NOT NULL DEFAULT 0,
    validators BLOB,
    next BLOB,
    calls INTEGER NOT NULL DEFAULT 1,
    failures INTEGER NOT NULL DEFAULT 0,
    retry_at REAL,
    error TEXT,
    UNIQUE (endpoint, key)
);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,  -- rows are long: kept in order of their arrival, and found by a short index
    endpoint INTEGER NOT NULL,
    object TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BLOB NOT NULL,
    unit INTEGER,
    seen_at REAL NOT NULL,
    presence INTEGER NOT NULL DEFAULT 0,
    missing_at REAL,
    missing_sweep INTEGER,
    checks INTEGER NOT NULL DEFAULT 0,
    UNIQUE (endpoint, object)
);
CREATE INDEX objects_loose ON objects (endpoint, presence, seen_at) WHERE unit IS NULL;
CREATE TABLE learned (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

ENDPOINT = (
    "id, source, name, shape, objects, sweep, sweep_began, last_sweep, last_sweep_began, steady_began, "
    "calm_began, baseline_before, tail_asked_at, since_at, held, accepted"
)
# What the unit showed last it vouches for until it is asked again: the object was seen when the unit was.
KNOWN = (
    "o.object, o.version, o.body, o.unit, "
    "CASE WHEN u.asked_at > o.seen_at THEN u.asked_at ELSE o.seen_at END, o.presence"
)


@polls_migrations()
def create_polls(db: Database) -> None:
    db.executescript(SCHEMA)


def _endpoint_of(row: Sequence[Any]) -> EndpointState:
    return EndpointState(**dict(zip(ENDPOINT.split(", "), row, strict=True)))


def snapshot_of(row: Sequence[Any]) -> Snapshot:
    object_id, version, body, unit, seen_at, presence = row
    return Snapshot(
        object_id=object_id,
        version=version,
        body=body,
        unit=unit,
        seen_at=seen_at,
        presence=Presence(presence),
    )


class Polls:
    """The writing side of polling. Every method is one whole step."""

    def __init__(self, db: State) -> None:
        self._db = db
        self._touched: dict[int, tuple[float, float]] = {}  # unit -> when it was asked and had answered
        db.riders.append(self._write_touched)

    @property
    def has_touched(self) -> bool:
        """Whether times of units wait for a transaction."""
        return bool(self._touched)

    def transaction(self) -> AbstractContextManager[object]:
        """What is read in it stays true until what is written in it is: one step."""
        return transaction(self._db)

    def touch(self, unit: int, asked_at: float, answered_at: float) -> None:
        """Note that a unit shows just what it showed before. Written with the next transaction, whatever that is for.

        Lost in a crash before that, the unit counts as asked for earlier than it was: what follows is told later or
        less exactly, never wrongly.
        """
        self._touched[unit] = (asked_at, answered_at)

    def _write_touched(self, conn: sqlite3.Connection) -> None:
        if not self._touched:
            return
        conn.executemany(
            "UPDATE units SET asked_at = ?, answered_at = ?, failures = 0, retry_at = NULL, error = NULL WHERE id = ?",
            [(*times, unit) for unit, times in self._touched.items()],
        )
        self._touched.clear()

    def open_endpoint(self, source: str, name: str, shape: str, *, now: float) -> tuple[EndpointState, bool]:
        """The endpoint's state, made when it is new. True: its shape is another one, so a new baseline begins.

        What was known stays, for its versions; the first sweep takes whatever it shows without events.
        """
        with transaction(self._db) as conn:
            conn.execute(
                "INSERT INTO endpoints (source, name, shape, sweep_began, baseline_before) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (source, name) DO NOTHING",
                [source, name, shape, now, now],
            )
            row = conn.execute(f"SELECT {ENDPOINT} FROM endpoints WHERE source = ? AND name = ?", [source, name])
            state = _endpoint_of(row.fetchone())
            if state.shape == shape:
                return state, False
            conn.execute("UPDATE endpoints SET shape = ? WHERE id = ?", [shape, state.id])
            self._rebaseline(conn, state.id, now)
        return self.endpoint(state.id), True

    def rebaseline(self, endpoint: int, *, now: float) -> EndpointState:
        """Begin a new baseline: the next complete sweep is taken as it is, without events."""
        with transaction(self._db) as conn:
            self._rebaseline(conn, endpoint, now)
        return self.endpoint(endpoint)

    @staticmethod
    def _rebaseline(conn: sqlite3.Connection, endpoint: int, now: float) -> None:
        conn.execute("DELETE FROM units WHERE endpoint = ?", [endpoint])
        conn.execute("UPDATE objects SET unit = NULL WHERE endpoint = ?", [endpoint])
        conn.execute(
            "UPDATE endpoints SET sweep = sweep + 1, sweep_began = ?, baseline_before = ?, "
            "last_sweep = NULL, last_sweep_began = NULL, steady_began = NULL, calm_began = NULL, "
            "tail_asked_at = NULL, since_at = NULL, held = NULL, accepted = NULL WHERE id = ?",
            [now, now, endpoint],
        )

    def endpoint(self, endpoint: int) -> EndpointState:
        """The endpoint's state as it is now."""
        row = self._db.execute(f"SELECT {ENDPOINT} FROM endpoints WHERE id = ?", [endpoint]).fetchone()
        return _endpoint_of(row)

    def units(self, endpoint: int) -> list[UnitState]:
        """Every unit of the endpoint."""
        rows = self._db.execute(f"SELECT {UNIT} FROM units WHERE endpoint = ? ORDER BY id", [endpoint])
        return [unit_of(row) for row in rows]

    def unit(self, endpoint: int, key: str, position: bytes) -> UnitState:
        """One unit, made when it is new."""
        with transaction(self._db) as conn:
            return make_unit(conn, endpoint, key, position)

    def members(self, unit: int) -> Mapping[bytes, str]:
        """What a unit showed last: the digest of each object's bytes -> its id, in order."""
        return read_members(self._db, unit)

    def drop_units(self, endpoint: int, keys: Iterable[str], *, now: float) -> None:
        """Forget units that are no more (a list grew shorter, a parent is gone); their objects are suspects."""
        with transaction(self._db) as conn:
            drop_units(conn, endpoint, keys, now)

    def fail(self, unit: int, *, failures: int, retry_at: float, error: str) -> None:
        """Note a failed poll: when it may be tried again, and what was wrong."""
        with transaction(self._db) as conn:
            conn.execute(
                "UPDATE units SET failures = ?, retry_at = ?, error = ? WHERE id = ?",
                [failures, retry_at, error, unit],
            )

    def known(self, endpoint: int, ids: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots of those objects that are known. No id has a NUL, where SQLite ends a text of JSON."""
        if not ids:
            return {}
        rows = self._db.execute(
            # One list as JSON is found in half the time of as many host parameters.
            f"SELECT {KNOWN} FROM json_each(?) asked CROSS JOIN objects o ON o.object = asked.value "
            "LEFT JOIN units u ON u.id = o.unit WHERE o.endpoint = ?",
            [orjson.dumps(ids).decode(), endpoint],
        )
        found = {row[0]: snapshot_of(row) for row in rows}
        return {object_id: self._seen_by_touched(old) for object_id, old in found.items()} if self._touched else found

    def _seen_by_touched(self, old: Snapshot) -> Snapshot:
        touched = None if old.unit is None else self._touched.get(old.unit)
        return old if touched is None or touched[0] <= old.seen_at else msgspec.structs.replace(old, seen_at=touched[0])

    def record(self, recording: Recording) -> Recorded:
        """Write one poll: snapshots, events and the unit, all or nothing."""
        with transaction(self._db) as conn:
            return write(conn, recording)

    def begin_sweep(self, endpoint: int, *, now: float) -> None:
        """Let the sweep under way begin now."""
        with transaction(self._db) as conn:
            conn.execute("UPDATE endpoints SET sweep_began = ? WHERE id = ?", [now, endpoint])

    def end_sweep(self, endpoint: int, sweep: Sweep) -> EndpointState:
        """End a sweep without a poll: there was nothing to ask for."""
        with transaction(self._db) as conn:
            end_sweep(conn, endpoint, sweep)
        return self.endpoint(endpoint)

    def suspect_count(self, endpoint: int) -> int:
        """How many objects wait for their deletion to be confirmed."""
        query = "SELECT count(*) FROM objects WHERE endpoint = ? AND presence = 1 AND unit IS NULL"
        return int(self._db.execute(query, [endpoint]).fetchone()[0])

    def suspects(self, endpoint: int, *, limit: int = 1000) -> list[Suspect]:
        """Objects that wait for their deletion to be confirmed, longest missing first."""
        rows = self._db.execute(
            "SELECT object, version, body, unit, seen_at, presence, missing_at, missing_sweep, checks "
            "FROM objects WHERE endpoint = ? AND presence = 1 AND unit IS NULL ORDER BY missing_at LIMIT ?",
            [endpoint, limit],
        )
        return [
            Suspect(snapshot=snapshot_of(row[:6]), missing_at=row[6] or 0.0, missing_sweep=row[7] or 0, checks=row[8])
            for row in rows
        ]

    def still_there(self, endpoint: int, object_id: str, *, checks: int) -> None:
        """The object's own URL answers: it is no suspect, though no list shows it. How it is now, nobody has seen."""
        with transaction(self._db) as conn:
            conn.execute(
                "UPDATE objects SET presence = 0, checks = ?1, "
                "missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2) "
                "WHERE endpoint = ?2 AND object = ?3 AND unit IS NULL AND presence = 1",
                [checks, endpoint, object_id],
            )

    def tell(self, notice: Notice) -> list[int]:
        """Append an operational event with the next version of its subject."""
        with transaction(self._db) as conn:
            return tell(conn, [notice])

    def hold(self, endpoint: int, held: bytes | None) -> None:
        """Hold the endpoint (a JSON text says why), or hold it no longer (None)."""
        with transaction(self._db) as conn:
            conn.execute("UPDATE endpoints SET held = ? WHERE id = ?", [held, endpoint])

    def accept(self, endpoint: int, accepted: bytes | None) -> None:
        """Take schema changes silently from now on: a JSON text says which, and until which sweep."""
        with transaction(self._db) as conn:
            conn.execute("UPDATE endpoints SET accepted = ? WHERE id = ?", [accepted, endpoint])
