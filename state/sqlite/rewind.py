"""A clock that was set back: what the state holds as of later than now is moved back as far as the clock was."""

from __future__ import annotations

import sqlite3
from typing import Final

LONGEST_RETRY: Final = 86400.0  # seconds: no failed unit waits longer, whatever a server says
SLACK: Final = 1.0  # seconds by which a time may lie ahead without meaning anything

# Times of units and endpoints are compared with each other: all move alike, so that their order stays.
UNIT: Final = ("asked_at", "answered_at", "retry_at")
ENDPOINT: Final = (
    "sweep_began",
    "last_sweep",
    "last_sweep_began",
    "steady_began",
    "calm_began",
    "baseline_before",
    "tail_asked_at",
    "since_at",
)
# Of the rest, which is large or set by others, only what lies ahead moves.
AHEAD: Final = (
    ("objects", "seen_at"),
    ("objects", "missing_at"),
    ("lanes", "due"),
    ("deliveries", "due"),
    ("lanes", "not_before"),
    ("subscriptions", "open_until"),
)
NEWEST: Final = (
    "SELECT max(at) FROM (SELECT max(asked_at) AS at FROM units UNION ALL SELECT max(answered_at) FROM units "
    "UNION ALL SELECT max(sweep_began) FROM endpoints UNION ALL SELECT max(last_sweep) FROM endpoints)"
)


def rewind(conn: sqlite3.Connection, now: float, by: float) -> float:
    """Move the times of a state back that was written by a clock ahead of `now`, within the caller's transaction.

    `by` is how far the clock was set back, as far as somebody knows (0.0 or less): at least so far they move, and at
    least so far that none of them lies ahead. Returns how far. Events keep their times.
    """
    (newest,) = conn.execute(NEWEST).fetchone()
    if newest is not None and newest + by > now + SLACK:
        by = now - float(newest)
    if by:
        for table, columns in (("units", UNIT), ("endpoints", ENDPOINT)):
            moved = ", ".join(f"{column} = {column} + :by" for column in columns)
            conn.execute(f"UPDATE {table} SET {moved}", {"by": by})
        for table, column in AHEAD:
            conn.execute(f"UPDATE {table} SET {column} = {column} + :by WHERE {column} > :now", {"by": by, "now": now})
    conn.execute("UPDATE units SET retry_at = NULL WHERE retry_at > ?", [now + LONGEST_RETRY])
    return by
