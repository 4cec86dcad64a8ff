"""Opening the file: pragmas, migrations, transactions."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state.errors import Outdated, StateError, Unavailable
from state.sqlite.files import OpenFiles
from state.sqlite.migrations import Migrations, applied, apply, names_of

if TYPE_CHECKING:
    from sqlite_utils import Database

meta_migrations = Migrations("meta")

OLDEST = (3, 38, 0)  # release of SQLite: the first with `->>` and `unixepoch`, which statements and views use
PAGE = 8192  # bytes: a poll writes half as many pages as with 4096, and edits of single objects no more of them
PROBED = 256 * 1024  # bytes
LARGEST_WAL = 16 * 1024 * 1024  # bytes to which the -wal file is truncated


class State:
    """One connection."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn
        self.files: OpenFiles | None = None  # of a state that is open for writing
        self.is_shared = False  # transactions currently share a commit
        self.has_begun = False  # the shared transaction has begun
        self.is_writing = False  # a transaction is under way, and nested ones are parts of it

    def refuse_if_rolled_back(self) -> None:
        """Raise Unavailable if SQLite has rolled back the shared transaction, so that earlier steps in it are lost."""
        if self.has_begun and not self.conn.in_transaction:
            raise Unavailable("the state could not be written: SQLite rolled back what shared this commit")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self.conn.execute(sql, values)

    def close(self) -> None:
        """Close the connection."""
        self.conn.close()


@meta_migrations()
def create_meta(db: Database) -> None:
    db.executescript("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;")
    db.execute("INSERT INTO meta VALUES ('log_id', ?)", [secrets.token_hex(8)])


def open_database(path: Path, *, sets: tuple[Migrations, ...] = (), read_only: bool = False) -> State:
    """Open the state, bring its schema up to date, and make every commit durable (WAL, synchronous=FULL).

    Raises StateError when the file cannot be opened, is not a database, or is not of this version. A read-only
    connection never creates the file and never migrates.
    """
    refuse_old_sqlite()
    sets = (meta_migrations, *sets)
    try:
        if not (read_only or path.exists()):
            path.touch(0o600)  # it holds data of the API, which only its user may read
        conn = sqlite3.connect(
            f"file:{path}?mode={'ro' if read_only else 'rwc'}", uri=True, check_same_thread=False, isolation_level=None
        )
        db = State(conn)
        conn.execute("PRAGMA busy_timeout = 10000")
        done, wanted = applied(conn), names_of(sets)
        _refuse_newer(done - wanted, path)
        if read_only:
            _refuse_older(wanted - done, path)
        else:
            conn.execute(f"PRAGMA page_size = {PAGE}")  # an existing file keeps its own
            keep_log(conn, path)
            conn.execute("PRAGMA synchronous = FULL")
            conn.execute("PRAGMA wal_autocheckpoint = 500")
            conn.execute(f"PRAGMA journal_size_limit = {LARGEST_WAL}")  # it grows while another program reads for long
            conn.execute("PRAGMA temp_store = MEMORY")  # undoing one step of a group needs no file
            if wanted - done:
                _drop_views(db)
                apply(conn, sets)
            db.files = OpenFiles(path)
    except (sqlite3.Error, OSError) as error:
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        raise StateError(
            f"{path}: cannot open the state: {error}",
            hint="it is damaged, or another program's file: move it away, or put a backup in its place"
            if damaged
            else "check the path, its permissions and free space",
        ) from error
    return db


def keep_log(conn: sqlite3.Connection, path: Path) -> None:
    """Let SQLite keep a write-ahead log. Raises StateError if it cannot, of which it only says which mode it has."""
    (mode,) = conn.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StateError(
            f"{path}: SQLite cannot keep a write-ahead log there (its journal mode is {mode!r})",
            hint="put the state on a local disk",
        )


