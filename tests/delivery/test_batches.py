"""A digest carries no more bytes than its receiver takes: split before it leaves, and halved where it was too much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.batches import batches, halves
from poller.sinks.protocol import Attempt, Receipt, RetryLater, TooLarge
from state.deliveries import Job
from state.records import Event
from tests.support.bench import OK, Bench, bench, make_event, said

__all__ = ["bench", "said"]


def job(number: int, size: int) -> Job:
    made = make_event(number, raw=b"x" * size)
    return Job(id=number, event=Event(**{**vars(made), "seq": number}), attempts=0, retries=0, refusals=0)


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_batches_keep_the_order_and_the_limit_and_are_as_few_as_that_allows(sizes: list[int], limit: int) -> None:
    jobs = [job(number, size) for number, size in enumerate(sizes)]
    made = [list(batch) for batch in batches(jobs, limit)]

    assert [one for batch in made for one in batch] == jobs
    assert all(made)
    for batch in made:
        assert len(batch) == 1 or sum(len(one.event.raw) for one in batch) <= limit
    for batch, following in pairwise(made):
        assert sum(len(one.event.raw) for one in batch) + len(following[0].event.raw) > limit


@given(st.lists(st.integers(), min_size=2))
def test_halves_are_two_parts_in_order(numbers: list[int]) -> None:
    first, second = halves(numbers)  # type: ignore[type-var]
    assert [*first, *second] == numbers
    assert first
    assert second


def only_so_many(bench: Bench, name: str, limit: int) -> None:
    """The receiver takes so many bytes at once."""

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if sum(len(event.raw) for event in events) > limit:
            raise TooLarge(Receipt(status="413", text="too large"))
        return OK

    bench.boxes[name].answer = answer


async def record(bench: Bench, sizes: Sequence[int]) -> None:
    bench.log.append(make_event(number, raw=b'"%s"' % (b"x" * (size - 2))) for number, size in enumerate(sizes, 1))
    bench.delivering.wake()
    await bench.settle()


async def test_a_digest_leaves_in_parts_of_a_million_bytes(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0)
    await bench.start()
    await record(bench, [400_000] * 5)
    await bench.pass_(61)

    assert [seqs for seqs, _ in box.calls] == [(1, 2), (3, 4), (5,)]
    assert bench.books("mail").delivered == 5


async def test_a_sink_may_state_another_limit(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0)
    box.max_bytes = 250  # type: ignore[attr-defined]
    await bench.start()
    await record(bench, [100] * 5)
    await bench.pass_(61)
    assert [seqs for seqs, _ in box.calls] == [(1, 2), (3, 4), (5,)]

    await record_more(bench, 6, [100] * 3)
    await bench.pass_(61)
    assert [seqs for seqs, _ in box.calls][3:] == [(6, 7), (8,)]


async def record_more(bench: Bench, first: int, sizes: Sequence[int]) -> None:
    bench.log.append(make_event(first + place, raw=b'"%s"' % (b"x" * (size - 2))) for place, size in enumerate(sizes))
    bench.delivering.wake()
    await bench.settle()


async def test_what_is_too_large_is_halved_until_it_arrives_and_nothing_dies(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0)
    only_so_many(bench, "mail", 100)
    await bench.start()
    await record(bench, [30] * 10)
    await bench.pass_(61)

    assert box.seqs == list(range(1, 11))
    assert (bench.books("mail").delivered, bench.books("mail").dead) == (10, 0)
    assert bench.state("mail").health.failures == 0
    assert bench.notices() == []


async def test_a_single_event_that_is_too_large_is_a_dead_letter_alone(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0)
    only_so_many(bench, "mail", 100)
    await bench.start()
    await record(bench, [30, 30, 500, 30, 30])
    await bench.pass_(61)
    await bench.pass_(61)

    assert box.seqs == [1, 2, 4, 5]
    assert [one.seq for one in bench.reader.deliveries(states=["dead"])] == [3]
    assert bench.books("mail").balanced


async def test_every_attempt_is_kept_with_the_deliveries_that_it_carried(bench: Bench) -> None:
    bench.route("mail", digest=60.0)
    only_so_many(bench, "mail", 70)
    await bench.start()
    await record(bench, [30] * 4)
    await bench.pass_(61)

    for delivery in bench.reader.deliveries(subscription="mail"):
        rows = bench.reader.attempts(delivery.id)
        assert [(row.number, row.status) for row in rows] == [(1, "413"), (2, "200")]
        assert delivery.attempts == 2
    assert {one.seq: one.digest for one in bench.reader.deliveries(subscription="mail")} == {1: 1, 2: 1, 3: 3, 4: 3}


async def test_a_half_is_retried_as_it_was_and_what_follows_it_waits(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0, retry=(5.0,) * 3)

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if len(events) > 2:
            raise TooLarge(Receipt(status="552"))
        if events[0].seq == 1 and attempt.number == 2:
            raise RetryLater(None, Receipt(status="451"))
        return OK

    box.answer = answer
    await bench.start()
    await record(bench, [30] * 4)
    await bench.pass_(61)
    assert box.seqs == []
    await record_more(bench, 5, [30])
    await bench.pass_(6)

    assert box.seqs == [1, 2, 3, 4]
    await bench.pass_(61)
    assert box.seqs == [1, 2, 3, 4, 5]


async def test_a_digest_in_halves_goes_on_after_a_restart(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0, retry=(5.0,) * 3)
    only_so_many(bench, "mail", 70)
    await bench.start()
    await record(bench, [30] * 4)
    box.fail(OSError("away"))
    await bench.pass_(61)
    await bench.end()
    only_so_many(bench, "mail", 70)
    await bench.start()
    await bench.pass_(6)

    assert box.seqs == [1, 2, 3, 4]
