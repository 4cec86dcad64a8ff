"""Endpoints, units and objects: what the decision on a poll needs, and what one transaction records of the poll."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import orjson
from msgspec import structs

from state.leases import Lease
from state.members import NO_MEMBERS
from state.polls import (
    EndpointSpec,
    Known,
    Opened,
    Recorded,
    Recording,
    Snapshot,
    Suspect,
    UnitTimes,
    Wanted,
)
from state.rows import ENDPOINT, SUSPECT, UNIT, endpoint_of, snapshot_of, suspect_of, unit_of
from state.sqlite.connection import State, transaction
from state.sqlite.leases import check
from state.sqlite.migrations import Migrations
from state.sqlite.objects import KNOWN
from state.sqlite.recording import write
from state.sqlite.sweeps import read_endpoint, rebaseline
from state.sqlite.units import make_unit, read_many_members, write_times

if TYPE_CHECKING:
    from sqlite_utils import Database

polls_migrations = Migrations("polls")

HOUR = 3600.0

# An object belongs to the one unit that showed it last: its id is in that unit's members, and nowhere else. So the time
# of an unchanged unit is the time of all of its objects, and no object is written only because it was seen again.
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


@polls_migrations()
def create_polls(db: Database) -> None:
    db.executescript(SCHEMA)


@polls_migrations()
def add_orders(db: Database) -> None:
    """Order by numbers that only rise, because wall clocks can be set back."""
    db.executescript(
        "ALTER TABLE endpoints ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE endpoints ADD COLUMN sweep_order INTEGER NOT NULL DEFAULT 1;"
        "ALTER TABLE units ADD COLUMN asked_order INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE objects ADD COLUMN seen_sweep INTEGER NOT NULL DEFAULT 0;"
    )


@polls_migrations()
def add_claims(db: Database) -> None:
    """Claims: what answers say about their list, and what contradicts it."""
    db.executescript("ALTER TABLE endpoints ADD COLUMN uncertain BLOB;ALTER TABLE units ADD COLUMN claims BLOB;")


@polls_migrations()
def add_unlisted(db: Database) -> None:
    """Objects that no list shows any more and that answer under their own URL."""
    db.executescript("ALTER TABLE objects ADD COLUMN unlisted INTEGER NOT NULL DEFAULT 0;")


@polls_migrations()
def add_denied(db: Database) -> None:
    """When the own URL of a suspect said first that it is gone: it is asked a second time."""
    db.executescript("ALTER TABLE objects ADD COLUMN denied_at REAL;")


@polls_migrations()
def add_runs_of_digests(db: Database) -> None:
    """Members are stored as one run of digests and a list of ids, which earlier versions cannot read."""


@polls_migrations()
def add_runs_of_ids(db: Database) -> None:
    """The ids of members are stored as one text and where each begins in it, which earlier versions cannot read."""


def _literal(text: str) -> str:
    """A pattern of GLOB that matches exactly this text."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in text)


