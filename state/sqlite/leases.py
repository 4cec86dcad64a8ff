"""Leases of budgets and subscriptions, each under an epoch that rises with every owner."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from state.errors import LeaseLost
from state.leases import Lease, Shares, Worker, WorkerState
from state.sqlite.connection import State, transaction
from state.sqlite.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

lease_migrations = Migrations("leases")

NOW = "(julianday('now') - 2440587.5) * 86400"  # Unix seconds of the store's own clock


@lease_migrations()
def create_leases(db: Database) -> None:
    db.executescript(
        "CREATE TABLE leases (name TEXT PRIMARY KEY, worker TEXT NOT NULL, epoch INTEGER NOT NULL, until REAL NOT NULL)"
        " WITHOUT ROWID;"
    )


def check(conn: sqlite3.Connection, lease: Lease) -> None:
    """Raise LeaseLost if another worker owns it now, within the transaction that writes what it guards."""
    row = conn.execute("SELECT worker, epoch FROM leases WHERE name = ?", [lease.name]).fetchone()
    if row != (lease.worker, lease.epoch):
        owner = "nobody owns it" if row is None or not row[0] else f"{row[0]} owns it since epoch {row[1]}"
        raise LeaseLost(f"{lease.name}: {owner}, and not {lease.worker} of epoch {lease.epoch} any more")


class LeaseTable:
    """The leases of one state file. A lease belongs to one worker at a time; `check` refuses writes of other
    workers.
    """

    def __init__(self, db: State) -> None:
        self._db = db

    def take(self, worker: Worker, wanted: Sequence[str], *, most: int, ttl: float) -> list[Lease]:
        """Take at most `most` of the wanted leases: free or expired ones, and own ones from before a restart."""
        taken: list[Lease] = []
        with transaction(self._db) as conn:
            for name in wanted:
                if len(taken) == most:
                    break
                row = conn.execute(
                    f"INSERT INTO leases VALUES (?1, ?2, 1, {NOW} + ?3) ON CONFLICT (name) DO UPDATE SET "
                    "worker = excluded.worker, epoch = epoch + 1, until = excluded.until "
                    f"WHERE worker IN ('', ?2) OR until <= {NOW} RETURNING epoch, until",
                    [name, worker, ttl],
                ).fetchone()
                if row is not None:
                    taken.append(Lease(name=name, worker=worker, epoch=row[0], until=row[1]))
        return taken

    def renew(self, worker: Worker, *, ttl: float) -> list[Lease]:
        """Renew every lease that this worker still holds for another `ttl` seconds, and return them."""
        with transaction(self._db) as conn:
            rows = conn.execute(
                f"UPDATE leases SET until = {NOW} + ? WHERE worker = ? AND until > {NOW} RETURNING name, epoch, until",
                [ttl, worker],
            ).fetchall()
        return [Lease(name=name, worker=worker, epoch=epoch, until=until) for name, epoch, until in rows]

    def give_up(self, leases: Sequence[Lease]) -> None:
        """Let other workers take these leases at once. A lease that another worker has taken remains theirs."""
        with transaction(self._db) as conn:
            conn.executemany(
                "UPDATE leases SET worker = '', until = 0 WHERE name = ? AND worker = ? AND epoch = ?",
                [(lease.name, lease.worker, lease.epoch) for lease in leases],
            )

    def enrol(self, worker: WorkerState, *, ttl: float) -> None:
        """Does nothing: a file has one worker, which holds its lock."""

    def leave(self, worker: Worker) -> None:
        """See `enrol`."""

    def shares(self) -> Shares:
        """The owners by lease; nothing is known of workers."""
        rows = self._db.execute(f"SELECT name, worker, epoch, until FROM leases WHERE worker != '' AND until > {NOW}")
        owners = {
            name: Lease(name=name, worker=worker, epoch=epoch, until=until) for name, worker, epoch, until in rows
        }
        return Shares(workers=(), owners=owners)
