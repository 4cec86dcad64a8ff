"""The log in partitions: prepared ahead, dropped by retention with the books, and divided while an upgrade rolls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import psycopg
import pytest

import state.postgres.schema as schema
from state.deliveries import Registration
from state.errors import Conflict, Held
from state.leases import LOCAL, Worker, budget_lease
from state.move import move
from state.open import open_side
from state.place import DatabaseUrl
from state.polls import EndpointSpec, PollRecord, Recording
from state.postgres import partitions
from state.postgres.claims import CLAIM
from state.postgres.connection import transaction
from state.postgres.partitions import LEAST, cut, is_divided
from state.postgres.store import Store
from tests.store.test_delivery_contract import (
    NOW,
    History,
    balanced,
    claim,
    opened,
    purge,
    read_on,
    record,
    seqs,
    settle,
)
from tests.support.bench import make_event
from tests.support.stores import PostgresBackend, failures_of, own

TABLES = tuple(partitions.FAMILIES)
OLD = NOW + 1e6  # a time before which everything is that `record` has recorded
APPEND_BEFORE = (  # as the version before partitions has it
    "INSERT INTO events (seq, id, source, type, subject, time, data) VALUES ($1, $2, '/sources/acme', 'x', 'items/x', "
    "$3::float8, '{}') ON CONFLICT (id) DO NOTHING"
)


def parts(store: Store, table: str = "events") -> list[tuple[int | None, int | None]]:
    return [(one.lower, one.upper) for one in partitions.partitions(store.db, table)]


def end_partitions(store: Store, *, room: int = 0) -> None:
    """Begin new partitions after the last number of the log, and after so many others."""
    with partitions.held_if_busy(), transaction(store.db) as conn:
        partitions.wait_for_others(conn)
        partitions.lock_subscriptions(conn)
        conn.run("SET LOCAL lock_timeout = '500ms'")
        partitions._lock_tables(conn)
        given = int(conn.value("SELECT coalesce(pg_sequence_last_value('deliveries_number'), 0)"))
        last = store.log.last_seq() + room
        for table, number in (("events", last), ("finished_deliveries", last), ("attempts", given)):
            if (partitions.partitions(conn, table)[-1].lower or 0) <= number:
                cut(conn, table, number + 1)


def delivered(store: Store, objects: str, *, first: int) -> None:
    """These events, recorded and delivered."""
    lease = own(store, "crm")
    record(store, objects, first=first)
    while read_on(store, lease):
        pass
    for one in claim(store, lease):
        settle(store, lease, one, "delivered")


def attempts(store: Store) -> int:
    return int(store.db.value("SELECT count(*) FROM attempts"))


# Made ahead.


def test_the_next_partition_begins_before_the_last_one_is_full(backend: PostgresBackend) -> None:
    store = backend.open()
    assert {table: parts(store, table) for table in TABLES} == {table: [(None, None)] for table in TABLES}
    now = store.wall()

    store.deliveries.prepare(now - 86_400)
    assert parts(store) == parts(store, "finished_deliveries") == [(None, LEAST + 1), (LEAST + 1, None)]
    store.deliveries.prepare(now - 86_400)
    store.db.run("UPDATE log SET last = $1", [LEAST // 2])
    store.deliveries.prepare(now - 86_400)
    assert len(parts(store)) == 2
    store.db.run("UPDATE log SET last = $1", [LEAST // 2 + 1])
    store.deliveries.prepare(now - 86_400)
    assert parts(store)[1:] == [(LEAST + 1, 2 * LEAST + 1), (2 * LEAST + 1, None)]


def test_more_events_than_expected_have_room_and_are_followed_by_a_new_partition(backend: PostgresBackend) -> None:
    store = opened(backend)
    end_partitions(store)
    end_partitions(store, room=2)
    delivered(store, "abcde", first=1)
    store.deliveries.prepare(store.wall() - 86_400)

    assert parts(store) == [(None, 1), (1, 3), (3, 6 + LEAST), (6 + LEAST, None)]
    assert [event.seq for event in store.log.read()] == [1, 2, 3, 4, 5]
    assert balanced(store)


def test_a_partition_is_as_long_as_a_fourteenth_of_the_retention_has_events(backend: PostgresBackend) -> None:
    store = backend.open()
    now = store.wall()
    store.log.append([make_event(1, time=now - 6 * 86_400), make_event(2, time=now - 3 * 86_400), make_event(3)])
    store.db.run("UPDATE log SET last = 700000")
    store.log.append([make_event(4, time=now)])
    store.deliveries.prepare(now - 90 * 86_400)

    assert parts(store) == [(None, 1_400_002), (1_400_002, None)]


def test_a_clock_that_was_ahead_or_behind_makes_no_partition_too_long(backend: PostgresBackend) -> None:
    store = backend.open()
    store.log.append([make_event(1, time=4e9), make_event(2, time=1.0)])
    for before in (store.wall() + 1e9, 0.0, -1e12):
        store.deliveries.prepare(before)
    assert parts(store) == [(None, LEAST + 3), (LEAST + 3, None)]


def test_workers_that_prepare_at_once_make_one_partition(backend: PostgresBackend) -> None:
    stores = [backend.open() for _ in range(4)]
    together(*[lambda one=one: one.deliveries.prepare(one.wall() - 86_400) for one in stores])
    assert parts(stores[0]) == [(None, LEAST + 1), (LEAST + 1, None)]


def together(*acts: Callable[[], object]) -> None:
    """Do all of it at once; one may find that another is faster."""
    assert all(isinstance(failure, Held) for failure in failures_of(*acts))


# Dropped.


def test_what_is_old_as_a_whole_is_dropped_with_its_books(backend: PostgresBackend) -> None:
    store = opened(backend, "crm", "idle")
    lease = own(store, "crm")
    record(store, "abcdefgh")
    read_on(store, lease, wanted=[1, 2, 3])
    first, second, _ = claim(store, lease)
    settle(store, lease, first, "delivered")
    settle(store, lease, second, "dead")
    end_partitions(store)
    old = store.deliveries.expiring(8, before=NOW)
    assert old is not None
    assert (old.upto, dict(old.dropped)) == (8, {"crm": 1, "idle": 8})

    assert store.deliveries.purge(old, before=NOW, notices=[]) == 8
    assert parts(store) == parts(store, "finished_deliveries") == [(9, None)]
    assert len(parts(store, "attempts")) == 1
    books = {one.subscription: one for one in store.delivery_reader.ledger()}
    crm, idle = books["crm"], books["idle"]
    assert (crm.delivered, crm.dead, crm.not_matching, crm.dropped, idle.dropped) == (1, 1, 5, 1, 8)
    assert balanced(store)
    assert store.log.read() == []


def test_attempts_are_kept_while_a_delivery_is_that_they_are_of(backend: PostgresBackend) -> None:
    store = opened(backend)
    delivered(store, "ab", first=1)
    end_partitions(store)
    delivered(store, "c", first=3)
    late = own(store, "crm")
    store.deliveries.replay("crm", after=0)
    while read_on(store, late):
        pass
    again = claim(store, late)
    assert seqs(again) == [[1], [2], [3]]
    end_partitions(store)
    for one in again:
        settle(store, late, one, "delivered")
    assert attempts(store) == 6

    purge(store, 2)
    assert [one.seq for one in store.delivery_reader.deliveries()] == [3, 3]
    assert all(store.delivery_reader.attempts(one.id) for one in store.delivery_reader.deliveries())
    delivered(store, "d", first=4)
    end_partitions(store)
    delivered(store, "e", first=5)
    purge(store, 4)
    assert [one.seq for one in store.delivery_reader.deliveries()] == [5]
    assert attempts(store) == 1
    assert balanced(store)


def test_a_partition_that_is_partly_old_waits_until_all_of_it_is(backend: PostgresBackend) -> None:
    store = opened(backend)
    delivered(store, "abc", first=1)
    end_partitions(store)

    assert store.deliveries.expiring(2, before=NOW) is None
    purge(store, 3)
    assert parts(store) == [(4, None)]
    assert balanced(store)


def test_a_partition_that_lasts_too_long_is_deleted_row_by_row(backend: PostgresBackend) -> None:
    store = opened(backend)
    now = store.wall()
    store.log.append([make_event(1, time=now - 9.5 * 86_400), make_event(2, time=now - 7.5 * 86_400), make_event(3)])
    store.log.append([make_event(4, time=now)])
    end_partitions(store)

    [one] = [store.deliveries.expiring(3, before=now - 7 * 86_400)]
    assert one is not None
    assert one.upto == 3
    store.deliveries.purge(one, before=now - 7 * 86_400, notices=[])
    assert [event.seq for event in store.log.read()] == [4]
    assert parts(store) == [(None, 5), (5, None)]


def test_less_than_a_day_of_retention_is_kept_exactly(backend: PostgresBackend) -> None:
    store = opened(backend)
    now = store.wall()
    store.log.append([make_event(1, time=now - 3601), make_event(2, time=now - 10)])
    end_partitions(store)
    old = store.deliveries.expiring(1, before=now - 3600)
    assert old is not None
    assert old.upto == 1


def test_an_event_of_a_clock_that_was_ahead_keeps_nothing(backend: PostgresBackend) -> None:
    store = opened(backend)
    delivered(store, "ab", first=1)
    end_partitions(store)
    store.log.append([make_event(3, time=4e9), make_event(4)])
    end_partitions(store)
    delivered(store, "e", first=5)

    purge(store, 4)
    assert parts(store) == [(5, None)]
    assert [event.seq for event in store.log.read()] == [5]
    assert balanced(store)


def test_a_transaction_that_reads_for_long_postpones_a_drop_and_blocks_nothing(backend: PostgresBackend) -> None:
    store = opened(backend)
    delivered(store, "ab", first=1)
    end_partitions(store)
    old = store.deliveries.expiring(2, before=OLD)
    assert old is not None
    before = backend.dump()
    with backend.open().db.snapshot() as conn:
        conn.run("SELECT count(*) FROM events")
        with pytest.raises(Held, match="another transaction"):
            store.deliveries.purge(old, before=OLD, notices=[])
        with pytest.raises(Held):
            store.deliveries.prepare(store.wall() - 86_400 * 30)
        assert backend.dump() == before
        delivered(store, "c", first=3)

    store.deliveries.purge(old, before=OLD, notices=[])
    assert parts(store) == [(3, None)]
    assert balanced(store)


def test_a_ledger_that_has_begun_is_not_changed_by_a_drop(backend: PostgresBackend) -> None:
    store, other = opened(backend), backend.open()
    delivered(store, "ab", first=1)
    end_partitions(store)
    old = store.deliveries.expiring(2, before=OLD)
    assert old is not None
    with other.db.snapshot() as conn:
        conn.run("LOCK TABLE events, deliveries IN ACCESS SHARE MODE")
        with pytest.raises(Held):
            store.deliveries.purge(old, before=OLD, notices=[])
    [books] = backend.look().deliveries.ledger()
    assert books.balanced


class Divided(History):
    """A random life in which partitions end at any time."""

    def restart(self) -> None:
        super().restart()
        with suppress(Held):
            end_partitions(self.store, room=self.random.randint(0, 3))

    def purge(self) -> None:
        with suppress(Held):
            super().purge()


def test_the_ledger_balances_over_random_partitions(backend: PostgresBackend) -> None:
    dropped = 0
    for seed in range(3):
        store = opened(backend)
        Divided(store, Random(seed)).live(40)
        first = parts(store)[0][0]
        dropped += first is not None
        assert balanced(store)
    assert dropped


@pytest.mark.slow  # beside much else a worker loses its leases
def test_workers_that_write_while_partitions_end_and_are_dropped_lose_nothing(backend: PostgresBackend) -> None:
    opened(backend, "a", "b")

    def live(name: str, seed: int) -> None:
        Divided(backend.open(), Random(seed), name).live(60)

    assert failures_of(partial(live, "a", 0), partial(live, "b", 1)) == []


# What must not change.


def test_a_claim_reads_one_table_of_deliveries_however_many_partitions_there_are(backend: PostgresBackend) -> None:
    store = opened(backend)
    for first in range(1, 4):
        delivered(store, "x", first=first)
        end_partitions(store)

    plan = store.db.run(f"EXPLAIN {CLAIM.format(condition='due')}", [1, 1, NOW, 100, 16, 100])
    text = " ".join(line for (line,) in plan)
    assert "pending_deliveries" in text
    assert "finished_deliveries" not in text


def test_a_recording_that_is_repeated_in_the_next_partition_records_no_id_twice(backend: PostgresBackend) -> None:
    store = backend.open()
    [lease] = store.leases.take(Worker("ana"), [budget_lease("acme")], most=1, ttl=3600.0)
    state = store.polls.open(
        EndpointSpec(source="acme", name="items", shape="", units=[("list", b"{}")]), now=0.0
    ).state
    poll = PollRecord(unit=None, events=(make_event(1),))
    one = Recording(endpoint=state.id, base=state.revision, sweep=state.sweep, at=NOW, polls=[poll])
    store.polls.record(lease, one)
    end_partitions(store)
    with pytest.raises(Conflict):
        store.polls.record(lease, one)

    assert store.log.append([make_event(2)]) == [2]
    assert store.log.append([make_event(2)]) == []
    assert store.db.run("SELECT id, count(*) FROM events GROUP BY id HAVING count(*) > 1").fetchall() == []


def test_a_divided_log_moves_to_a_file_and_back(backend: PostgresBackend, tmp_path: Path) -> None:
    store = opened(backend)
    delivered(store, "ab", first=1)
    end_partitions(store)
    delivered(store, "c", first=3)
    lease = own(store, "crm")
    record(store, "d", first=4)
    read_on(store, lease)
    purge(store, 2)
    books, given = store.delivery_reader.ledger(), store.delivery_reader.deliveries()
    store.leases.leave(LOCAL)
    store.close()
    url = backend.server.database()
    try:
        for source, target in (
            (DatabaseUrl(backend.url), tmp_path / "poller.db"),
            (tmp_path / "poller.db", DatabaseUrl(url)),
        ):
            with open_side(source) as one, open_side(target) as other:
                move(one, other, id_="x", to="y", steady=time.time())
        back = Store.open(url)
        assert (back.delivery_reader.ledger(), back.delivery_reader.deliveries()) == (books, given)
        delivered(back, "e", first=5)
        assert balanced(back)
        back.close()
    finally:
        backend.server.drop(url)


# While an upgrade rolls.


@pytest.fixture
def before(backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store as the version before partitions has made it."""
    url = backend.server.database()
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "divide", lambda _db: False)
        store = Store.open(url)
    yield store
    store.close()
    backend.server.drop(url)


