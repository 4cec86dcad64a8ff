"""The proof of many workers can fail: where a step does not compare the epoch, its judge finds what comes of it.

Each story is that of a worker that was stopped in the middle of a step and wakes after another one has taken over.
"""

import asyncio
import contextlib
import threading
from typing import Any

import orjson
import pytest

import state.postgres.calls
import state.postgres.dispatch
import state.postgres.recording
from poller.budget.budget import Budget
from poller.budget.limits import Limit
from poller.events.cloudevents import structured
from state.deliveries import Claim, ClaimRequest, Registration, Release, Settlement
from state.errors import LeaseLost
from state.leases import Lease, Worker, budget_lease, subscription_lease
from state.store import Store
from tests.store.test_delivery_contract import NOW, claim, outcome, read_on
from tests.support.bench import make_event
from tests.support.cluster import LIMITS, Api, Receiver, configured, serving
from tests.support.cluster_judge import Faults, judge
from tests.support.one_worker import joined
from tests.support.stores import PostgresBackend


@pytest.fixture(params=[True, False], ids=["the epoch is compared", "it is not"])
def is_compared(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def taken(store: Store, worker: str, name: str) -> Lease:
    """A lease; the next worker that wants it finds it free."""
    [lease] = store.leases.take(Worker(worker), [name], most=1, ttl=-1.0)
    return lease


def test_a_call_that_a_woken_worker_spends(backend, monkeypatch, is_compared):
    if not is_compared:
        monkeypatch.setattr(state.postgres.calls, "check", lambda *_: None)
    store, api = backend.open(), Api(1, clock=lambda: 0.0)
    limits = [Limit(calls, seconds) for calls, seconds in LIMITS]
    stopped, other = (taken(store, name, budget_lease("key0")) for name in ("stopped", "other"))
    budgets = [Budget("key0", limits, concurrency=10) for _ in range(2)]
    with contextlib.suppress(LeaseLost):
        for budget, lease in ((budgets[0], other), (budgets[1], stopped)):
            while not budget.wait(0.0):
                budget.spend(0.0)
                store.calls.spend(lease, 0.0)
                api.answer("key0")

    assert bool(judge(api, Receiver(), []).exceeded) is not is_compared


async def test_a_poll_that_a_woken_worker_records(tmp_path, backend, monkeypatch, is_compared):
    if not is_compared:
        monkeypatch.setattr(state.postgres.recording, "judge", lambda *_: None)
    api, receiver = Api(1), Receiver(fails=0.0)
    with serving(api, receiver):
        config = configured(tmp_path, backend.url, api, receiver, subscriptions=1)
        faults = await polled_while_stopped(backend.url, config, api, receiver)

    assert (faults.all == []) is is_compared
    assert bool(faults.invented) is not is_compared


async def polled_while_stopped(url: str, config: Any, api: Api, receiver: Receiver) -> Faults:
    """One worker is stopped with an answer that the other one's next answers outdate."""
    place = "key0", 0
    async with joined(config, url, name="stopped") as stopped, joined(config, url, name="other") as other:
        await stopped.settled()
        await stopped.poll("key0")
        api.held["stopped"], api.states[place] = threading.Event(), 1
        asked = len(api.arrivals["key0"])
        late = asyncio.create_task(stopped.poll("key0"))
        await stopped.until(lambda: len(api.arrivals["key0"]) > asked)
        api.states[place] = 2
        stopped.sql("UPDATE workers SET until = 0")
        await other.settled()
        await other.poll("key0")
        api.held["stopped"].set()
        await late
        await other.poll("key0")
        other.app.deliverer.log_grew()
        await other.until(lambda: len(receiver.events["sub0"]) == other.app.store.log.last_seq())
    return judge(api, receiver, ["sub0"])


def test_an_attempt_that_a_woken_worker_settles(backend, monkeypatch, is_compared):
    """It takes an event for undeliverable that another worker is just delivering: the next one must wait for that."""
    if not is_compared:
        monkeypatch.setattr(state.postgres.dispatch, "check", lambda *_: None)
    faults = settled_while_stopped(backend)

    assert (faults.all == []) is is_compared
    assert bool(faults.out_of_order) is not is_compared


def settled_while_stopped(backend: PostgresBackend) -> Faults:
    store, receiver = backend.open(), Receiver(fails=0.0)
    store.deliveries.register([Registration(name="sub0", start="beginning")], now=NOW)
    store.log.append(
        make_event(
            n, source="/sources/key0", raw=b'{"object":{"id":0,"n":%d},"version":%d}' % (n, n), subject="items/0"
        )
        for n in (1, 2)
    )
    stopped = taken(store, "stopped", subscription_lease("sub0"))
    read_on(store, stopped)
    [in_hand] = claim(store, stopped)
    other = taken(store, "other", subscription_lease("sub0"))
    [on_its_way] = store.deliveries.settle(other, Settlement(now=NOW), ClaimRequest(deliveries=1)).claims

    with contextlib.suppress(LeaseLost):
        dead = Settlement(
            now=NOW,
            settled=(outcome(in_hand, in_hand.jobs[:1], "dead"),),
            released=(Release(lane=in_hand.lane),),
        )
        store.deliveries.settle(stopped, dead)
    deliver(store, other, receiver, claim(store, other))
    deliver(store, other, receiver, (on_its_way,))
    deliver(store, other, receiver, claim(store, other))
    return judge(Api(1, states={("key0", 0): 2}), receiver, ["sub0"])


def deliver(store: Store, lease: Lease, receiver: Receiver, claims: tuple[Claim, ...]) -> None:
    for one in claims:
        for job in one.jobs:
            assert receiver.take("sub0", orjson.loads(structured(job.event))) == 204
        store.deliveries.settle(
            lease,
            Settlement(
                now=NOW,
                settled=tuple(outcome(one, [job], "delivered") for job in one.jobs),
                released=(Release(lane=one.lane),),
            ),
        )


# What the judge holds against each other.


def told(*versions: tuple[int, int], number: int = 0) -> Receiver:
    """A receiver that was told of an object: versions, and how often it had been changed by then."""
    receiver = Receiver(fails=0.0)
    for version, n in versions:
        event = {"id": f"{version}-{n}", "source": "/sources/key0", "data": {"version": version}}
        event["data"]["object"] = {"id": number, "n": n}  # type: ignore[index]
        receiver.take("sub0", event)
    return receiver


def test_the_judge_accepts_what_is_as_it_should_be():
    assert judge(Api(1, states={("key0", 0): 3}), told((1, 1), (1, 1), (2, 3)), ["sub0"]).all == []


@pytest.mark.parametrize(
    ("receiver", "kind"),
    [
        (told((1, 1)), "lost"),
        (told((1, 1), (3, 3)), "lost"),
        (told((2, 2), (1, 1), (3, 3)), "out_of_order"),
        (told((1, 1), (2, 3), (3, 3)), "invented"),
        (told((1, 3), (2, 4)), "invented"),
        (told((1, 3), number=7), "invented"),
    ],
    ids=["the latest", "one between", "order", "no change", "a state that never was", "an object that never was"],
)
def test_the_judge_finds(receiver, kind):
    assert getattr(judge(Api(1, states={("key0", 0): 3}), receiver, ["sub0"]), kind)


def test_the_judge_finds_a_window_that_is_exceeded():
    api = Api(1, clock=lambda: 0.0)
    for _ in range(5):
        api.answer("key0")

    assert judge(api, Receiver(), []).exceeded == ("key0: 5 calls within 1 s",)


def test_a_full_window_allows_a_call_once_its_oldest_one_has_left_it():
    api = Api(1)
    api.arrivals["key0"] = [one / 4 for one in range(30)]  # until 7.25; the windows take 4 in 1 s, and 25 in 10 s

    assert api.free_at("key0", 0.5) == 0.5
    assert api.free_at("key0", 0.75) == 1.0
    assert api.free_at("key0", 6.0) == 10.0
    assert api.free_at("key0", 7.25) == 11.25
    assert api.free_at("key0", 20.0) == 20.0
