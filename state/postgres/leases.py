"""Leases of budgets and subscriptions, each under an epoch that rises with every owner. Times are the database's.

A lease lasts as long as its worker is alive: one row is renewed, however many leases there are. A worker that was
declared lost owns nothing any more, even if no other worker has taken it yet.

A step locks the row of its lease until it commits, so that no worker takes the lease meanwhile. The lock is KEY SHARE,
which does not delay renewals.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from state.errors import LeaseLost
from state.leases import CONFIGURATION, Lease, Shares, Worker, WorkerState
from state.postgres.connection import NOW, Answer, Connection, Database, transaction
from state.postgres.time import DatabaseTime

REMEMBERED: Final = 3600.0  # seconds for which a lost worker is kept in the table

# A lease that no live worker holds, or that this worker ($1) holds itself.
FREE: Final = (
    "(leases.worker IN ('', $1) OR NOT EXISTS "
    f"(SELECT 1 FROM workers w WHERE w.name = leases.worker AND w.until > {NOW}))"
)


# One value for all of the leases, which is another one if any of them is taken, lost or given up.
SUM: Final = "coalesce(sum(hashtextextended(concat_ws(' ', name, worker, epoch), 0)), 0)::text"


def check(conn: Connection, lease: Lease) -> None:
    """Raise LeaseLost if another worker owns it now, within the transaction that writes what it guards."""
    judge(ask(conn, lease), lease)


def ask(conn: Connection, lease: Lease) -> Answer:
    """Ask who owns a lease, and lock it until the commit. `judge` reads the answer."""
    return conn.run("SELECT worker, epoch FROM leases WHERE name = $1 FOR KEY SHARE", [lease.name])


def judge(answer: Answer, lease: Lease) -> None:
    """Raise LeaseLost if another worker owns it."""
    row = answer.fetchone()
    if row != (lease.worker, lease.epoch):
        owner = "nobody owns it" if row is None or not row[0] else f"{row[0]} owns it since epoch {row[1]}"
        raise LeaseLost(f"{lease.name}: {owner}, and not {lease.worker} of epoch {lease.epoch} any more")


class LeaseTable:
    """The leases of one database. A lease belongs to one worker at a time; `check` refuses writes of others."""

    def __init__(self, db: Database, clock: DatabaseTime | None = None) -> None:
        self._db = db
        self._clock = clock  # follows the database's with every renewal
        self._held: tuple[object, list[tuple[str, int]]] = (None, [])  # leases of a worker, and their sum
        self._owned: tuple[object, Mapping[str, Lease]] = (None, {})  # leases of all workers, and their sum

    def take(self, worker: Worker, wanted: Sequence[str], *, most: int, ttl: float) -> list[Lease]:
        """Take at most `most` of the wanted leases: free or expired ones, and own ones from before a restart.

        A lease that a step of its earlier owner still uses is left out rather than waited for.
        """
        if most < 1 or not wanted:
            return []
        with transaction(self._db) as conn:
            until = _live(conn, worker, ttl)
            conn.run(
                "INSERT INTO leases SELECT name, '', 0 FROM unnest($1::text[]) AS name "
                "WHERE name NOT IN (SELECT l.name FROM leases l) ORDER BY name ON CONFLICT DO NOTHING",
                [list(wanted)],
            )
            free = conn.run(
                "SELECT name FROM leases JOIN unnest($2::text[]) WITH ORDINALITY AS wanted (name, place) USING (name) "
                f"WHERE {FREE} ORDER BY place LIMIT $3",
                [worker, list(wanted), most],
            ).fetchall()
            # Checked again, because another worker may have been faster. An earlier owner that was stopped within a
            # step locks its leases until the database ends the transaction: the other leases must not wait for that.
            names = [
                name
                for (name,) in conn.run(
                    f"SELECT name FROM leases WHERE name = ANY($2::text[]) AND {FREE} "
                    "ORDER BY name FOR UPDATE SKIP LOCKED",
                    [worker, [name for (name,) in free]],
                )
            ]
            rows = conn.run(
                "UPDATE leases SET worker = $1, epoch = epoch + 1 WHERE name = ANY($2::text[]) RETURNING name, epoch",
                [worker, names],
            ).fetchall()
        found = {name: Lease(name=name, worker=worker, epoch=epoch, until=until) for name, epoch in rows}
        return [found[name] for name in wanted if name in found]

    def renew(self, worker: Worker, *, ttl: float) -> list[Lease]:
        """Renew every lease that this worker still holds for another `ttl` seconds, and return them."""
        before = time.time()
        row = self._db.row(
            f"WITH alive AS (UPDATE workers SET until = {NOW} + $1::float8 WHERE name = $2 AND until > {NOW} "
            f"RETURNING until) SELECT until, (SELECT {SUM} FROM leases WHERE worker = $2) FROM alive",
            [ttl, worker],
        )
        if row is None:
            return []
        until, total = row
        if self._clock is not None:
            self._clock.heard(until - ttl, before)
        if self._held[0] != (worker, total):
            rows = self._db.run("SELECT name, epoch FROM leases WHERE worker = $1", [worker]).fetchall()
            self._held = (worker, total), rows
        return [Lease(name=name, worker=worker, epoch=epoch, until=until) for name, epoch in self._held[1]]

    def give_up(self, leases: Sequence[Lease]) -> None:
        """Let other workers take these leases at once. A lease that another worker has taken remains theirs."""
        if leases:
            self._db.run(
                "UPDATE leases SET worker = '' FROM unnest($1::text[], $2::bigint[]) AS given (name, epoch) "
                "WHERE leases.name = given.name AND leases.epoch = given.epoch AND worker = $3",
                [[one.name for one in leases], [one.epoch for one in leases], leases[0].worker],
            )

    def enrol(self, worker: WorkerState, *, ttl: float) -> None:
        """Make this worker visible to the others for `ttl` seconds; each `renew` extends that."""
        with transaction(self._db) as conn:
            _live(conn, worker.name, ttl)
            conn.run(
                "UPDATE workers SET version = $2, digest = $3, listen = $4, lacks = $5::text[] WHERE name = $1",
                [worker.name, worker.version, worker.digest, worker.listen, list(worker.lacks)],
            )
            conn.run(f"DELETE FROM workers WHERE until < {NOW} - $1::float8", [REMEMBERED])
            if worker.digest:
                again = "UPDATE SET value = excluded.value" if worker.is_reloaded else "NOTHING"
                conn.run(
                    f"INSERT INTO meta VALUES ($1, {NOW}::text) ON CONFLICT (key) DO {again}",
                    [f"{CONFIGURATION}{worker.digest}"],
                )

    def leave(self, worker: Worker) -> None:
        """Show the other workers at once that this worker is gone; everything that it still owns is free."""
        self._db.run("DELETE FROM workers WHERE name = $1", [worker])

    def shares(self) -> Shares:
        """The workers of the state, and what each owns.

        Where nothing has changed but times, the leases are those of the look before: `WorkerState.left` is of now.
        """
        rows = self._db.run(
            f"SELECT name, version, digest, listen, lacks, since, until - {NOW}, until "
            f"FROM workers WHERE until > {NOW} ORDER BY since, name"
        ).fetchall()
        newest = self._db.value(
            "SELECT w.digest FROM workers w LEFT JOIN meta m ON m.key = $1 || w.digest "
            f"WHERE w.until > {NOW} AND w.digest != '' "
            "ORDER BY coalesce(m.value::float8, 0) DESC, w.digest LIMIT 1",
            [CONFIGURATION],
        )
        return Shares(
            newest=newest or "",
            workers=tuple(
                WorkerState(
                    name=name,
                    version=version,
                    digest=digest,
                    listen=listen,
                    lacks=tuple(lacks),
                    since=since,
                    left=left,
                )
                for name, version, digest, listen, lacks, since, left, _ in rows
            ),
            owners=self._owners({row[0]: row[-1] for row in rows}),
        )

    def _owners(self, ends: Mapping[Worker, float]) -> Mapping[str, Lease]:
        """The leases of these workers, which end at these times; read again if any lease has changed."""
        total = self._db.value(f"SELECT {SUM} FROM leases"), frozenset(ends)
        if self._owned[0] != total:
            owned = self._db.run("SELECT name, worker, epoch FROM leases WHERE worker = ANY($1::text[])", [[*ends]])
            leases = {
                name: Lease(name=name, worker=worker, epoch=epoch, until=ends[worker]) for name, worker, epoch in owned
            }
            self._owned = total, leases
        return self._owned[1]


def _live(conn: Connection, worker: Worker, ttl: float) -> float:
    """Mark a worker as alive for `ttl` seconds. If it was not alive, everything that it owned before is free.

    Its row is locked first: it may say on one connection that it lives while it takes its first leases on another.
    """
    is_alive = conn.value(
        "INSERT INTO workers (name, until, since, knows_partitions) VALUES ($1, 0, 0, true) "
        f"ON CONFLICT (name) DO UPDATE SET knows_partitions = true RETURNING until > {NOW}",
        [worker],
    )
    if not is_alive:
        conn.run("UPDATE leases SET worker = '' WHERE worker = $1", [worker])
    until = conn.value(
        f"UPDATE workers SET until = {NOW} + $1::float8, since = CASE WHEN $3 THEN since ELSE {NOW} END "
        "WHERE name = $2 RETURNING until",
        [ttl, worker, is_alive],
    )
    return float(until)
