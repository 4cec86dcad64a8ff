"""Statements on objects, within the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from state.errors import Conflict
from state.polls import Snapshot

# Objects that are written: new or changed ones, and those shown unchanged by another unit ...
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
# ... those that the unit (1) does not show in an answer that was complete at that time (2): suspects, last seen at
# before ...
MISS = """
UPDATE objects SET unit = NULL, seen_at = max(seen_at, (SELECT coalesce(asked_at, 0) FROM units WHERE id = ?1)),
    presence = CASE presence WHEN 0 THEN 1 ELSE presence END, missing_at = ?2, checks = 0,
    missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?3)
WHERE endpoint = ?3 AND object = ?4
"""
# ... and those whose state the answer of the unit (1) does not tell: they belong to no unit from now on.
DOUBT = """
UPDATE objects SET seen_at = max(seen_at, coalesce((SELECT asked_at FROM units WHERE id = unit), 0)),
    presence = CASE presence WHEN 1 THEN 0 ELSE presence END, checks = 0,
    unit = CASE unit WHEN ?1 THEN NULL ELSE unit END, missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2)
WHERE endpoint = ?2 AND object = ?3
"""

# A suspect whose own URL answers is no longer one, although no list shows it.
ANSWERING = """
UPDATE objects SET presence = 0, checks = ?1, unlisted = ?4,
    missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2)
WHERE endpoint = ?2 AND object = ?3 AND unit IS NULL AND presence = 1
"""

# A suspect whose own URL says for the first time that the object is gone.
DENIED = "UPDATE objects SET denied_at = ?1 WHERE endpoint = ?2 AND object = ?3 AND unit IS NULL AND presence = 1"

# Unknown objects: their common values are bound once.
NEW = """
INSERT INTO objects (endpoint, unit, seen_at, presence, version, seen_sweep, object, body) VALUES {rows}
"""
NEW_ROW = "(?1, ?2, ?3, ?4, ?5, ?6, ?{id}, ?{body})"

# A blob is bound as a bytearray: for bytes the sqlite3 module looks for an adapter, which takes longest.
AT_ONCE = 50  # rows in one statement, which takes two thirds of the time of separate statements
_upsert_one = UPSERT.format(rows=ROW)
_upsert_many = UPSERT.format(rows=", ".join([ROW] * AT_ONCE))
_new_rows = [NEW_ROW.format(id=place, body=place + 1) for place in range(7, 7 + 2 * AT_ONCE, 2)]
_insert_one, _insert_many = NEW.format(rows=_new_rows[0]), NEW.format(rows=", ".join(_new_rows))

# A unit shows its objects until its next poll: an object was last seen when its unit was.
KNOWN = (
    "o.object, o.version, o.body, o.unit, "
    "CASE WHEN u.asked_at > o.seen_at THEN u.asked_at ELSE o.seen_at END, o.presence, o.seen_sweep"
)


def write_snapshots(conn: sqlite3.Connection, endpoint: int, snapshots: Sequence[Snapshot], sweep: int) -> None:
    rows = [
        (endpoint, s.object_id, s.version, bytearray(s.body), s.unit, s.seen_at, int(s.presence), sweep)
        for s in snapshots
    ]
    single = len(rows) % AT_ONCE
    conn.executemany(_upsert_one, rows[:single])
    for start in range(single, len(rows), AT_ONCE):
        conn.execute(_upsert_many, list(chain.from_iterable(rows[start : start + AT_ONCE])))


def write_new(conn: sqlite3.Connection, endpoint: int, snapshots: Sequence[Snapshot], sweep: int) -> None:
    """Write unknown objects. Raises Conflict if one is known."""
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
