"""Leases of budgets and subscriptions, each under an epoch that rises with every owner. Times are the database's.

A step locks the row of its lease until it commits, so that nobody takes the lease meanwhile: with KEY SHARE, which
does not hold up a renewal.
"""

from __future__ import annotations

from collections.abc import Sequence

from state.errors import LeaseLost
from state.leases import Lease, Worker
from state.postgres.connection import NOW, Connection, Database, transaction


def check(conn: Connection, lease: Lease) -> None:
    """Raise LeaseLost where somebody else owns it by now, within the transaction that writes what it guards."""
    row = conn.row("SELECT worker, epoch FROM leases WHERE name = $1 FOR KEY SHARE", [lease.name])
    if row != (lease.worker, lease.epoch):
        owner = "nobody owns it" if row is None or not row[0] else f"{row[0]} owns it since epoch {row[1]}"
        raise LeaseLost(f"{lease.name}: {owner}, and not {lease.worker} of epoch {lease.epoch} any more")


class LeaseTable:
    """The leases of one database. A lease belongs to one worker at a time; `check` refuses what others write."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, worker: Worker, wanted: Sequence[str], *, most: int, ttl: float) -> list[Lease]:
        """At most `most` of the wanted leases that are free, expired, or this worker's own from before a restart."""
        if most < 1 or not wanted:
            return []
        with transaction(self._db) as conn:
            conn.run(
                "INSERT INTO leases SELECT name, '', 0, 0 FROM unnest($1::text[]) AS name "
                "WHERE name NOT IN (SELECT l.name FROM leases l) ORDER BY name ON CONFLICT DO NOTHING",
                [list(wanted)],
            )
            free = conn.run(
                "SELECT name FROM leases JOIN unnest($2::text[]) WITH ORDINALITY AS wanted (name, place) USING (name) "
                f"WHERE worker IN ('', $1) OR until <= {NOW} ORDER BY place LIMIT $3",
                [worker, list(wanted), most],
            ).fetchall()
            # Locked in the order of their names, and looked at again: another worker may have been quicker.
            names = [
                name
                for (name,) in conn.run(
                    f"SELECT name FROM leases WHERE name = ANY($2::text[]) AND (worker IN ('', $1) OR until <= {NOW}) "
                    "ORDER BY name FOR UPDATE",
                    [worker, [name for (name,) in free]],
                )
            ]
            rows = conn.run(
                f"UPDATE leases SET worker = $1, epoch = epoch + 1, until = {NOW} + $2::float8 "
                "WHERE name = ANY($3::text[]) RETURNING name, epoch, until",
                [worker, ttl, names],
            ).fetchall()
        found = {name: Lease(name=name, worker=worker, epoch=epoch, until=until) for name, epoch, until in rows}
        return [found[name] for name in wanted if name in found]

    def renew(self, worker: Worker, *, ttl: float) -> list[Lease]:
        """Every lease that this worker still holds, for `ttl` seconds more."""
        rows = self._db.run(
            f"UPDATE leases SET until = {NOW} + $1::float8 WHERE worker = $2 AND until > {NOW} "
            "RETURNING name, epoch, until",
            [ttl, worker],
        )
        return [Lease(name=name, worker=worker, epoch=epoch, until=until) for name, epoch, until in rows]

    def give_up(self, leases: Sequence[Lease]) -> None:
        """Let others take them at once. A lease that is already another's stays theirs."""
        if leases:
            self._db.run(
                "UPDATE leases SET worker = '', until = 0 FROM unnest($1::text[], $2::bigint[]) AS given (name, epoch) "
                "WHERE leases.name = given.name AND leases.epoch = given.epoch AND worker = $3",
                [[one.name for one in leases], [one.epoch for one in leases], leases[0].worker],
            )