def test_an_earlier_version_works_on_until_it_ends_and_then_the_log_is_divided(before: Store) -> None:
    before.deliveries.register([Registration(name="crm", start="beginning")], now=NOW)
    delivered(before, "abc", first=1)
    before.db.run("INSERT INTO workers VALUES ('old', 1e12, 0)")
    later = Store.open(before.db.url)
    later.deliveries.prepare(NOW)
    assert not is_divided(later.db)
    before.db.run(APPEND_BEFORE, [4, "four", NOW])
    before.db.run("UPDATE log SET last = 4")
    lease = own(later, "crm")
    read_on(later, lease)
    [four] = claim(later, lease)
    purge(later, 1)

    before.db.run("DELETE FROM workers WHERE name = 'old'")
    later.deliveries.prepare(later.wall() - 86_400)
    assert is_divided(later.db)
    assert [event.seq for event in later.log.read()] == [2, 3, 4]
    settle(later, lease, four, "delivered")
    delivered(later, "e", first=5)
    assert [(one.seq, one.state) for one in later.delivery_reader.deliveries()] == [
        (5, "delivered"),
        (4, "delivered"),
        (3, "delivered"),
        (2, "delivered"),
    ]
    assert balanced(later)
    assert len({one.id for one in later.delivery_reader.deliveries()}) == 4
    later.close()


def test_workers_that_divide_at_once_divide_once(before: Store) -> None:
    before.deliveries.register([Registration(name="crm", start="beginning")], now=NOW)
    lease = own(before, "crm")
    record(before, "ab")
    read_on(before, lease)
    stores: list[Store] = []
    together(*[lambda: stores.append(Store.open(before.db.url)) for _ in range(3)])

    assert is_divided(before.db)
    assert parts(before) == [(None, None)]
    [one, other] = claim(before, lease)
    assert (settle(before, lease, one, "delivered"), settle(before, lease, other, "dead")) == ((), ())
    assert balanced(before)
    for store in stores:
        store.close()


def test_a_transaction_that_reads_for_long_postpones_the_division(before: Store) -> None:
    with psycopg.connect(before.db.url) as reader:
        reader.execute("SELECT count(*) FROM events")
        later = Store.open(before.db.url)
        assert not is_divided(later.db)
        assert later.log.append([make_event(1)]) == [1]
    later.deliveries.prepare(NOW)
    assert is_divided(later.db)
    later.close()
