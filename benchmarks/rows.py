"""What one call, object, event and delivery costs a PostgreSQL database: bytes of tables, of indexes and of WAL.

The steps are those that workers take, in their usual batches, on a server with full-page writes and replication as by
default. `docs/scale.md` computes with these figures: `python -m benchmarks.rows` prints them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from msgspec import structs

from state.deliveries import (
    AttemptOutcome,
    AttemptRow,
    Claim,
    ClaimRequest,
    Dispatched,
    Match,
    Registration,
    Release,
    Settlement,
)
from state.leases import FOREVER, LOCAL, budget_lease, subscription_lease
from state.polls import EndpointSpec, PollRecord, Recording, Snapshot, UnitState, UnitTimes
from state.postgres.store import Store
from state.records import NewEvent
from tests.support.postgres import running_server

SETTINGS: Final = ("fsync=off", "shared_buffers=128MB", "jit=off", "wal_level=replica", "autovacuum=off")
NOW: Final = 1_700_000_000.0
UNITS: Final = 50
PAGE: Final = 100  # objects of a unit
BODY: Final = {"name": "Quince", "note": "x" * 300}  # with the id: about 350 bytes
TABLES: Final = {
    "call": ("calls",),
    "object": ("objects", "units"),
    "event": ("events",),
    "delivery": ("deliveries", "attempts", "lanes"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Bytes for one."""

    what: str
    kept: float  # tables and indexes
    wal: float

    def __str__(self) -> str:
        return f"{self.what:40}{self.kept:8.0f} B kept {self.wal:8.0f} B of WAL"


class Meter:
    """Measures what a number of steps leaves behind."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def cost(self, what: str, count: int, tables: tuple[str, ...], act: Callable[[], None]) -> Cost:
        """Of one of `count` that `act` makes. The tables are packed afterwards, as autovacuum would keep them."""
        db = self._store.db
        db.run("CHECKPOINT")
        size, place = self._size(tables), db.value("SELECT pg_current_wal_insert_lsn()::text")
        act()
        wal = float(db.value("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)", [place]))
        db.run("VACUUM")
        return Cost(what=what, kept=(self._size(tables) - size) / count, wal=wal / count)

    def _size(self, tables: tuple[str, ...]) -> int:
        query = (
            "SELECT sum(pg_total_relation_size(coalesce(part.relid, name::regclass))) FROM unnest($1::text[]) name "
            "LEFT JOIN LATERAL pg_partition_tree(name::regclass) part ON true"
        )
        return int(self._store.db.value(query, [list(tables)]))


class Shop:
    """One endpoint of 50 pages, as whoever polls it records it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        (self.lease,) = store.leases.take(LOCAL, [budget_lease("shop")], most=1, ttl=FOREVER)
        spec = EndpointSpec(
            source="shop", name="items", shape="x", units=[(f"page {n}", b'{"page":%d}' % n) for n in range(UNITS)]
        )
        opened = store.polls.open(spec, now=NOW)
        self._endpoint, self.units = opened.state.id, opened.units

    def record(self, unit: UnitState, version: int, changed: int) -> None:
        """A poll of a page that shows so many new or changed objects."""
        state = self._store.polls.reopen(self._endpoint).state
        snapshots = [self._snapshot(unit, place, version) for place in range(changed)]
        members = {
            f"{unit.id}-{place}-{version}".encode().ljust(16, b"."): f"{unit.id}-{place}" for place in range(PAGE)
        }
        events = [self._event(one) for one in snapshots] if version else []
        asked = structs.replace(unit, asked_at=NOW, answered_at=NOW, asked_order=version + 5, shown=PAGE)
        poll = PollRecord(
            unit=asked, members=members, snapshots=snapshots, events=events, growth=0 if version else changed
        )
        base = Recording(endpoint=state.id, base=state.revision, sweep=state.sweep, at=NOW, polls=(poll,))
        self._store.polls.record(self.lease, base)

    @staticmethod
    def _snapshot(unit: UnitState, place: int, version: int) -> Snapshot:
        name = f"{unit.id}-{place}"
        body = orjson.dumps({"id": name, "version": version, **BODY})
        return Snapshot(object_id=name, version=version, body=body, unit=unit.id, seen_at=NOW)

    @staticmethod
    def _event(one: Snapshot) -> NewEvent:
        changes = [{"path": "/version", "before": one.version - 1, "after": one.version}]
        raw = orjson.dumps({"object": orjson.loads(one.body), "version": one.version, "changes": changes})
        return NewEvent(
            id=f"{one.object_id}-{one.version}".ljust(26, "x"),
            source="/sources/shop",
            type="shop.items.updated",
            subject=f"items/{one.object_id}",
            time=NOW,
            observed_after=NOW - 60.0,
            raw=raw,
        )

    def call(self, unit: UnitState, order: int) -> None:
        """A call, with the answer and the unchanged page of the one before."""
        times = [UnitTimes(unit=unit.id, asked_at=NOW, answered_at=NOW, asked_order=order)]
        self._last = self._store.calls.spend(
            self.lease, NOW, answers=[(self._last, NOW)] if order > 1000 else [], unchanged=times
        )

    _last = 0


