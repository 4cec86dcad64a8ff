"""Two versions of the program while an upgrade rolls, and a transaction that keeps vacuum from its work."""

from __future__ import annotations

from typing import Final

import psycopg
import pytest

import state.postgres.schema as schema
from state.deliveries import Release, Settlement
from state.errors import StateError
from state.leases import FOREVER, Worker, budget_lease
from state.open import open_reader
from state.place import DatabaseUrl
from state.postgres.connection import transaction
from state.postgres.store import Store
from tests.store.test_delivery_contract import NOW, claim, opened, read_on, record, settle
from tests.support.bench import make_event
from tests.support.stores import PostgresBackend, own

NEXT: Final = ("next", "ALTER TABLE units ADD COLUMN note text; CREATE TABLE notes (id bigint)")
ROUNDS: Final = 300


def by_a_later_version(backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store as a program has it whose tables are one step ahead."""
    with monkeypatch.context() as later:
        later.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT))
        return backend.open()


def test_a_worker_goes_on_beside_one_of_a_later_version_that_has_changed_the_tables(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = opened(backend)
    old = own(older, "crm", Worker("older"), ttl=-1.0)
    record(older, "a")
    later = by_a_later_version(backend, monkeypatch)
    read_on(older, old)
    [one] = claim(older, old)
    settle(older, old, one, "delivered")
    record(later, "a", first=2)
    new = own(later, "crm", Worker("later"))
    read_on(later, new)
    assert [job.event.seq for one in claim(later, new) for job in one.jobs] == [2]


def test_one_of_an_earlier_version_does_not_start_once_the_tables_were_changed(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_a_later_version(backend, monkeypatch)
    with pytest.raises(StateError, match=r"written by a later version of Poller \(next\)") as refused:
        backend.open()
    assert refused.value.hint == "install that version, or restore a backup made before it"
    with pytest.raises(StateError, match="later version"), open_reader(DatabaseUrl(backend.url)):
        pass


def test_a_transaction_that_stays_open_changes_no_answer_while_dead_rows_pile_up(backend: PostgresBackend) -> None:
    store = opened(backend)
    lease = own(store, "crm")
    [budget] = store.leases.take(Worker("local"), [budget_lease("shop")], most=1, ttl=FOREVER)
    with psycopg.connect(backend.url) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM lanes")
        for number in range(1, ROUNDS + 1):
            store.log.append([make_event(number, subject="items/a")])
            read_on(store, lease)
            [one] = claim(store, lease)
            assert [job.event.seq for job in one.jobs] == [number]
            settle(store, lease, one, "delivered")
            store.calls.spend(budget, 0.0)
        assert len(store.leases.renew(Worker("local"), ttl=FOREVER)) == 2
    [books] = store.delivery_reader.ledger()
    assert (books.balanced, books.delivered, store.log.last_seq()) == (True, ROUNDS, ROUNDS)


def test_a_claim_does_not_read_every_lane_of_a_subscription_that_the_statistics_do_not_know(
    backend: PostgresBackend,
) -> None:
    store = opened(backend)
    lease = own(store, "crm")
    record(store, map(str, range(2000)))
    store.db.run("INSERT INTO lanes SELECT 1000000 + n % 20, n::text, 1e12 FROM generate_series(1, 4000) n")
    store.db.run("ANALYZE")
    while read_on(store, lease):
        pass
    assert store.db.value("SELECT count(*) FROM lanes WHERE subscription < 1000000") == 2000

    def read() -> int:
        query = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'lanes'"
        return int(store.db.value(query))

    with transaction(store.db):
        before = read()
        claims = claim(store, lease, most=10)
        claimed = read()
        store.deliveries.settle(lease, Settlement(now=NOW, released=tuple(Release(lane=one.lane) for one in claims)))
        assert (claimed - before < 100, read() - claimed < 100) == (True, True)