def refuse_old_sqlite() -> None:
    """Raises StateError if the SQLite of this Python lacks what the state needs."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise StateError(
            f"this Python has SQLite {sqlite3.sqlite_version}; Poller needs {'.'.join(map(str, OLDEST))} or newer",
            hint="install Poller with another Python, for example one that uv brings: uv tool install --managed-python",
        )


def _drop_views(db: State) -> None:
    """Drop the views, because a table that one of them reads cannot be changed. The next opening creates them again."""
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall():
        db.execute(f'DROP VIEW "{name}"')


def _refuse_newer(unknown: Collection[tuple[str, str]], path: Path) -> None:
    """Refuse a file that a later version has changed, because writing into it could destroy it."""
    if unknown:
        raise StateError(
            f"{path}: was written by a later version of Poller ({', '.join(sorted(name for _, name in unknown))})",
            hint="install that version, or restore a backup made before it",
        )


def _refuse_older(lacking: Collection[tuple[str, str]], path: Path) -> None:
    """Refuse a file of an earlier version, because a reader cannot bring it up to date."""
    if lacking:
        raise Outdated(
            f"{path}: is not a state of this version of Poller",
            hint="poller once, or poller run, brings an earlier one up to date",
        )


@contextlib.contextmanager
def transaction(db: State) -> Iterator[sqlite3.Connection]:
    """One write transaction that holds the write lock from its beginning, so that what it reads remains true.

    A deferred one would not do: a read followed by a write would fail if another process (a command beside the
    daemon) has written in between. A nested transaction is a part of the outer one, and is undone with it; within a
    `Group` it is a savepoint, which is undone alone and committed with the others.
    """
    conn = db.conn
    if db.is_writing:
        yield conn
        return
    if not conn.in_transaction:
        db.refuse_if_rolled_back()
        if db.files is not None:
            db.files.check()
        conn.execute("BEGIN IMMEDIATE")
        db.has_begun = db.is_shared
    if db.is_shared:
        conn.execute("SAVEPOINT step")
    db.is_writing = True
    try:
        yield conn
    except BaseException:
        if conn.in_transaction:
            for undo in ("ROLLBACK TO step", "RELEASE step") if db.is_shared else ("ROLLBACK",):
                conn.execute(undo)
        raise
    finally:
        db.is_writing = False
    if db.is_shared:
        conn.execute("RELEASE step")
    else:
        _commit(conn)


class Group:
    """Transactions that share one commit."""

    def __init__(self, db: State) -> None:
        self._db = db

    def begin(self) -> None:
        """Transactions from now on are parts of one."""
        self._db.is_shared = True

    def commit(self) -> None:
        """Commit what they wrote, if anything. If this raises, nothing of it remains."""
        self._db.is_shared = False
        try:
            self._db.refuse_if_rolled_back()
        finally:
            self._db.has_begun = False
        if self._db.conn.in_transaction:
            _commit(self._db.conn)


def _commit(conn: sqlite3.Connection) -> None:
    """Commit. If that fails, roll back, because the changes would otherwise be committed with the next transaction."""
    try:
        conn.execute("COMMIT")
    except sqlite3.Error:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def blob(value: bytes | None) -> bytearray | None:
    """A value to bind as a blob. For bytes the sqlite3 module looks for an adapter first, which takes longer."""
    return None if value is None else bytearray(value)


def probe(db: State) -> None:
    """Write as much as a poll would, and delete it again. Raises the error that prevents writing the state."""
    with transaction(db) as conn:
        conn.execute("INSERT OR REPLACE INTO meta VALUES ('probe', hex(zeroblob(?)))", [PROBED // 2])
    with transaction(db) as conn:
        conn.execute("DELETE FROM meta WHERE key = 'probe'")


def read_meta(db: State, key: str) -> str | None:
    """The value stored under `key`, or None."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
    return None if row is None else str(row[0])


def write_meta(conn: sqlite3.Connection, key: str, value: str) -> None:
    """Store `value` under `key`, within the caller's transaction."""
    conn.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", [key, value])