def deliver(store: Store, events: int) -> None:
    """Everything in the log to one subscription, in batches of 100."""
    (lease,) = store.leases.take(LOCAL, [subscription_lease("crm")], most=1, ttl=FOREVER)
    batch = Settlement(now=NOW)
    given = 0
    while given < events:
        for feed in store.deliveries.feeds([lease], now=NOW):
            read = store.deliveries.read(feed.cursor, 100)
            matches = tuple(Match(seq=one.seq, lane=one.subject, due=NOW) for one in read)
            store.deliveries.dispatch(lease, [Dispatched(feed=feed, upto=read[-1].seq, matches=matches)], now=NOW)
        claims = store.deliveries.settle(lease, batch, ClaimRequest(deliveries=100)).claims
        given += sum(len(one.jobs) for one in claims)
        batch = Settlement(
            now=NOW,
            settled=tuple(_delivered(one) for one in claims),
            released=tuple(Release(lane=one.lane, due=None) for one in claims),
        )
    store.deliveries.settle(lease, batch)


def _delivered(one: Claim) -> AttemptOutcome:
    row = AttemptRow(number=1, at=NOW, latency=0.05, status="204")
    ids = tuple(job.id for job in one.jobs)
    return AttemptOutcome(
        lane=one.lane, ids=ids, digest=len(ids) > 1, state="delivered", retries=0, refusals=0, attempt=row
    )


def measured(store: Store) -> list[Cost]:
    """Every cost, on an empty database."""
    store.deliveries.register([Registration(name="crm", start="beginning")], now=NOW)
    shop, meter = Shop(store), Meter(store)

    def sweep(version: int, changed: int) -> None:
        for unit in shop.units:
            shop.record(unit, version, changed)

    def calls() -> None:
        for order in range(1000, 3000):
            shop.call(shop.units[order % UNITS], order)

    objects = UNITS * PAGE
    return [
        meter.cost("object, at its first sweep", objects, TABLES["object"], lambda: sweep(0, PAGE)),
        meter.cost("call of an unchanged page", 2000, TABLES["call"], calls),
        meter.cost("event, 1 on a page", UNITS, TABLES["event"], lambda: sweep(1, 1)),
        meter.cost("event, 100 on a page", objects, TABLES["event"], lambda: sweep(2, PAGE)),
        meter.cost("delivery", objects + UNITS, TABLES["delivery"], lambda: deliver(store, objects + UNITS)),
    ]


def main() -> int:
    """Print the costs."""
    with running_server(settings=SETTINGS) as server:
        store = Store.open(server.database())
        try:
            for cost in measured(store):
                print(cost)
        finally:
            store.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
