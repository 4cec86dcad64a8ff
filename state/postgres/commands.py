"""Commands posted for the workers, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from state.commands import Posted, Result
from state.postgres.connection import Database, transaction


class Commands:
    """The table of commands."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def post(self, name: str, args: Mapping[str, Any], *, now: float) -> int:
        """Post a command for a worker and return its id."""
        with transaction(self._db) as conn:
            id_ = conn.value(
                "INSERT INTO commands (name, args, posted_at) VALUES ($1, $2, $3) RETURNING id",
                [name, orjson.dumps(dict(args)), now],
            )
            conn.run("NOTIFY poller_commands")
            return int(id_)

    def pending(self) -> list[Posted]:
        """The waiting commands, in order of posting."""
        rows = self._db.run("SELECT id, name, args FROM commands WHERE taken_at IS NULL ORDER BY id")
        return [Posted(id=id_, name=name, args=orjson.loads(args)) for id_, name, args in rows]

    def take(self, id_: int, *, now: float) -> bool:
        """Take a command; False if it was withdrawn or taken meanwhile."""
        changed = self._db.run("UPDATE commands SET taken_at = $1 WHERE id = $2 AND taken_at IS NULL", [now, id_])
        return changed.rowcount == 1

    def finish(self, id_: int, outcome: Result, *, now: float) -> None:
        """Write its result, and delete commands older than a day."""
        result = None if outcome.result is None else orjson.dumps(outcome.result)
        error = None if outcome.error is None else orjson.dumps({"error": outcome.error, "hint": outcome.hint})
        with transaction(self._db) as conn:
            conn.run(
                "UPDATE commands SET finished_at = $1, result = $2, error = $3 WHERE id = $4",
                [now, result, error, id_],
            )
            conn.run("DELETE FROM commands WHERE posted_at < $1::float8 AND id != $2", [now - 86400.0, id_])

    def result(self, id_: int) -> Result | None:
        """Its result; None while it is not finished."""
        row = self._db.row("SELECT result, error FROM commands WHERE id = $1 AND finished_at IS NOT NULL", [id_])
        if row is None:
            return None
        result, error = (None if part is None else orjson.loads(part) for part in row)
        return Result(**error) if error is not None else Result(result=result)

    def withdraw(self, id_: int) -> bool:
        """Withdraw a command that was not taken yet; False if it was."""
        return self._db.run("DELETE FROM commands WHERE id = $1 AND taken_at IS NULL", [id_]).rowcount == 1
