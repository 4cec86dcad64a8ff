"""A database as one side of a move. See `state.move`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from state.deliveries import SubscriptionLedger
from state.errors import Held
from state.move import MOVING, TABLES, Key, Mark, Row, Table, encoded_mark
from state.place import DatabaseUrl
from state.postgres import partitions
from state.postgres.connection import NOW, Connection, Database, refuse_pooled, translating, write_meta
from state.postgres.schema import MOVE_LOCK, migrate
from state.postgres.subscription_ledger import ledger

BYTES: Final = 4_000_000  # bytes of rows that are read at once
TYPES: Final = {"int": "int8", "float": "float8", "steady": "float8", "text": "text", "blob": "bytea", "bool": "bool"}


class PostgresSide:
    """One database, on one connection. Its lock ends with the connection."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._conn: Connection = db.conn

    def read(self, table: Table, after: Key | None, limit: int) -> list[Row]:
        """See `state.move.Side`."""
        key, columns = ", ".join(table.key), ", ".join(table.names)
        signs = ", ".join(f"${place}" for place, _ in enumerate(after or (), start=1))
        where = "" if after is None else f"WHERE ({key}) > ({signs})"
        blobs = [f"coalesce(octet_length({name}), 0)" for name, kind in table.columns if kind == "blob"]
        size = f"sum({' + '.join(blobs) or '0'}) OVER (ORDER BY {key} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        rows = self._conn.run(
            f"SELECT {columns} FROM (SELECT {columns}, {size} AS bytes_before FROM (SELECT {columns} FROM {table.name} "
            f"{where} ORDER BY {key} LIMIT {limit:d}) page) sized WHERE coalesce(bytes_before, 0) < {BYTES:d} "
            f"ORDER BY {key}",
            [*(after or ())],
        )
        return [tuple(row) for row in rows]

    def write(self, table: Table, rows: Sequence[Row], mark: Mark) -> None:
        """See `state.move.Side`."""
        more = {"leases": {"worker": ""}}.get(table.name, {})  # the owner of a lease is not moved
        columns = ", ".join([*table.names, *more])
        types = [self._type(table, name, kind) for name, kind in table.columns] + ["text" for _ in more]
        with self._conn.transaction():
            cursor = self._conn.cursor()
            with cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN (FORMAT binary)".encode()) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row((*row, *more.values()))
            write_meta(self._conn, MOVING, encoded_mark(mark))

    @staticmethod
    def _type(table: Table, name: str, kind: str) -> str:
        return "int2" if (table.name, name) == ("objects", "presence") else TYPES[kind]

    def count(self, table: Table) -> int:
        """See `state.move.Side`."""
        return int(self._conn.value(f"SELECT count(*) FROM {table.name}"))

    def numbers(self) -> dict[str, int]:
        """See `state.move.Side`."""
        return {table.name: self._number(table) for table in TABLES if table.serial}

    def _number(self, table: Table) -> int:
        if table.name == "events":
            return int(self._conn.value("SELECT last FROM log"))
        given = "pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass)"
        return int(
            self._conn.value(
                f"SELECT greatest(coalesce({given}, 0), (SELECT coalesce(max(id), 0) FROM {table.name}))", [table.name]
            )
        )

    def complete(self, numbers: Mapping[str, int], meta: Mapping[str, str]) -> None:
        """See `state.move.Side`."""
        with self._conn.transaction():
            self._conn.run("UPDATE log SET last = $1", [numbers["events"]])
            for name, number in numbers.items():
                if name != "events" and number:
                    self._conn.run("SELECT setval(pg_get_serial_sequence($1, 'id'), $2)", [name, number])
            for key, value in meta.items():
                write_meta(self._conn, key, value)

    def meta(self) -> dict[str, str]:
        """See `state.move.Side`."""
        found: dict[str, str] = dict(self._conn.run("SELECT key, value FROM meta").fetchall())
        return found

    def write_meta(self, key: str, value: str | None) -> None:
        """See `state.move.Side`."""
        with self._conn.transaction():
            if value is None:
                self._conn.run("DELETE FROM meta WHERE key = $1", [key])
            else:
                write_meta(self._conn, key, value)

    def clear(self, mark: Mark) -> None:
        """See `state.move.Side`."""
        with self._conn.transaction():
            self._conn.run(f"TRUNCATE {', '.join(table.name for table in TABLES)} RESTART IDENTITY")
            partitions.reset(self._conn)
            self._conn.run("UPDATE log SET last = 0")
            self._conn.run("DELETE FROM meta WHERE key != 'log_id'")
            write_meta(self._conn, MOVING, encoded_mark(mark))

    def ledger(self) -> list[SubscriptionLedger]:
        """See `state.move.Side`."""
        return ledger(self._db)

    def now(self) -> float:
        """See `state.move.Side`."""
        return float(self._conn.value(f"SELECT {NOW}"))


@contextlib.contextmanager
def opened(url: str) -> Iterator[PostgresSide]:
    """A database in a move, created and migrated if needed. Raises Held while workers run on it."""
    db = Database(url)
    try:
        with translating():
            refuse_pooled(url)
            migrate(db)
            db.run("SET statement_timeout = 0")  # a large table is counted
            db.conn.silence = None
            _hold(db.conn, str(DatabaseUrl(url)))
            yield PostgresSide(db)
    finally:
        db.close()


def _hold(conn: Connection, shown: str) -> None:
    """Prevent that a worker starts or another move begins while this connection exists."""
    if not conn.value("SELECT pg_try_advisory_lock($1)", [MOVE_LOCK]):
        raise Held(f"{shown}: another `poller migrate` uses this database", hint="wait for it")
    workers: list[Any] = [name for (name,) in conn.run(f"SELECT name FROM workers WHERE until > {NOW} ORDER BY name")]
    if workers:
        raise Held(f"{shown}: workers run on it ({', '.join(workers)})", hint="stop all of them first")