class Polls:
    """Steps of polling. Every method is one step."""

    def __init__(self, db: State) -> None:
        self._db = db

    def open(self, spec: EndpointSpec, *, now: float) -> Opened:
        """The endpoint and its units, created if they are new. If its shape has changed, a new baseline begins.

        Known objects stay, for their versions; the first sweep records whatever it shows without events.
        """
        with transaction(self._db) as conn:
            conn.execute(
                "INSERT INTO endpoints (source, name, shape, sweep_began, baseline_before) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (source, name) DO NOTHING",
                [spec.source, spec.name, spec.shape, now, now],
            )
            where = "WHERE source = ? AND name = ?"
            row = conn.execute(f"SELECT {ENDPOINT} FROM endpoints {where}", [spec.source, spec.name]).fetchone()
            state = endpoint_of(row)
            is_reshaped = state.shape not in (spec.shape, "")  # an empty one: it was deleted
            if state.shape != spec.shape:
                conn.execute(
                    "UPDATE endpoints SET shape = ?, revision = revision + 1 WHERE id = ?", [spec.shape, state.id]
                )
                rebaseline(conn, state.id, now, state.sweep_order + 1)
            for key, position in spec.units:
                make_unit(conn, state.id, key, position)
        deletions, creations = (self._recent(spec, kind, now) for kind in ("deleted", "created"))
        opened = self.reopen(state.id)
        return structs.replace(opened, is_reshaped=is_reshaped, deletions=deletions, creations=creations)

    def _recent(self, spec: EndpointSpec, kind: str, now: float) -> list[float]:
        rows = self._db.execute(
            "SELECT ? - time FROM events WHERE time > ? AND time <= ? AND source = ? AND subject GLOB ? "
            "AND type GLOB ? ORDER BY time",
            [now, now - HOUR, now, f"/sources/{spec.source}", f"{_literal(spec.name)}/*", f"*.{kind}"],
        )
        return [float(row[0]) for row in rows]

    def reopen(self, endpoint: int) -> Opened:
        """The endpoint and its units as currently stored."""
        rows = self._db.execute(f"SELECT {UNIT} FROM units WHERE endpoint = ? ORDER BY id", [endpoint])
        units = [unit_of(row) for row in rows]
        suspects = self.suspects(endpoint, limit=1)
        return Opened(state=read_endpoint(self._db, endpoint), units=units, has_suspects=bool(suspects))

    def known(self, endpoint: int, wanted: Sequence[Wanted]) -> list[Known]:
        """What is known of the objects of each unit, and of the requested objects."""
        shown = iter(read_many_members(self._db, [one.unit for one in wanted if one.with_members]))
        members = [next(shown) if one.with_members else NO_MEMBERS for one in wanted]
        asked = [[*before.lost(one.digests), *one.ids] for one, before in zip(wanted, members, strict=True)]
        found = self.snapshots(endpoint, list(chain.from_iterable(asked)))  # of all units at once
        return [
            Known(members=before, snapshots={object_id: found[object_id] for object_id in ids if object_id in found})
            for before, ids in zip(members, asked, strict=True)
        ]

    def snapshots(self, endpoint: int, ids: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots of these objects, as far as they exist. No id has a NUL, which would end a text of JSON."""
        if not ids:
            return {}
        rows = self._db.execute(
            # One list as JSON takes half the time of as many host parameters.
            f"SELECT {KNOWN} FROM json_each(?) asked CROSS JOIN objects o ON o.object = asked.value "
            "LEFT JOIN units u ON u.id = o.unit WHERE o.endpoint = ?",
            [orjson.dumps(ids).decode(), endpoint],
        )
        return {row[0]: snapshot_of(row) for row in rows}

    def record(self, lease: Lease, recording: Recording) -> Recorded:
        """Write a recording, all or nothing.

        Raises Conflict if the endpoint has changed since `recording.base`, and LeaseLost if another worker owns the
        budget now.
        """
        with transaction(self._db) as conn:
            check(conn, lease)
            return write(conn, recording)

    def touch(self, times: Iterable[UnitTimes]) -> None:
        """Record which units showed exactly what they showed before, and when."""
        with transaction(self._db) as conn:
            write_times(conn, times)

    def suspect_count(self, endpoint: int) -> int:
        """The number of objects whose deletion is to be confirmed."""
        query = "SELECT count(*) FROM objects WHERE endpoint = ? AND presence = 1 AND unit IS NULL"
        return int(self._db.execute(query, [endpoint]).fetchone()[0])

    def suspects(self, endpoint: int, *, limit: int = 1000) -> list[Suspect]:
        """Objects whose deletion is to be confirmed, longest missing first."""
        rows = self._db.execute(
            f"SELECT {SUSPECT} FROM objects WHERE endpoint = ? AND presence = 1 AND unit IS NULL "
            "ORDER BY missing_at LIMIT ?",
            [endpoint, limit],
        )
        return [suspect_of(row) for row in rows]

    def listed(self, endpoint: int) -> Snapshot | None:
        """An object that its list shows; None if there is none."""
        row = self._db.execute(
            f"SELECT {KNOWN} FROM objects o JOIN units u ON u.id = o.unit WHERE o.endpoint = ? AND o.presence = 0 "
            "LIMIT 1",
            [endpoint],
        ).fetchone()
        return None if row is None else snapshot_of(row)

    def parents(self, endpoint: int) -> list[str]:
        """The ids of the objects that exist, in order."""
        rows = self._db.execute("SELECT object FROM objects WHERE endpoint = ? AND presence < 2", [endpoint])
        return [row[0] for row in rows]

    def parent(self, source: str, endpoint: str, object_id: str) -> bytes | None:
        """The last known state of an existing object, as JSON."""
        row = self._db.execute(
            "SELECT o.body FROM objects o JOIN endpoints e ON e.id = o.endpoint "
            "WHERE e.source = ? AND e.name = ? AND o.object = ? AND o.presence < 2",
            [source, endpoint, object_id],
        ).fetchone()
        return None if row is None else bytes(row[0])
