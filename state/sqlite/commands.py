"""Commands posted to the running daemon, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from state.commands import Posted, Result
from state.sqlite.connection import State, transaction
from state.sqlite.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

command_migrations = Migrations("commands")


@command_migrations()
def create_commands(db: Database) -> None:
    db.executescript(
        """
        CREATE TABLE commands (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL,
            args BLOB NOT NULL,         -- JSON
            posted_at REAL NOT NULL,
            taken_at REAL,              -- it is being done: never done twice
            finished_at REAL,
            result BLOB,                -- JSON
            error BLOB                  -- JSON: message and hint
        );
        CREATE INDEX commands_pending ON commands (id) WHERE taken_at IS NULL;
        """
    )


class Commands:
    """The table of commands. The first post creates it; without it, nothing was ever posted."""

    def __init__(self, db: State) -> None:
        self._db = db

    @property
    def exists(self) -> bool:
        """Whether anything was ever posted."""
        row = self._db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'commands'").fetchone()
        return row is not None

    def post(self, name: str, args: Mapping[str, Any], *, now: float) -> int:
        """Post a command for the daemon and return its id."""
        with transaction(self._db) as conn:
            row = conn.execute(
                "INSERT INTO commands (name, args, posted_at) VALUES (?, ?, ?) RETURNING id",
                [name, orjson.dumps(dict(args)), now],
            ).fetchone()
            return int(row[0])

    def pending(self) -> list[Posted]:
        """The waiting commands, in order of posting."""
        if not self.exists:
            return []
        rows = self._db.execute("SELECT id, name, args FROM commands WHERE taken_at IS NULL ORDER BY id")
        return [Posted(id=id_, name=name, args=orjson.loads(args)) for id_, name, args in rows]

    def take(self, id_: int, *, now: float) -> bool:
        """Take a command; False if it was withdrawn or taken meanwhile."""
        with transaction(self._db) as conn:
            changed = conn.execute("UPDATE commands SET taken_at = ? WHERE id = ? AND taken_at IS NULL", [now, id_])
            return changed.rowcount == 1

    def finish(self, id_: int, outcome: Result, *, now: float) -> None:
        """Write its result, and delete commands older than a day."""
        result = None if outcome.result is None else orjson.dumps(outcome.result)
        error = None if outcome.error is None else orjson.dumps({"error": outcome.error, "hint": outcome.hint})
        with transaction(self._db) as conn:
            conn.execute(
                "UPDATE commands SET finished_at = ?, result = ?, error = ? WHERE id = ?", [now, result, error, id_]
            )
            conn.execute("DELETE FROM commands WHERE posted_at < ? AND id != ?", [now - 86400.0, id_])

    def result(self, id_: int) -> Result | None:
        """Its result; None while it is not finished."""
        row = self._db.execute(
            "SELECT result, error FROM commands WHERE id = ? AND finished_at IS NOT NULL", [id_]
        ).fetchone()
        if row is None:
            return None
        result, error = (None if part is None else orjson.loads(part) for part in row)
        return Result(**error) if error is not None else Result(result=result)

    def withdraw(self, id_: int) -> bool:
        """Withdraw a command that was not taken yet; False if it was."""
        with transaction(self._db) as conn:
            return conn.execute("DELETE FROM commands WHERE id = ? AND taken_at IS NULL", [id_]).rowcount == 1
