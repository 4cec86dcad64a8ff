"""A state file as one side of a move. See `state.move`."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from state.deliveries import SubscriptionLedger
from state.errors import StateError
from state.move import MOVING, TABLES, Key, Mark, Row, Table, encoded_mark
from state.sqlite.backup import begin_anew
from state.sqlite.connection import State, open_database, transaction, write_meta
from state.sqlite.migrations import Migrations
from state.sqlite.subscription_ledger import ledger

BYTES: Final = 4_000_000  # bytes of rows that are read at once


class SqliteSide:
    """One state file, opened under its lock."""

    def __init__(self, db: State) -> None:
        if db.conn is None:
            raise StateError("the state is closed")
        self._db = db
        self._conn: sqlite3.Connection = db.conn

    def read(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        """See `state.move.Side`."""
        key = ", ".join(table.key)
        where = "" if after is None else f"WHERE ({key}) > ({_signs(len(table.key))})"
        rows = self._conn.execute(
            f"SELECT {', '.join(table.names)} FROM {table.name} {where} ORDER BY {key} LIMIT ?",
            [*(after or ()), limit],
        )
        found: list[Row] = []
        size = 0
        for row in rows:
            found.append(_read(table, row))
            size += sum(len(value) for value in row if isinstance(value, bytes))
            if size >= BYTES:
                break
        return found

    def write(self, table: Table, rows: Sequence[Row], mark: Mark) -> None:
        """See `state.move.Side`."""
        # The owner of a lease and its end are not moved.
        more = {"leases": {"worker": "", "until": 0.0}}.get(table.name, {})
        columns = [*table.names, *more]
        with transaction(self._db) as conn:
            conn.executemany(
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({_signs(len(columns))})",
                [(*row, *more.values()) for row in rows],
            )
            write_meta(conn, MOVING, encoded_mark(mark))

    def count(self, table: Table) -> int:
        """See `state.move.Side`."""
        return int(self._conn.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])

    def numbers(self) -> dict[str, int]:
        """See `state.move.Side`. Only some tables remember the numbers of deleted rows."""
        given = dict(self._conn.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
        return {table.name: max(given.get(table.name, 0), self._highest(table)) for table in TABLES if table.serial}

    def _highest(self, table: Table) -> int:
        return int(self._conn.execute(f"SELECT coalesce(max({table.key[0]}), 0) FROM {table.name}").fetchone()[0])

    def complete(self, numbers: Mapping[str, int], meta: Mapping[str, str]) -> None:
        """See `state.move.Side`."""
        with transaction(self._db) as conn:
            remembered = conn.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'").fetchall()
            for (name,) in remembered:
                if name in numbers:
                    conn.execute("DELETE FROM sqlite_sequence WHERE name = ?", [name])
                    conn.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", [name, numbers[name]])
            for key, value in meta.items():
                write_meta(conn, key, value)

    def meta(self) -> dict[str, str]:
        """See `state.move.Side`."""
        return dict(self._conn.execute("SELECT key, value FROM meta").fetchall())

    def write_meta(self, key: str, value: str | None) -> None:
        """See `state.move.Side`."""
        with transaction(self._db) as conn:
            if value is None:
                conn.execute("DELETE FROM meta WHERE key = ?", [key])
            else:
                write_meta(conn, key, value)

    def clear(self, mark: Mark) -> None:
        """See `state.move.Side`."""
        with transaction(self._db) as conn:
            for table in reversed(TABLES):
                conn.execute(f"DELETE FROM {table.name}")
            conn.execute("DELETE FROM sqlite_sequence")
            conn.execute("DELETE FROM meta WHERE key != 'log_id'")
            write_meta(conn, MOVING, encoded_mark(mark))

    def ledger(self) -> list[SubscriptionLedger]:
        """See `state.move.Side`."""
        return ledger(self._db)

    def now(self) -> float:
        """See `state.move.Side`."""
        return time.time()


@contextlib.contextmanager
def opened(path: Path, *, sets: tuple[Migrations, ...]) -> Iterator[SqliteSide]:
    """A state file in a move, created and migrated if needed. SQLite's errors are raised as StateError."""
    db = open_database(path, sets=sets)
    try:
        begin_anew(db, now=time.time())
        yield SqliteSide(db)
    except sqlite3.Error as error:
        raise StateError(
            f"{path}: cannot be moved: {error}", hint="free space on its disk; poller doctor checks it"
        ) from error
    finally:
        db.close()


def _signs(count: int) -> str:
    return ", ".join("?" * count)


def _read(table: Table, row: Sequence[Any]) -> Row:
    return tuple(
        bool(value) if kind == "bool" and value is not None else value
        for value, (_, kind) in zip(row, table.columns, strict=True)
    )
