"""The event log: appended in the transaction that records the change, read in order of `seq`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

from state.records import Event, EventQuery, NewEvent
from state.rows import EVENT, event_of
from state.sqlite.connection import State, blob, read_meta, transaction
from state.sqlite.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

log_migrations = Migrations("log")


@log_migrations()
def create_events(db: Database) -> None:
    db.executescript(
        """
        CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, also after a purge
            id TEXT NOT NULL UNIQUE,
            source TEXT NOT NULL,
            type TEXT NOT NULL,
            subject TEXT NOT NULL,
            time REAL NOT NULL,
            observed_after REAL,
            data BLOB NOT NULL
        );
        CREATE INDEX events_subject ON events (subject, seq);
        CREATE INDEX events_time ON events (time);
        """
    )


def append(conn: sqlite3.Connection, events: Iterable[NewEvent]) -> list[int]:
    """Append within the caller's transaction and return the new numbers. An id that exists is not repeated."""
    numbers: list[int] = []
    for event in events:
        made = conn.execute(
            "INSERT INTO events (id, source, type, subject, time, observed_after, data) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO NOTHING",
            [event.id, event.source, event.type, event.subject, event.time, event.observed_after, blob(event.raw)],
        )
        if made.rowcount == 1 and made.lastrowid is not None:
            numbers.append(made.lastrowid)
    return numbers


def _conditions(query: EventQuery) -> tuple[str, list[int | str]]:
    """A query as SQL, and its values."""
    given: list[tuple[str, int | str | None]] = [
        ("seq > ?", query.after),
        ("seq < ?", query.before),
        ("type GLOB ?", query.type_glob),
        ("source = ?", query.source_uri),
        ("subject GLOB ?" if is_glob(query.subject) else "subject = ?", query.subject),
    ]
    wanted = [(condition, value) for condition, value in given if value is not None]
    return " AND ".join(condition for condition, _ in wanted), [value for _, value in wanted]


def is_glob(text: str | None) -> bool:
    """Whether a text is a pattern rather than a name."""
    return text is not None and any(mark in text for mark in "*?[")


class Log:
    """The event log of one state file."""

    def __init__(self, db: State) -> None:
        self._db = db

    @property
    def id(self) -> str:
        """The id of this log: a number of another log means nothing here."""
        return read_meta(self._db, "log_id") or ""

    def begin_anew_if_cut(self, known: int) -> int | None:  # noqa: ARG002 - see `state.store.EventLog`
        """None: a file that replaced another one is a new log from its first opening on."""
        return None

    def append(self, events: Iterable[NewEvent]) -> list[int]:
        """Append in a separate transaction (operational events)."""
        with transaction(self._db) as conn:
            return append(conn, events)

    def read(
        self, *, after: int = 0, limit: int = 1000, type_glob: str | None = None, source: str | None = None
    ) -> list[Event]:
        """At most `limit` events after number `after`, in order. `source` is a source's name."""
        where, values = "seq > ?", [after]
        if type_glob is not None:
            where, values = f"{where} AND type GLOB ?", [*values, type_glob]  # type: ignore[list-item]
        if source is not None:
            where, values = f"{where} AND source = ?", [*values, f"/sources/{source}"]  # type: ignore[list-item]
        rows = self._db.execute(f"SELECT {EVENT} FROM events WHERE {where} ORDER BY seq LIMIT ?", [*values, limit])
        return [event_of(row) for row in rows]

    def find(
        self, query: EventQuery, *, limit: int, newest: bool = False, most_bytes: int | None = None
    ) -> list[Event]:
        """At most `limit` events in order, the first or the newest ones.

        Stops early, after the event with which their data reaches `most_bytes`.
        """
        where, values = _conditions(query)
        order = "DESC" if newest else "ASC"
        rows = self._db.execute(
            f"SELECT {EVENT} FROM events WHERE {where} ORDER BY seq {order} LIMIT ?", [*values, limit]
        )
        found: list[Event] = []
        size = 0
        for event in map(event_of, rows):
            found.append(event)
            size += len(event.raw)
            if most_bytes is not None and size >= most_bytes:
                break
        return found[::-1] if newest else found

    def types(self, *, limit: int = 20) -> list[str]:
        """Some of the types in the log."""
        rows = self._db.execute("SELECT DISTINCT type FROM events ORDER BY type LIMIT ?", [limit])
        return [str(row[0]) for row in rows]

    def event(self, seq: int) -> Event | None:
        """The event with that number, or None (never assigned, or purged)."""
        row = self._db.execute(f"SELECT {EVENT} FROM events WHERE seq = ?", [seq]).fetchone()
        return None if row is None else event_of(row)

    def history(self, source: str, subject: str, *, limit: int = 100) -> list[Event]:
        """The latest events of one object, oldest first."""
        rows = self._db.execute(
            f"SELECT {EVENT} FROM events WHERE subject = ? AND source = ? ORDER BY seq DESC LIMIT ?",
            [subject, f"/sources/{source}", limit],
        ).fetchall()
        return [event_of(row) for row in reversed(rows)]

    def first_seq(self) -> int:
        """The number of the oldest stored event; 0 if there is none."""
        return int(self._db.execute("SELECT coalesce(min(seq), 0) FROM events").fetchone()[0])

    def last_seq(self) -> int:
        """The highest number ever assigned; 0 before the first event."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return 0 if row is None else int(row[0])

    def newest_time(self) -> float | None:
        """The time of the newest event, whatever later time an older one has; None if there are none."""
        row = self._db.execute("SELECT time FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def seq_at(self, time: float) -> int:
        """The number after which to read for the events recorded from `time` on."""
        row = self._db.execute("SELECT min(seq) FROM events WHERE time >= ?", [time]).fetchone()
        return self.last_seq() if row[0] is None else int(row[0]) - 1
