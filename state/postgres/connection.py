"""Connections: one for each thread that runs steps, opened when needed, and again after a loss."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg.types.string import StrBinaryDumper, StrDumper

from state.errors import StateError
from state.postgres.failures import translated

NOW: Final = "extract(epoch FROM clock_timestamp())::float8"  # Unix seconds of the database's own clock

# Settings that the steps rely on, whatever the database, its role or the environment has. They are set by a statement,
# because poolers refuse them in the startup packet. A connection that waits for its next step is not closed.
#
# Time limits of the server: a worker that was stopped, or cut off, within a transaction holds locks that all others
# may wait for. `tcp_user_timeout` is for one that was stopped while it received a long answer: the server is then
# sending, and knows no other limit.
SETTINGS: Final = {
    "idle_in_transaction_session_timeout": "2000",
    "statement_timeout": "30000",
    "lock_timeout": "10000",
    "client_connection_check_interval": "1000",
    "tcp_user_timeout": "5000",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_isolation": "read committed",
    "bytea_output": "hex",
    "array_nulls": "on",
    "timezone": "UTC",
}
_SINCE: Final = {"transaction_timeout": 170000}  # version of the server that a setting needs
_CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "poller",
    "client_encoding": "utf8",
}
_MARGIN: Final = 5.0  # seconds beyond the server's own limit of a statement, after which its answer is not waited for
_LOOKS: Final = 20  # at the sessions behind a pooler
_OPTION: Final = re.compile(r"(?:-c\s*|--)([\w.-]+)=")  # in `options` of a URL


class _TextDumper(StrDumper):
    """Removes NUL from texts, which PostgreSQL cannot store: a quoted answer may contain one."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


class _BinaryTextDumper(StrBinaryDumper):
    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


