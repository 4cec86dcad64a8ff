"""The stores that the contract suite runs over, each with what a test has to see beside the protocols."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from state.leases import FOREVER, LOCAL, Lease, Worker, subscription_lease
from state.postgres.connection import Connection, transaction
from state.postgres.store import Reader as PostgresReader
from state.postgres.store import Store as PostgresStore
from state.sqlite.store import Reader as SqliteReader
from state.sqlite.store import Store as SqliteStore
from state.store import Reader, Store
from tests.support.postgres import Server, running_server


def failures_of(*acts: Callable[[], object]) -> list[BaseException]:
    """Do all of it at once, each in a thread of its own, and return what was raised."""
    failures: list[BaseException] = []

    def do(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - shown in the thread of the test
            failures.append(error)

    threads = [threading.Thread(target=do, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


COUNTERS = ("migrations", "log")  # tables whose rows say nothing about what is kept


class Backend(Protocol):
    """One state, which several workers may open."""

    slowness: int  # how many times longer a step takes than with the quickest store

    def open(self, *, pending_limit: int | None = None) -> Store:
        """The state, as one more worker has it."""
        ...

    def look(self) -> Reader:
        """The state, as who only looks at it has it."""
        ...

    def dump(self) -> str:
        """All that is kept, as text."""
        ...

    def run(self, statement: str) -> None:
        """Run one statement of SQL that every store knows, past the store."""
        ...

    def work(self, store: Store, step: Callable[[], object]) -> int:
        """How much the store works for a step, as a count that no machine's speed changes."""
        ...

    def close(self) -> None:
        """Close everything."""
        ...


class SqliteBackend:
    """A state file."""

    slowness = 1

    def __init__(self, folder: Path) -> None:
        self._path = folder / "poller.db"
        self._stores: list[SqliteStore] = []
        self._readers: list[SqliteReader] = []

    def open(self, *, pending_limit: int | None = None) -> SqliteStore:
        store = SqliteStore.open(self._path, now=0.0)
        store.db.execute("PRAGMA synchronous = OFF")  # no machine goes down in a test
        store.deliveries._limit = pending_limit or store.deliveries._limit
        self._stores.append(store)
        return store

    def look(self) -> SqliteReader:
        reader = SqliteReader.open(self._path)
        self._readers.append(reader)
        return reader

    def dump(self) -> str:
        conn = self._stores[0].db.conn
        assert conn is not None
        return "\n".join(conn.iterdump())

    def run(self, statement: str) -> None:
        self._stores[0].db.execute(statement)

    def work(self, store: Store, step: Callable[[], object]) -> int:
        assert isinstance(store, SqliteStore)
        conn, ticks = store.db.conn, 0
        assert conn is not None

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        conn.set_progress_handler(tick, 10)
        try:
            step()
        finally:
            conn.set_progress_handler(None, 0)
        return ticks

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        for store in self._stores:
            store.close()


READ: Final = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_xact_user_tables"


class PostgresBackend:
    """A database of a server that all tests share."""

    slowness = 10

    _server: Server | None = None
    _running: Iterator[Server] | None = None
    _template = ""

    def __init__(self, folder: Path) -> None:
        self.server = self.started()
        self._database = self.server.database(self._template)
        # A machine with much to do may be slow within a transaction, and none is stopped there.
        self.url = f"{self._database}?options=-c%20idle_in_transaction_session_timeout%3D60000"
        self._stores: list[PostgresStore] = []
        self._readers: list[PostgresReader] = []

    @classmethod
    def started(cls) -> Server:
        """The server, started at the first use, with a database that has the tables."""
        if cls._server is None:
            cls._running = _started()
            cls._server = next(cls._running)
            url = cls._server.database()
            PostgresStore.open(url).close()
            cls._template = url.rpartition("/")[2]
        return cls._server

    @classmethod
    def end(cls) -> None:
        """Stop the server, if it was started."""
        if cls._running is not None:
            for _ in cls._running:
                raise AssertionError
        cls._running = cls._server = None

    def open(self, *, pending_limit: int | None = None) -> PostgresStore:
        store = PostgresStore.open(self.url)
        store.deliveries._limit = pending_limit or store.deliveries._limit
        self._stores.append(store)
        return store

    def look(self) -> PostgresReader:
        reader = PostgresReader.open(self.url)
        self._readers.append(reader)
        return reader

    def dump(self) -> str:
        return "\n".join(f"{name}: {rows}" for name, rows in self._tables(self._stores[0].db.conn))

    def _tables(self, conn: Connection) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        names = conn.run("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        for name in sorted(name for (name,) in names if name not in COUNTERS):
            yield name, sorted(conn.run(f"SELECT * FROM {name}").fetchall(), key=repr)

    def run(self, statement: str) -> None:
        self._stores[0].db.run(statement)

    def work(self, store: Store, step: Callable[[], object]) -> int:
        """Rows that its statements read."""
        assert isinstance(store, PostgresStore)
        store.db.run("ANALYZE")
        with transaction(store.db) as conn:
            before = int(conn.value(READ))  # what earlier transactions have read stays in it for up to a second
            step()
            return int(conn.value(READ)) - before

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        for store in self._stores:
            store.close()
        self.server.drop(self._database)


def _started() -> Iterator[Server]:
    with running_server() as server:
        yield server


BACKENDS: dict[str, Callable[[Path], Backend]] = {"postgres": PostgresBackend, "sqlite": SqliteBackend}


@contextmanager
def opened_backend(name: str, folder: Path) -> Iterator[Backend]:
    """A state of one kind, empty."""
    backend = BACKENDS[name](folder)
    try:
        yield backend
    finally:
        backend.close()


def own(store: Store, name: str, worker: Worker = LOCAL, *, ttl: float = FOREVER) -> Lease:
    """The lease of a subscription, taken."""
    [lease] = store.leases.take(worker, [subscription_lease(name)], most=1, ttl=ttl)
    return lease
