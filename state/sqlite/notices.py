"""Notices become events: the version of each subject is counted here, and survives a purge of the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from state.notices import Notice
from state.operational import notice_event
from state.sqlite.connection import State, transaction
from state.sqlite.events import append
from state.sqlite.learned import save
from state.sqlite.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

notice_migrations = Migrations("notices")


@notice_migrations()
def create_versions(db: Database) -> None:
    """Earlier versions of Poller kept the versions as texts in `meta`, and those of subscriptions in a column."""
    db.executescript(
        "CREATE TABLE versions (subject TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;"
        "INSERT INTO versions SELECT substr(key, 9), CAST(value AS INTEGER) FROM meta WHERE key LIKE 'version:%';"
        "DELETE FROM meta WHERE key LIKE 'version:%';"
    )
    tables = db.table_names()
    if "subscriptions" in tables:
        db.executescript(
            "INSERT INTO versions SELECT 'subscriptions/' || name, notices FROM subscriptions WHERE notices > 0;"
        )
    if "events" in tables:
        db.executescript(
            "INSERT OR IGNORE INTO versions SELECT subject, count(*) FROM events "
            "WHERE source = '/poller' GROUP BY subject;"
        )


@notice_migrations()
def drop_the_column_of_subscriptions(db: Database) -> None:
    if "subscriptions" in db.table_names():
        db.executescript("ALTER TABLE subscriptions DROP COLUMN notices;")


def tell(conn: sqlite3.Connection, notices: Iterable[Notice]) -> list[int]:
    """Append the notices within the caller's transaction, each with its version; returns their numbers."""
    return append(conn, [notice_event(notice, _next_version(conn, notice.subject)) for notice in notices])


def _next_version(conn: sqlite3.Connection, subject: str) -> int:
    row = conn.execute(
        "INSERT INTO versions VALUES (?, 1) ON CONFLICT (subject) DO UPDATE SET version = version + 1 "
        "RETURNING version",
        [subject],
    ).fetchone()
    return int(row[0])


class Notices:
    """The notices of one state file."""

    def __init__(self, db: State) -> None:
        self._db = db

    def tell(self, notices: Sequence[Notice], *, kept: Mapping[str, bytes] | None = None) -> list[int]:
        """Append the notices to the log, each with the next version of its subject; returns their numbers.

        `kept`, by key, is stored with them: what a restart must know about them.
        """
        with transaction(self._db) as conn:
            if kept:
                save(conn, kept)
            return tell(conn, notices)
