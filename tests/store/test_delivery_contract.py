"""The way from the log to the sinks, whatever the store."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from random import Random

import pytest
from msgspec import structs

from poller.delivery.notices import dropped
from state.deliveries import (
    AttemptOutcome,
    AttemptRow,
    Claim,
    ClaimRequest,
    Dispatched,
    Feed,
    Job,
    Match,
    Registration,
    Release,
    Settlement,
    State,
)
from state.errors import Conflict, LeaseLost
from state.leases import Lease, Worker
from state.notices import Notice
from state.store import Store
from tests.support.bench import make_event
from tests.support.stores import Backend, failures_of, own

NOW = 1_700_000_000.0
HISTORIES = int(os.environ.get("POLLER_HISTORIES", "40"))


def opened(backend: Backend, *names: str, pending_limit: int | None = None) -> Store:
    """A store that knows these subscriptions from the beginning of the log."""
    store = backend.open(pending_limit=pending_limit)
    store.deliveries.register([Registration(name=name, start="beginning") for name in names or ("crm",)], now=NOW)
    return store


def record(store: Store, objects: Iterable[str], first: int = 1) -> None:
    """An event of each object, in this order."""
    events = [make_event(first + place, subject=f"items/{name}") for place, name in enumerate(objects)]
    store.log.append(events)


def read_on(store: Store, lease: Lease, *, due: float = NOW, wanted: Sequence[int] | None = None) -> bool:
    """Queue what is wanted (default: all) of what the subscription has not read, each object in its lane."""
    feeds = store.deliveries.feeds([lease], now=NOW)
    dispatched = [_read(store, feed, due, wanted) for feed in feeds]
    store.deliveries.dispatch(lease, dispatched, now=NOW)
    return bool(feeds)


def _read(store: Store, feed: Feed, due: float, wanted: Sequence[int] | None) -> Dispatched:
    events = store.deliveries.read(feed.cursor, feed.room)
    events = [event for event in events if feed.until is None or event.seq <= feed.until]
    kept = [event for event in events if wanted is None or event.seq in wanted]
    lane = "" if feed.replay is None else "replay "
    return Dispatched(
        feed=feed,
        upto=events[-1].seq if events else feed.cursor,
        done=feed.until is not None and (not events or events[-1].seq >= feed.until),
        matches=tuple(Match(seq=event.seq, lane=f"{lane}{event.subject}", due=due) for event in kept),
        not_matching=tuple(sorted({event.seq for event in events} - {event.seq for event in kept})),
    )


def claim(store: Store, lease: Lease, *, now: float = NOW, most: int = 100) -> tuple[Claim, ...]:
    return store.deliveries.settle(lease, Settlement(now=now), ClaimRequest(deliveries=most)).claims


def outcome(one: Claim, jobs: Sequence[Job], state: State, *, now: float = NOW) -> AttemptOutcome:
    return AttemptOutcome(
        lane=one.lane,
        ids=tuple(job.id for job in jobs),
        state=state,
        retries=jobs[0].retries + (state == "pending"),
        refusals=0,
        attempt=AttemptRow(number=jobs[0].attempts + 1, at=now, latency=0.0, status="200"),
    )


def settle(
    store: Store, lease: Lease, one: Claim, state: State, *, jobs: int | None = None, due: float | None = None
) -> tuple[Claim, ...]:
    """The first jobs of a claim came to this; the lane is given back, and what is free is claimed."""
    done = one.jobs[: len(one.jobs) if jobs is None else jobs]
    batch = Settlement(
        now=NOW,
        settled=tuple(outcome(one, [job], state) for job in done),
        released=(Release(lane=one.lane, due=due),),
    )
    return store.deliveries.settle(lease, batch, ClaimRequest(deliveries=100)).claims


def seqs(claims: Iterable[Claim]) -> list[list[int]]:
    return [[job.event.seq for job in one.jobs] for one in claims]


# Who may write.


def test_an_old_epoch_can_neither_dispatch_nor_settle_and_changes_nothing(backend: Backend) -> None:
    store = opened(backend)
    old = own(store, "crm", Worker("ana"), ttl=-1.0)
    record(store, "ab")
    read_on(store, old)
    record(store, "c", first=3)
    [feed] = store.deliveries.feeds([old], now=NOW)
    [first, _] = claim(store, old)
    own(store, "crm", Worker("ben"))
    before = backend.dump()

    with pytest.raises(LeaseLost):
        store.deliveries.dispatch(old, [Dispatched(feed=feed, upto=3, not_matching=(3,))], now=NOW)
    with pytest.raises(LeaseLost):
        settle(store, old, first, "delivered")
    with pytest.raises(LeaseLost):
        claim(store, old)
    assert backend.dump() == before


def test_a_cursor_that_has_moved_is_a_conflict_and_changes_nothing(backend: Backend) -> None:
    store = opened(backend)
    lease = own(store, "crm")
    record(store, "abc")
    [feed] = store.deliveries.feeds([lease], now=NOW)
    read_on(store, lease)
    before = backend.dump()

    moved = Dispatched(feed=feed, upto=3, matches=(Match(seq=1, lane="x", due=NOW),), not_matching=(2, 3))
    with pytest.raises(Conflict):
        store.deliveries.dispatch(lease, [moved], now=NOW)
    assert backend.dump() == before


def test_several_readings_of_one_step_are_written_together_or_not_at_all(backend: Backend) -> None:
    store = opened(backend)
    lease = own(store, "crm")
    record(store, "abc")
    [feed] = store.deliveries.feeds([lease], now=NOW)
    before = backend.dump()

    good = Dispatched(feed=feed, upto=3, not_matching=(1, 2, 3))
    bad = Dispatched(feed=Feed(subscription="crm", cursor=7, room=1), upto=9)
    with pytest.raises(Conflict):
        store.deliveries.dispatch(lease, [good, bad], now=NOW)
    assert backend.dump() == before


def test_numbers_rise_in_the_order_of_commits_under_two_writers(backend: Backend) -> None:
    writers, reader = [backend.open(), backend.open()], backend.open()
    said = Notice(kind="test", subject="tests/one", summary="x", detail={}, time=NOW)

    def write(place: int) -> None:
        for number in range(50):
            if number % 2:
                writers[place].notices.tell([said])
            else:
                writers[place].log.append([make_event(1000 * place + number)])

    threads = [threading.Thread(target=write, args=[place]) for place in (0, 1)]
    for thread in threads:
        thread.start()
    cursor, seen = 0, []
    while any(thread.is_alive() for thread in threads) or reader.deliveries.read(cursor, 1):
        for event in reader.deliveries.read(cursor, 1000):
            seen.append(event.seq)
            cursor = event.seq
    for thread in threads:
        thread.join()

    everything = [event.seq for event in reader.log.read(limit=1000)]
    assert seen == everything
    assert len(everything) == 100


# Lanes.


def test_what_was_queued_while_its_lane_was_claimed_is_claimed_next(backend: Backend) -> None:
    store = opened(backend)
    lease = own(store, "crm")
    record(store, "a")
    read_on(store, lease)
    [first] = claim(store, lease)
    record(store, "a", first=2)
    read_on(store, lease)
    assert claim(store, lease) == ()

    assert seqs(settle(store, lease, first, "delivered")) == [[2]]


def test_a_lane_is_gone_with_its_last_delivery_and_back_with_the_next(backend: Backend) -> None:
    store = opened(backend)
    lease = own(store, "crm")
    record(store, "a")
    read_on(store, lease)
    [first] = claim(store, lease)
    assert settle(store, lease, first, "dead") == ()
    record(store, "a", first=2)
    read_on(store, lease)

    assert seqs(claim(store, lease)) == [[2]]


def test_a_lane_that_a_killed_owner_had_claimed_is_free_for_the_next_with_all_its_order(backend: Backend) -> None:
    store = opened(backend)
    record(store, "aab")
    lease = own(store, "crm")
    read_on(store, lease)
    assert seqs(claim(store, lease)) == [[1, 2], [3]]

    lease = own(backend.open(), "crm")
    assert seqs(claim(store, lease)) == [[1, 2], [3]]
    assert claim(store, lease) == ()


def test_what_queues_behind_a_retry_waits_for_it_also_over_a_kill(backend: Backend) -> None:
    store = opened(backend)
    record(store, "aab")
    lease = own(store, "crm")
    read_on(store, lease)
    [first, other] = claim(store, lease)
    settle(store, lease, other, "delivered")
    settle(store, lease, first, "pending", jobs=1, due=NOW + 60)

    lease = own(store, "crm")
    assert claim(store, lease, now=NOW + 59) == ()
    assert seqs(claim(store, lease, now=NOW + 60)) == [[1, 2]]


def test_what_is_due_later_by_itself_keeps_its_time(backend: Backend) -> None:
    store = opened(backend)
    record(store, "a")
    lease = own(store, "crm")
    read_on(store, lease, due=NOW + 900)
    settled = store.deliveries.settle(lease, Settlement(now=NOW), ClaimRequest(deliveries=9))

    assert (settled.claims, settled.next_due) == ((), NOW + 900)
    [one] = claim(store, lease, now=NOW + 900)
    store.deliveries.settle(lease, Settlement(now=NOW, released=(Release(lane=one.lane),)))
    assert claim(store, lease, now=NOW + 899) == ()
    assert len(claim(store, lease, now=NOW + 900)) == 1


def test_twenty_thousand_blocked_lanes_do_not_slow_a_claim(backend: Backend) -> None:
    def work(name: str, blocked: int) -> int:
        lease = own(store, name)
        while read_on(store, lease, due=NOW + 3600, wanted=range(1, blocked + 1)):
            pass
        record(store, [f"fresh-{name}"] * 1, first=store.log.last_seq() + 1)
        read_on(store, lease)
        return backend.work(store, lambda: claims.extend(claim(store, lease)))

    store, claims = opened(backend, "few", "many", pending_limit=30_000), list[Claim]()
    record(store, map(str, range(20_000)))
    few, many = work("few", 20), work("many", 20_000)

    assert len(claims) == 2
    assert many <= 1.2 * few + 5


def test_of_two_attempts_at_one_delivery_that_are_settled_together_the_later_one_counts(backend: Backend) -> None:
    store = opened(backend)
    record(store, "a")
    lease = own(store, "crm")
    read_on(store, lease)
    [one] = claim(store, lease)
    first = outcome(one, one.jobs, "pending")
    second = structs.replace(first, attempt=structs.replace(first.attempt, number=2, status="503"), retries=2)

    batch = Settlement(now=NOW, settled=(first, second), released=(Release(lane=one.lane),))
    [again] = store.deliveries.settle(lease, batch, ClaimRequest(deliveries=100)).claims

    assert [(job.attempts, job.retries) for job in again.jobs] == [(2, 2)]
    assert [row.number for row in store.delivery_reader.attempts(one.jobs[0].id)] == [1, 2]


def test_a_claim_takes_the_oldest_deliveries_of_each_lane_in_order(backend: Backend) -> None:
    store = opened(backend)
    record(store, "abbabc")
    lease = own(store, "crm")
    read_on(store, lease)
    request = ClaimRequest(deliveries=100, per_lane=2)

    claims = store.deliveries.settle(lease, Settlement(now=NOW), request).claims

    assert seqs(claims) == [[1, 4], [2, 3], [6]]


def test_a_probe_takes_first_what_a_command_opened_then_what_has_not_failed_then_what_failed_longest_ago(
    backend: Backend,
) -> None:
    store = opened(backend)
    record(store, "abcd")
    lease = own(store, "crm")
    read_on(store, lease)
    [fourth] = [one.id for one in store.delivery_reader.deliveries(subscription="crm") if one.seq == 4]
    store.deliveries.redeliver([fourth], now=NOW)
    request = ClaimRequest(deliveries=1, probe=True, failed=("items/d", "items/c", "items/a"))

    probes = [store.deliveries.settle(lease, Settlement(now=NOW), request).claims for _ in range(5)]

    assert [seqs(claims) for claims in probes] == [[[4]], [[2]], [[3]], [[1]], []]


def test_times_and_words_are_read_as_they_were_written(backend: Backend) -> None:
    store = opened(backend)
    record(store, "a")
    lease = own(store, "crm")
    due = 1_700_000_000.123456
    read_on(store, lease, due=due)
    [one] = claim(store, lease, now=due)
    row = AttemptRow(number=1, at=due, latency=0.1, status='"é"', text="{\\u0000\n}", reference="")
    store.deliveries.settle(
        lease, Settlement(now=NOW, settled=(structs.replace(outcome(one, one.jobs, "dead"), attempt=row),))
    )

    assert one.due == pytest.approx(due, abs=1e-6)
    [kept] = store.delivery_reader.attempts(one.jobs[0].id)
    assert structs.replace(kept, at=due) == row
    assert kept.at == pytest.approx(due, abs=1e-6)


def test_what_waits_behind_a_retry_leaves_room_for_the_rest_up_to_ten_times_the_limit(backend: Backend) -> None:
    store = opened(backend, pending_limit=10)
    record(store, "a" * 10 + "b")
    lease = own(store, "crm")
    read_on(store, lease)
    assert store.deliveries.feeds([lease], now=NOW) == []

    [one] = claim(store, lease, most=1)
    retry = Settlement(
        now=NOW, settled=(outcome(one, one.jobs, "pending"),), released=(Release(lane=one.lane, due=NOW + 9),)
    )
    assert store.deliveries.settle(lease, retry).wants_more
    [feed] = store.deliveries.feeds([lease], now=NOW)
    assert (feed.cursor, feed.room) == (10, 10)
    assert store.deliveries.feeds([lease], now=NOW + 9) == []

    read_on(store, lease)
    assert seqs(claim(store, lease)) == [[11]]
    record(store, "a" * 200, first=12)
    while read_on(store, lease):
        pass
    [state] = store.delivery_reader.subscriptions()
    assert 100 <= state.pending < 110


def test_what_is_pending_stops_at_its_limit(backend: Backend) -> None:
    store = opened(backend, pending_limit=5)
    record(store, "abcdefgh")
    lease = own(store, "crm")
    read_on(store, lease)
    assert store.deliveries.feeds([lease], now=NOW) == []
    claims = claim(store, lease)
    assert len(claims) == 5

    settle(store, lease, claims[0], "delivered")
    [feed] = store.deliveries.feeds([lease], now=NOW)
    assert (feed.cursor, feed.room) == (5, 1)


# The books.


def balanced(store: Store) -> bool:
    return all(books.balanced for books in store.delivery_reader.ledger())


def purge(store: Store, upto: int) -> None:
    before = NOW + upto + 0.5  # the events that `record` has recorded up to this number are older
    while (old := store.deliveries.expiring(upto, before=before, limit=7)) is not None:
        notices = [dropped(name, events, now=NOW) for name, events in old.dropped.items()]
        store.deliveries.purge(old, before=before, notices=notices)


def test_a_purge_keeps_the_books(backend: Backend) -> None:
    store = opened(backend)
    record(store, "abcdefgh")
    lease = own(store, "crm")
    read_on(store, lease, wanted=[1, 2, 3])
    first, second, _ = claim(store, lease)
    settle(store, lease, first, "delivered")
    settle(store, lease, second, "dead")
    purge(store, 6)

    [books] = store.delivery_reader.ledger()
    assert books.balanced
    assert (books.delivered, books.dead, books.not_matching, books.dropped) == (1, 1, 5, 1)


class History:
    """A random life of a subscription, over restarts of its owner."""

    def __init__(self, store: Store, random: Random, name: str = "crm") -> None:
        self.store, self.random, self.name = store, random, name
        self.lease = own(store, name)
        self.held: list[Claim] = []
        self.now = NOW

    def live(self, steps: int) -> None:
        acts = [self.record, self.read, self.claim, self.settle, self.settle, self.restart, self.purge, self.command]
        for _ in range(steps):
            with contextlib.suppress(Conflict):  # another worker has purged meanwhile: read and decide again, later
                self.random.choice(acts)()
            self.now += self.random.random() * 20
            assert balanced(self.store)

    def record(self) -> None:
        record(self.store, self.random.choices("abcd", k=3), first=self.store.log.last_seq() + 1)

    def read(self) -> None:
        last = self.store.log.last_seq()
        read_on(self.store, self.lease, wanted=[seq for seq in range(last + 1) if self.random.random() < 0.7])

    def claim(self) -> None:
        self.held += claim(self.store, self.lease, now=self.now, most=3)

    def settle(self) -> None:
        held, self.held = self.held, []
        batch = Settlement(
            now=self.now,
            settled=tuple(
                outcome(one, [job], self.random.choice(["delivered", "dead"]), now=self.now)
                for one in held
                for job in one.jobs[: self.random.randint(0, 2)]
            ),
            released=tuple(Release(lane=one.lane, due=self.random.choice([None, self.now + 30])) for one in held),
        )
        self.held = list(self.store.deliveries.settle(self.lease, batch, ClaimRequest(deliveries=2)).claims)

    def restart(self) -> None:
        self.held = []
        self.lease = own(self.store, self.name)

    def purge(self) -> None:
        purge(self.store, self.random.randint(0, self.store.log.last_seq()))
        self.store.deliveries.resume(self.name)

    def command(self) -> None:
        ids = [one.id for one in self.store.delivery_reader.deliveries(limit=3)]
        self.store.deliveries.redeliver(ids, now=self.now)
        self.store.deliveries.replay(self.name, after=self.random.randint(0, 10))


def test_the_ledger_balances_after_random_histories(backend: Backend) -> None:
    for seed in range(HISTORIES // backend.slowness):
        store = opened(backend)
        History(store, Random(seed)).live(25)


@pytest.mark.slow  # beside much else a worker loses its leases
def test_two_workers_on_one_state_neither_block_each_other_for_good_nor_upset_the_books(backend: Backend) -> None:
    opened(backend, "a", "b")

    def live(name: str, seed: int) -> None:
        History(backend.open(), Random(seed), name).live(60)

    assert failures_of(partial(live, "a", 0), partial(live, "b", 1)) == []


# Commands.


def test_a_command_is_taken_once(backend: Backend) -> None:
    ana, ben = backend.open().commands, backend.open().commands
    number = ana.post("ping", {"subscription": "crm"}, now=NOW)

    assert [posted.id for posted in ben.pending()] == [number]
    assert [ana.take(number, now=NOW), ben.take(number, now=NOW)] == [True, False]
    assert ana.pending() == []
