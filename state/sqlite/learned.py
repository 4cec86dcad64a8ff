"""Values that the planners learned."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from state.sqlite.connection import State, transaction


def save(conn: sqlite3.Connection, values: Mapping[str, bytes]) -> None:
    """Store every value under its key, within the caller's transaction."""
    conn.executemany(
        "INSERT INTO learned VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        list(values.items()),
    )


class Learned:
    """Values that the planners learned, stored as they dump them."""

    def __init__(self, db: State) -> None:
        self._db = db

    def save(self, values: Mapping[str, bytes]) -> None:
        """Store every value under its key."""
        with transaction(self._db) as conn:
            save(conn, values)

    def load(self, key: str) -> bytes | None:
        """The value stored under `key`."""
        row = self._db.execute("SELECT value FROM learned WHERE key = ?", [key]).fetchone()
        return None if row is None else bytes(row[0])

    def load_all(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values stored under these keys, as far as there are any."""
        signs = ", ".join("?" for _ in keys)
        rows = self._db.execute(f"SELECT key, value FROM learned WHERE key IN ({signs})", list(keys))
        return {key: bytes(value) for key, value in rows}