Answer = psycopg.RawCursor[tuple[Any, ...]]  # of one statement
R = TypeVar("R")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """One connection. Statements have parameters `$1`, `$2`, ...; answers come in binary.

    Each statement is waited for. Sent together, in a pipeline, they would be quicker; but between a statement and the
    end of its batch the server knows no time limit, and a worker that was stopped there would hold its locks for good.

    A connection that brings nothing for longer than the server takes for a statement is lost, and closed: a proxy that
    has lost the server may keep it open, and answer all that TCP asks.
    """

    silence: float | None = float(SETTINGS["statement_timeout"]) / 1000 + _MARGIN  # seconds; None: no limit
    _is_unlimited = False  # the transaction under way has no limit

    def wait(self, gen: Generator[Any, Any, R], *args: Any, **kwargs: Any) -> R:
        """See psycopg. Raises OperationalError after a silence that is too long."""
        if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self._is_unlimited = False
        if self.silence is None or self._is_unlimited:
            return super().wait(gen, *args, **kwargs)
        return super().wait(self._limited(gen, self.silence), *args, **kwargs)

    def lift_limits(self) -> None:
        """Let every further statement of the transaction under way take as long as it takes."""
        self.run("SET LOCAL statement_timeout = 0")
        self._is_unlimited = True

    def _limited(self, gen: Generator[Any, Any, R], seconds: float) -> Generator[Any, Any, R]:
        """The generator, ended once nothing has arrived for so long. Its waits are interrupted now and then."""
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > seconds:
                    self.close()
                    raise psycopg.OperationalError(f"no answer within {seconds:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return cast(R, end.value)

    def run(self, statement: str, values: Sequence[object] = ()) -> Answer:
        """Run one statement."""
        cursor = psycopg.RawCursor(self)
        cursor.execute(statement.encode(), values or None, binary=True)
        return cursor

    def row(self, statement: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of its answer."""
        return self.run(statement, values).fetchone()

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None if there is no row."""
        row = self.row(statement, values)
        return None if row is None else row[0]

    def changed(self, statement: str, values: Sequence[object] = ()) -> int:
        """The number of written rows."""
        return self.run(statement, values).rowcount


def connect(url: str, *, read_only: bool = False) -> Connection:
    """Open a new connection. Raises psycopg's errors, and StateError for a database that cannot store every text."""
    conn = _plain(url)
    try:
        _refuse_encoding(conn)
        _set(conn, url, read_only=read_only)
    except BaseException:
        conn.close()
        raise
    conn.adapters.register_dumper(str, _BinaryTextDumper)
    conn.adapters.register_dumper(str, _TextDumper)
    return conn


def _plain(url: str) -> Connection:
    """A connection without our settings."""
    return Connection.connect(**{**_CONNECT, **_read_url(url)}, autocommit=True)


def _read_url(url: str) -> dict[str, Any]:
    """The parts of a URL. The error quotes none of them: what is wrong is usually a password that is not quoted."""
    hint = "in its user and password, write @ as %40, / as %2F, ? as %3F, % as %25 and a space as %20"
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        parts = {"host": "@"}
        if "query parameter" in str(error):
            hint = f"leave out parameters after the ? that only other programs know, such as schema=; {hint}"
    if "@" in str(parts.get("host")):  # what follows the first @ of a password
        raise StateError("the URL of the database cannot be read", hint=hint) from None
    return parts


def _refuse_encoding(conn: Connection) -> None:
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StateError(
            f"the database has the encoding {encoding}, which cannot store every text",
            hint="create it by CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )


def _set(conn: Connection, url: str, *, read_only: bool) -> None:
    """Apply the settings, except for those in the URL, which have priority."""
    options = _read_url(url).get("options") or ""
    chosen = {name.replace("-", "_").lower() for name in _OPTION.findall(str(options))}
    settings = {**SETTINGS, "default_transaction_read_only": "on"} if read_only else SETTINGS
    version = conn.info.server_version
    ours = [name for name in settings if name not in chosen and version >= _SINCE.get(name, 0)]
    conn.run(
        "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)",
        [ours, [settings[name] for name in ours]],
    )
    if "statement_timeout" in chosen:
        seconds = float(conn.value("SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'statement_timeout'"))
        conn.silence = seconds + _MARGIN if seconds else None


def refuse_pooled(url: str) -> None:
    """Raise StateError if sessions of the server are shared by connections, as behind a pooler of transactions.

    Settings, notifications, prepared statements and locks of a session would belong to whoever uses it next. So this is
    found out before anything is set. Raises psycopg's errors.
    """
    with contextlib.closing(_plain(url)) as one, contextlib.closing(_plain(url)) as other:
        if _are_pooled(one, other):
            raise StateError(
                "a pooler gives one session of the database to several connections",
                hint="let it pool sessions instead of transactions, or connect to the database itself",
            )


def _are_pooled(*conns: Connection) -> bool:
    """Whether connections share a session, or one has several. A pooler that others use gives any free session to each
    statement, so it is looked at repeatedly, unless the sessions are those that the server named at the beginning.
    """
    sessions: list[set[int]] = [set() for _ in conns]
    for _ in range(_LOOKS):
        for conn, seen in zip(conns, sessions, strict=True):
            seen.add(conn.value("SELECT pg_backend_pid()"))
        if len(set().union(*sessions)) != len(conns) or any(len(seen) > 1 for seen in sessions):
            return True
        if all(seen == {conn.info.backend_pid} for conn, seen in zip(conns, sessions, strict=True)):
            return False
    return False


class Database:
    """One database, as one process uses it: a connection for each thread."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url = url
        self._read_only = read_only
        self._local = threading.local()
        self._opened: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._age = 0  # connections that are older are opened again

    @property
    def conn(self) -> Connection:
        """The connection of this thread. Raises psycopg's errors."""
        conn: Connection | None = getattr(self._local, "conn", None)
        if conn is not None and self._local.age != self._age:
            conn.close()
        if conn is None or conn.closed:
            if self._closed:
                raise StateError("the state is closed")
            self._local.age = self._age
            conn = self._local.conn = connect(self.url, read_only=self._read_only)
            with self._lock:
                self._opened = [*(one for one in self._opened if not one.closed), conn]
        return conn

    def run(self, statement: str, values: Sequence[object] = ()) -> Answer:
        """Run one statement, in a separate transaction unless one is under way."""
        return self.conn.run(statement, values)

    def row(self, statement: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of its answer."""
        return self.conn.row(statement, values)

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None if there is no row."""
        return self.conn.value(statement, values)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Let all reads within the block see one moment, despite concurrent writers."""
        conn = self.conn
        with conn.transaction():
            conn.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield conn

    def renew(self) -> None:
        """Open each connection again at its next use, because others were probably lost as well."""
        self._age += 1

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        with self._lock:
            opened, self._opened = self._opened, []
        for conn in opened:
            conn.close()


class Looking(Database):
    """A database for reading only; errors are raised as StateError.

    If a connection was lost since its last use, the read is made on a new one.
    """

    def run(self, statement: str, values: Sequence[object] = ()) -> Answer:
        """Run one statement. Raises StateError."""
        with translating():
            conn = self.conn
            is_alone = conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            try:
                return conn.run(statement, values)
            except psycopg.OperationalError:
                if not (is_alone and conn.closed):
                    raise
                return self.conn.run(statement, values)

    def row(self, statement: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of its answer. Raises StateError."""
        return self.run(statement, values).fetchone()

    def value(self, statement: str, values: Sequence[object] = ()) -> Any:
        """The first column of the first row; None if there is no row. Raises StateError."""
        row = self.row(statement, values)
        return None if row is None else row[0]

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """See `Database.snapshot`. Raises StateError."""
        with translating():
            self.run("SELECT 1")  # on a new connection if this one was lost
            with super().snapshot() as conn:
                yield conn


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Raise StateError for psycopg's errors in the block."""
    try:
        yield
    except psycopg.Error as error:
        ours = translated(error)
        if isinstance(ours, StateError):
            raise ours from error
        raise StateError(f"the state cannot be read: {error}", hint="poller doctor checks it") from error


@contextlib.contextmanager
def transaction(db: Database) -> Iterator[Connection]:
    """One transaction. A nested transaction is a part of the outer one, and is undone with it."""
    conn = db.conn
    if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        yield conn
        return
    with conn.transaction():
        yield conn


def probe(db: Database) -> None:
    """Write something, and delete it again. Raises the error that prevents writing the state."""
    with transaction(db) as conn:
        write_meta(conn, "probe", "x" * 100_000)
    with transaction(db) as conn:
        conn.run("DELETE FROM meta WHERE key = 'probe'")


def read_meta(db: Database | Connection, key: str) -> str | None:
    """The value stored under `key`, or None."""
    value = db.value("SELECT value FROM meta WHERE key = $1", [key])
    return None if value is None else str(value)


def write_meta(conn: Connection, key: str, value: str) -> None:
    """Store `value` under `key`, within the caller's transaction."""
    conn.run("INSERT INTO meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", [key, value])
