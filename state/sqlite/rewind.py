"""Handling of a clock that was set back: times in the state that lie in the future are moved back with the clock."""

from __future__ import annotations

import sqlite3
from typing import Final

LONGEST_RETRY: Final = 86400.0  # seconds: longest wait of a failed unit, whatever a server says
SLACK: Final = 1.0  # seconds that a time may lie ahead and still be ignored

# Times of units and endpoints are compared with each other, so all move by the same amount.
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
# Of the other tables, which are large or set by others, only times in the future move.
AHEAD: Final = (
    ("objects", "seen_at"),
    ("objects", "missing_at"),
    ("objects", "denied_at"),
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
    """Move back the times of a state that was written by a clock ahead of `now`, within the caller's transaction.

    `by` is how far the clock was set back, if known (0.0 or less). Times move at least that far, and at least so far
    that none lies in the future. Returns how far. Events keep their times.
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
