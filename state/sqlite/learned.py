"""What the planners learned."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from state.sqlite.connection import State, transaction


def save(conn: sqlite3.Connection, values: Mapping[str, bytes]) -> None:
    """Keep every value under its key, within the caller's transaction."""
    conn.executemany(
        "INSERT INTO learned VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        list(values.items()),
    )


class Learned:
    """What the planners learned, kept as they dump it."""

    def __init__(self, db: State) -> None:
        self._db = db

    def save(self, values: Mapping[str, bytes]) -> None:
        """Keep every value under its key."""
        with transaction(self._db) as conn:
            save(conn, values)

    def load(self, key: str) -> bytes | None:
        """What was kept under `key`."""
        row = self._db.execute("SELECT value FROM learned WHERE key = ?", [key]).fetchone()
        return None if row is None else bytes(row[0])
