"""Translation of SQLite's errors: temporary ones are distinguished from permanent ones."""

from __future__ import annotations

import sqlite3
from typing import Final

from state.errors import StateError, Unavailable

# Primary result codes (https://www.sqlite.org/rescode.html) of what may pass by itself, and what an operator can do.
PASSING: Final = {
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_IOERR: "look after its disk: the system's log says more",
    sqlite3.SQLITE_BUSY: "end the program that holds its lock",
    sqlite3.SQLITE_LOCKED: "end the program that holds its lock",
    sqlite3.SQLITE_PROTOCOL: "end the program that holds its lock",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "make the file and its folder writable, and free space on its disk",
    sqlite3.SQLITE_PERM: "make the file and its folder writable",
    sqlite3.SQLITE_NOMEM: "free memory",
}
DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def translated(error: BaseException) -> BaseException:
    """The error to raise instead of one of SQLite. Errors in the use of SQLite are left unchanged."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes have the primary code as their last byte
    if code in PASSING:
        return _caused(Unavailable(f"the state cannot be written: {error}", hint=PASSING[code]), error)
    if code in DAMAGED:
        hint = "move it away and put a backup in its place (poller doctor checks it)"
        return _caused(StateError(f"the state is damaged: {error}", hint=hint), error)
    return error


def _caused(ours: StateError, cause: sqlite3.Error) -> StateError:
    ours.__cause__ = cause
    return ours
