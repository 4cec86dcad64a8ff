"""Leases, whatever the store: one owner at a time, under an epoch that rises."""

from __future__ import annotations

from state.leases import FOREVER, Worker
from tests.support.stores import Backend, own

ANA, BEN = Worker("ana"), Worker("ben")
WANTED = ["subscription/a", "subscription/b", "budget/c"]


def test_a_lease_is_taken_by_one_worker_only(backend: Backend) -> None:
    ana, ben = backend.open().leases, backend.open().leases
    taken = ana.take(ANA, WANTED, most=2, ttl=FOREVER)

    assert [lease.name for lease in taken] == WANTED[:2]
    assert [lease.name for lease in ben.take(BEN, WANTED, most=9, ttl=FOREVER)] == WANTED[2:]
    assert ben.take(BEN, WANTED[:2], most=9, ttl=FOREVER) == []


def test_one_that_has_expired_is_taken_by_another_under_a_higher_epoch(backend: Backend) -> None:
    store = backend.open()
    first = own(store, "a", ANA, ttl=-1.0)
    second = own(store, "a", BEN)

    assert (second.worker, second.epoch) == (BEN, first.epoch + 1)
    assert store.leases.renew(ANA, ttl=60.0) == []


def test_a_restarted_worker_takes_its_own_again_under_a_higher_epoch(backend: Backend) -> None:
    first = own(backend.open(), "a", ANA)
    assert own(backend.open(), "a", ANA).epoch == first.epoch + 1


def test_renewing_keeps_the_epoch_and_names_all_that_is_held(backend: Backend) -> None:
    leases = backend.open().leases
    taken = leases.take(ANA, WANTED, most=9, ttl=60.0)
    leases.take(BEN, ["budget/d"], most=1, ttl=60.0)
    renewed = leases.renew(ANA, ttl=600.0)

    assert {(lease.name, lease.epoch) for lease in renewed} == {(lease.name, lease.epoch) for lease in taken}
    assert min(lease.until for lease in renewed) > max(lease.until for lease in taken)


def test_what_is_given_up_is_free_at_once_and_only_its_owner_can_give_it_up(backend: Backend) -> None:
    store = backend.open()
    old = own(store, "a", ANA, ttl=-1.0)
    new = own(store, "a", BEN)
    store.leases.give_up([old])
    assert store.leases.take(ANA, [old.name], most=1, ttl=60.0) == []

    store.leases.give_up([new])
    assert own(store, "a", ANA).epoch == new.epoch + 1
