"""Values that the planners learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from state.postgres.connection import Connection, Database, transaction


def save(conn: Connection, values: Mapping[str, bytes]) -> None:
    """Store every value under its key, within the caller's transaction."""
    conn.run(
        "INSERT INTO learned SELECT * FROM unnest($1::text[], $2::bytea[]) AS new (key, value) ORDER BY key "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [list(values), list(values.values())],
    )


class Learned:
    """Values that the planners learned, stored as they dump them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def save(self, values: Mapping[str, bytes]) -> None:
        """Store every value under its key."""
        with transaction(self._db) as conn:
            save(conn, values)

    def load(self, key: str) -> bytes | None:
        """The value stored under `key`."""
        value: bytes | None = self._db.value("SELECT value FROM learned WHERE key = $1", [key])
        return value

    def load_all(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values stored under these keys, as far as there are any."""
        return dict(self._db.run("SELECT key, value FROM learned WHERE key = ANY($1::text[])", [list(keys)]))
