"""Notices become events: the version of each subject is counted here, under the lock of the log's counter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from state.notices import Notice
from state.operational import notice_event
from state.postgres.connection import Connection, Database, transaction
from state.postgres.events import append, lock_log
from state.postgres.learned import save
from state.records import NewEvent


def tell(conn: Connection, notices: Sequence[Notice]) -> list[int]:
    """Append the notices within the caller's transaction, each with its version. Returns their numbers; comes last."""
    return append(conn, counted(conn, notices))


def counted(conn: Connection, notices: Sequence[Notice]) -> list[NewEvent]:
    """The notices as events. The log's counter is locked from here to the commit."""
    if not notices:
        return []
    lock_log(conn)
    return [notice_event(notice, _next_version(conn, notice.subject)) for notice in notices]


def _next_version(conn: Connection, subject: str) -> int:
    return int(
        conn.value(
            "INSERT INTO versions VALUES ($1, 1) ON CONFLICT (subject) DO UPDATE SET version = versions.version + 1 "
            "RETURNING version",
            [subject],
        )
    )


class Notices:
    """The notices of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def tell(self, notices: Sequence[Notice], *, kept: Mapping[str, bytes] | None = None) -> list[int]:
        """Append the notices to the log, each with the next version of its subject; returns their numbers.

        `kept`, by key, is stored with them: what a restart must know about them.
        """
        with transaction(self._db) as conn:
            if kept:
                save(conn, kept)
            return tell(conn, notices)
