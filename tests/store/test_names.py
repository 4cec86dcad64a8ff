"""What is kept of a subscription or source goes on under another name, or is forgotten."""

from __future__ import annotations

import pytest

from poller.delivery.notices import ping
from state.deliveries import Dispatched, Match, Registration
from state.errors import StateError
from state.leases import FOREVER, LOCAL, budget_lease
from state.polls import EndpointSpec, Presence
from state.store import Store
from tests.store.test_delivery_contract import NOW, claim, opened, own, read_on, record, seqs
from tests.store.test_polls import Items, event, snapshot
from tests.support.stores import Backend


def subscriptions(store: Store) -> dict[str, str]:
    return {one.name: one.state for one in store.delivery_reader.subscriptions()}


def test_a_renamed_subscription_goes_on_where_it_was_with_what_it_had_claimed(backend: Backend) -> None:
    store = opened(backend)
    old = own(store, "crm")
    record(store, "ab")
    read_on(store, old)
    claim(store, old)
    record(store, "c", first=3)
    store.deliveries.register([Registration(name="sales", start="now")], now=NOW)  # reloaded before it was renamed

    store.names.rename_subscription("crm", "sales")
    store.deliveries.register([Registration(name="sales", start="now")], now=NOW)
    new = own(store, "sales")
    read_on(store, new)

    assert subscriptions(store) == {"sales": "active"}
    assert seqs(claim(store, new)) == [[1], [2], [3]]


def test_a_pause_outlasts_another_name(backend: Backend) -> None:
    store = opened(backend)
    store.deliveries.pause("crm")
    for name in ("sales", "market"):
        store.deliveries.register([Registration(name=name, start="now")], now=NOW)
        store.names.rename_subscription("crm" if name == "sales" else "sales", name)
        store.deliveries.register([Registration(name=name, start="now")], now=NOW)

    assert subscriptions(store) == {"market": "paused"}


def test_a_name_with_deliveries_of_its_own_is_not_taken(backend: Backend) -> None:
    store = opened(backend, "crm", "sales")
    store.deliveries.ping("sales", ping("sales", now=NOW), now=NOW)
    before = backend.dump()

    with pytest.raises(StateError, match="'sales' has deliveries of its own") as refused:
        store.names.rename_subscription("crm", "sales")

    assert refused.value.hint == "poller replay sales --after 0 delivers to it what the other one did not get"
    assert backend.dump() == before


def test_a_removed_subscription_is_forgotten_step_by_step_and_no_other(backend: Backend) -> None:
    store = opened(backend, "crm", "keep")
    for name in ("crm", "keep"):
        lease = own(store, name)
        record(store, "abc")
        read_on(store, lease)
    with pytest.raises(StateError, match="is in use"):
        store.names.forget_subscription("crm", limit=2)
    store.deliveries.register([Registration(name="keep")], now=NOW)

    assert [store.names.forget_subscription("crm", limit=2) for _ in range(2)] == [False, True]
    assert subscriptions(store) == {"keep": "active"}
    assert {one.subscription for one in store.delivery_reader.deliveries()} == {"keep"}
    assert store.log.last_seq() == 6


def items_with_an_event(backend: Backend) -> Items:
    """An endpoint with two objects; one of them has changed once."""
    items = Items(backend)
    shown = items.shown(snapshot("a", 1), snapshot("b"), events=(event("a", 1),), growth=2)
    items.record(shown)
    return items


def test_a_renamed_source_keeps_objects_events_learned_values_and_calls(backend: Backend) -> None:
    items = items_with_an_event(backend)
    store = items.store
    store.learned.save({"planner:shop": b"p", "health:shop": b"h"})
    store.calls.spend(items.lease, 5.0)
    store.calls.throttle("shop", 99.0)
    store.polls.open(EndpointSpec(source="store", name="items", shape="x"), now=NOW)  # reloaded before it was renamed

    store.names.rename_source("shop", "store", with_budget=True)
    opened = store.polls.open(
        EndpointSpec(source="store", name="items", shape="/items id=id", units=[("list", b"{}")]), now=NOW
    )

    assert (opened.state.id, opened.is_reshaped, opened.state.objects) == (items.state.id, False, 2)
    assert [one.source for one in store.log.read()] == ["/sources/store"]
    assert [store.learned.load(f"{kind}:store") for kind in ("planner", "health")] == [b"p", b"h"]
    assert len(store.calls.restore("store", since=0.0, now=6.0)) == 1
    assert store.calls.throttled_until("store") == 99.0
    assert store.names.sources() == ["store"]


def test_what_waits_of_a_renamed_source_stays_before_what_comes(backend: Backend) -> None:
    items = items_with_an_event(backend)
    store = items.store
    store.deliveries.register([Registration(name="crm", start="beginning")], now=NOW)
    lease = own(store, "crm")
    [feed] = store.deliveries.feeds([lease], now=NOW)
    match = Match(seq=1, lane="/sources/shop items/a", due=NOW)
    store.deliveries.dispatch(lease, [Dispatched(feed=feed, upto=1, matches=(match,))], now=NOW)

    store.names.rename_source("shop", "store", with_budget=False)

    [one] = claim(store, lease)
    assert one.lane == "/sources/store items/a"


def test_a_source_with_events_of_its_own_is_not_replaced(backend: Backend) -> None:
    items = items_with_an_event(backend)
    items.store.polls.open(EndpointSpec(source="old", name="items", shape="x"), now=NOW)
    before = backend.dump()

    with pytest.raises(StateError, match="'shop' has events of its own"):
        items.store.names.rename_source("old", "shop", with_budget=True)
    with pytest.raises(StateError, match="nothing is stored of a source 'none'"):
        items.store.names.rename_source("none", "x", with_budget=True)

    assert backend.dump() == before


def test_a_forgotten_source_keeps_no_content_and_never_gives_a_version_twice(backend: Backend) -> None:
    items = items_with_an_event(backend)
    store = items.store

    assert [store.names.forget_source("shop", limit=2, now=NOW) for _ in range(2)] == [False, True]
    assert store.names.sources() == []
    assert "id" not in str([one.body for one in store.polls.snapshots(items.state.id, ["a", "b"]).values()])

    opened = store.polls.open(
        EndpointSpec(source="shop", name="items", shape="/items id=id", units=[("list", b"{}")]), now=NOW + 1
    )
    known = store.polls.snapshots(opened.state.id, ["a", "b"])
    assert {name: (one.version, one.presence) for name, one in known.items()} == {"a": (1, Presence.DELETED)}
    assert (opened.is_reshaped, opened.state.objects, opened.state.baseline_before) == (False, 0, NOW + 1)


def test_a_source_without_events_is_forgotten_whole(backend: Backend) -> None:
    items = Items(backend)
    items.record(items.shown(snapshot("a"), growth=1))

    assert items.store.names.forget_source("shop", limit=10, now=NOW)
    assert items.store.poll_reader.endpoints() == []
    with pytest.raises(StateError, match="nothing is stored"):
        items.store.names.forget_source("shop", limit=10, now=NOW)


def test_calls_of_a_renamed_budget_are_counted_under_its_new_lease(backend: Backend) -> None:
    items = items_with_an_event(backend)
    items.store.names.rename_source("shop", "store", with_budget=True)
    (lease,) = items.store.leases.take(LOCAL, [budget_lease("store")], most=1, ttl=FOREVER)

    assert items.store.calls.spend(lease, 7.0) > 0
