"""Statements on endpoints and their sweeps, within the caller's transaction."""

from __future__ import annotations

import sqlite3

from state.polls import EndpointState, Recording, Sweep
from state.rows import ENDPOINT, endpoint_of, marked
from state.sqlite.connection import State


def read_endpoint(db: State | sqlite3.Connection, endpoint: int) -> EndpointState:
    """The endpoint's current state."""
    return endpoint_of(db.execute(f"SELECT {ENDPOINT} FROM endpoints WHERE id = ?", [endpoint]).fetchone())


def write_marks(conn: sqlite3.Connection, recording: Recording) -> None:
    new = marked(recording.marks)
    if new:
        columns = ", ".join(f"{name} = ?" for name in new)
        conn.execute(f"UPDATE endpoints SET {columns} WHERE id = ?", [*new.values(), recording.endpoint])
    if recording.marks.ended is not None:
        end_sweep(conn, recording.endpoint, recording.marks.ended)


def rebaseline(conn: sqlite3.Connection, endpoint: int, now: float, order: int) -> None:
    """Begin a new baseline: units are deleted, and the next complete sweep is recorded without events."""
    conn.execute("DELETE FROM units WHERE endpoint = ?", [endpoint])
    conn.execute("UPDATE objects SET unit = NULL WHERE endpoint = ?", [endpoint])
    conn.execute(
        "UPDATE endpoints SET sweep = sweep + 1, sweep_began = ?1, sweep_order = ?2, baseline_before = ?1, "
        "last_sweep = NULL, last_sweep_began = NULL, steady_began = NULL, calm_began = NULL, "
        "tail_asked_at = NULL, since_at = NULL, held = NULL, accepted = NULL, uncertain = NULL WHERE id = ?3",
        [now, order, endpoint],
    )


def end_sweep(conn: sqlite3.Connection, endpoint: int, sweep: Sweep) -> None:
    """Record the consequences of a complete sweep, and begin the next one."""
    _spare_unseen(conn, endpoint, sweep)
    _suspect_missing(conn, endpoint, sweep)
    gone = _end_baseline(conn, endpoint, sweep)
    if not sweep.confirms:
        conn.execute(
            "UPDATE objects SET missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?1) "
            "WHERE endpoint = ?1 AND unit IS NULL AND presence = 1",
            [endpoint],
        )
    _begin_next(conn, endpoint, sweep, gone)


def _spare_unseen(conn: sqlite3.Connection, endpoint: int, sweep: Sweep) -> None:
    # Objects about which the sweep says nothing count as seen in it; for those that were missing the time starts again.
    conn.executemany(
        "UPDATE objects SET seen_sweep = (SELECT sweep FROM endpoints WHERE id = ?1), missing_sweep = "
        "CASE presence WHEN 1 THEN (SELECT sweep FROM endpoints WHERE id = ?1) ELSE missing_sweep END "
        "WHERE endpoint = ?1 AND unit IS NULL AND presence < 2 AND substr(object, 1, length(?2)) = ?2",
        [(endpoint, prefix) for prefix in sweep.unseen],
    )


def _suspect_missing(conn: sqlite3.Connection, endpoint: int, sweep: Sweep) -> None:
    # A known object that belongs to no unit and was not seen in the sweep becomes a suspect. If its own URL
    # has shown it, that URL is requested again after twice as many sweeps each time.
    conn.execute(
        "UPDATE objects SET presence = 1, missing_at = ?1, missing_sweep = (SELECT sweep FROM endpoints WHERE id = ?2) "
        "WHERE endpoint = ?2 AND unit IS NULL AND presence = 0 "
        "AND seen_sweep < (SELECT sweep FROM endpoints WHERE id = ?2) "
        "AND (missing_sweep IS NULL "
        "OR missing_sweep + (1 << min(checks, 10)) <= (SELECT sweep FROM endpoints WHERE id = ?2))",
        [sweep.ended_at, endpoint],
    )


def _end_baseline(conn: sqlite3.Connection, endpoint: int, sweep: Sweep) -> int:
    """Mark objects that a baseline did not show as deleted, and return how many."""
    return conn.execute(
        # Objects that the sweep of a baseline did not show count as deleted, silently. Exempt are objects seen since it
        # began that had events before and, if the sweep is uncertain, all objects seen since it began.
        "UPDATE objects SET presence = 2, missing_at = NULL WHERE endpoint = ?1 AND unit IS NULL AND presence < 2 "
        "AND ?2 AND seen_sweep < (SELECT sweep FROM endpoints WHERE id = ?1 AND baseline_before IS NOT NULL) "
        "AND ((?3 IS NULL AND version = 0) OR seen_at < (SELECT baseline_before FROM endpoints WHERE id = ?1))",
        [endpoint, sweep.ends_baseline, sweep.uncertain],
    ).rowcount


def _begin_next(conn: sqlite3.Connection, endpoint: int, sweep: Sweep, gone: int) -> None:
    # One sweep may miss an object that a shift moved from an unread page to one already read. If nothing moved in the
    # next sweep either, there was no such shift.
    conn.execute(
        "UPDATE endpoints SET last_sweep = CASE WHEN ?6 OR last_sweep IS NOT NULL THEN ?1 END, "
        "last_sweep_began = CASE WHEN ?6 OR last_sweep IS NOT NULL THEN coalesce(?8, sweep_began) END, uncertain = ?7, "
        "steady_began = CASE WHEN ?2 AND calm_began IS NOT NULL THEN calm_began ELSE steady_began END, "
        "calm_began = CASE WHEN ?2 THEN coalesce(?8, sweep_began) END, "
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
            sweep.began,
        ],
    )
