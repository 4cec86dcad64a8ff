"""Which changes of the schema there are, in their order, and which of them a file lacks.

sqlite-utils makes the changes and records them. It is imported only for a file that lacks some, because that takes as
long as everything else that opening a state does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlite_utils import Database

Change = Callable[["Database"], None]

TABLE: Final = "_sqlite_migrations"  # of sqlite-utils: one row for each change that was made


class Migrations:
    """The changes of one part of the schema, each a function that makes it, in their order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.changes: dict[str, Change] = {}

    def __call__(self) -> Callable[[Change], Change]:
        """Add the decorated function as the latest change."""

        def add(change: Change) -> Change:
            self.changes[change.__name__] = change
            return change

        return add


def names_of(sets: Iterable[Migrations]) -> set[tuple[str, str]]:
    """All changes: the name of each and of its set."""
    return {(one.name, change) for one in sets for change in one.changes}


def applied(conn: sqlite3.Connection) -> set[tuple[str, str]]:
    """The changes that were made to a file, also those of which this version knows nothing."""
    if conn.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [TABLE]).fetchone() is None:
        return set()
    return set(conn.execute(f"SELECT migration_set, name FROM {TABLE}").fetchall())


def apply(conn: sqlite3.Connection, sets: Iterable[Migrations]) -> None:
    """Make the changes that the file lacks, each in a transaction."""
    from sqlite_utils import Database
    from sqlite_utils import Migrations as Applied

    db = Database(conn, execute_plugins=False)
    for one in sets:
        changes = Applied(one.name)
        for change in one.changes.values():
            changes()(change)
        changes.apply(db)
