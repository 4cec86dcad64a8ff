"""A SQLite that fails: any statement, once, with the error that a disk or another program would cause."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

CODES = {
    "disk I/O error": sqlite3.SQLITE_IOERR,
    "database or disk is full": sqlite3.SQLITE_FULL,
    "database is locked": sqlite3.SQLITE_BUSY,
    "attempt to write a readonly database": sqlite3.SQLITE_READONLY,
    "unable to open database file": sqlite3.SQLITE_CANTOPEN,
}
ROLLS_BACK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
UNDOING = ("ROLLBACK", "RELEASE", "PRAGMA")  # SQLite has done that already where it fails


@dataclass
class Faults:
    """What is to fail next, and what was asked for so far."""

    seen: dict[str, int] = field(default_factory=dict)  # by statement, how often
    armed: tuple[str, str] | None = None  # a statement, and the error with which it fails

    def meet(self, connection: sqlite3.Connection, sql: str) -> None:
        """Note a statement. Raises the error with which it is to fail, once; the transaction is as SQLite leaves it."""
        self.seen[sql] = self.seen.get(sql, 0) + 1
        if self.armed is None or self.armed[0] != sql:
            return
        message, self.armed = self.armed[1], None
        if CODES[message] in ROLLS_BACK and connection.in_transaction:
            sqlite3.Connection.execute(connection, "ROLLBACK")  # https://www.sqlite.org/lang_transaction.html 3.1
        error = sqlite3.OperationalError(message)
        error.sqlite_errorcode = CODES[message]
        raise error

    @property
    def statements(self) -> list[str]:
        """Every statement that can fail, in the order in which they were met."""
        return [sql for sql in self.seen if not sql.lstrip().upper().startswith(UNDOING)]


class _Connection(sqlite3.Connection):
    def __init__(self, *args: Any, faults: Faults, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._faults = faults

    def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
        self._faults.meet(self, sql)
        return super().execute(sql, *given)

    def executemany(self, sql: str, rows: Sequence[Any], /) -> sqlite3.Cursor:  # type: ignore[override]
        self._faults.meet(self, sql)
        return super().executemany(sql, rows)


@contextmanager
def faulty_sqlite(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """States that are opened to be written meanwhile fail as the faults say."""
    faults, connect = Faults(), sqlite3.connect

    def connected(name: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        if "mode=rwc" in str(name):
            kwargs["factory"] = partial(_Connection, faults=faults)
        return connect(name, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", connected)
        yield faults
