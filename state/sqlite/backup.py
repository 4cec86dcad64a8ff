"""Copies of the state. A copy that is used becomes a log of its own.

The original continues after the copy was made. A copy that replaces it does not know the calls and events since then,
and the same numbers mean different events in both logs. A copy therefore has a mark, and the first process that opens
it for writing gives it a new log id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import orjson

from state.errors import StateError
from state.move import BACKUP, MOVED
from state.private import create, sync
from state.sqlite.connection import State, read_meta, transaction, write_meta
from state.status import Restored

_MARK = BACKUP  # in an unused copy: the id of its log, and when it was made
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: no such table
_ORIGIN = "restored"  # in a state that began as a copy: the same, and when it was first used


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a backup."""

    bytes: int
    events: int
    objects: int


def copy_state(state: Path, to: Path, *, now: float) -> Copy:
    """Copy the state as it is at one moment, while it is in use; at the end the copy is complete and on disk.

    Raises StateError, with nothing left behind, if that fails or `to` exists already.
    """
    part: Path | None = None
    try:
        # The name is created only here, so that no existing file is overwritten, whatever happens meanwhile.
        create(to)
    except FileExistsError as error:
        hint = f"name another file, or a folder for a copy named after the time: {to}-copies/"
        raise StateError(f"{to} already exists", hint=hint) from error
    except OSError as error:
        raise StateError(
            f"{to}: cannot be written: {error.strerror}", hint="name a file in a folder of yours"
        ) from error
    try:
        part = _part(to)
        with contextlib.closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True, isolation_level=None)) as conn:
            conn.execute("PRAGMA busy_timeout = 10000")
            conn.execute("SELECT value FROM meta")  # raises for a damaged file what VACUUM would put otherwise
            conn.execute("VACUUM INTO ?", [str(part)])
        copied = _sealed(part, now)
        sync(part)  # SQLite does not sync what VACUUM INTO writes
        part.replace(to)
        sync(to.parent)
    except (sqlite3.Error, OSError, StateError) as error:
        for made in (part, to):
            if made is not None:
                made.unlink(missing_ok=True)
                made.with_name(f"{made.name}-journal").unlink(missing_ok=True)  # left by a full disk
        if isinstance(error, StateError):
            raise
        raise _refusal(state, to, error) from error
    return copied


def _refusal(state: Path, to: Path, error: sqlite3.Error | OSError) -> StateError:
    """Why a state could not be copied: it is damaged, the copy has no room, or something else."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        what = f"{state}: damaged, or not a state of Poller: {error}"
        return StateError(what, hint="an earlier backup may be whole: poller restore COPY")
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) == errno.ENOSPC:
        needed, free = state.stat().st_size, shutil.disk_usage(to.parent).free
        what = f"{to.parent}: no room for a copy of {needed / 1e6:.1f} MB; {free / 1e6:.1f} MB are free"
        return StateError(what, hint="free some space there; nothing was changed")
    return StateError(f"{state}: cannot be copied to {to}: {error}", hint="poller doctor examines the state")


def _part(to: Path) -> Path:
    """A new file next to `to`, with an unpredictable name."""
    fd, name = tempfile.mkstemp(prefix=f".{to.name}.", suffix=".part", dir=to.parent)
    os.close(fd)
    return Path(name)


def _sealed(part: Path, now: float) -> Copy:
    """Check the copy and mark it as one."""
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as conn:
        found = [row[0] for row in conn.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise StateError(
                f"the copy is damaged: {'; '.join(found)}", hint="the state itself may be damaged: poller doctor"
            )
        log_id = conn.execute("SELECT value FROM meta WHERE key = 'log_id'").fetchone()[0]
        write_meta(conn, _MARK, orjson.dumps({"log_id": log_id, "taken_at": now}).decode())
        events, objects = (conn.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("events", "objects"))
    return Copy(bytes=part.stat().st_size, events=events, objects=objects)


def begin_anew(db: State, *, now: float) -> None:
    """Give the state a log of its own, if it is a copy that is written to for the first time."""
    mark = read_meta(db, _MARK)
    if mark is None:
        return
    with transaction(db) as conn:
        write_meta(conn, "log_id", secrets.token_hex(8))
        write_meta(conn, _ORIGIN, orjson.dumps({**orjson.loads(mark), "since": now}).decode())
        conn.execute("DELETE FROM meta WHERE key IN (?, ?)", [_MARK, MOVED])


def restored(db: State) -> Restored | None:
    """The copy that this state began as; None if it did not, or is an unused copy."""
    origin = read_meta(db, _ORIGIN)
    return None if origin is None else Restored(**orjson.loads(origin))
