"""A dead letter is an event itself: `poller.delivery.dead`, once per episode."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from poller.sinks.protocol import Attempt, DeliveryError, Receipt, Refused, Rejected, RetryLater, TooLarge
from state.records import Event
from tests.support.bench import OK, Bench, bench, said

__all__ = ["bench", "said"]

NO = Rejected(Receipt(status="413", text="too large"))


async def test_a_dead_letter_is_reported_with_all_that_an_operator_needs(bench: Bench) -> None:
    bench.route("crm").fail(NO)
    witness = bench.route("ops", types=("poller.*",))
    await bench.start()
    await bench.record(1)

    [event] = witness.got
    assert (event.type, event.source, event.subject) == ("poller.delivery.dead", "/poller", "subscriptions/crm")
    assert event.data == {
        "summary": "Subscription crm has a dead letter: event 1 (shop.items.updated, items/1), given up after 1 "
        "attempt, the last 413.",
        "version": 1,
        "detail": {
            "delivery": 1,
            "event": "event-1",
            "sequence": 1,
            "type": "shop.items.updated",
            "attempt": 1,
            "status": "413",
            "answer": "too large",
            "next": "`poller redeliver 1` sends it again, `poller redeliver --subscription crm` all dead letters; "
            "the next dead letter is reported only after a delivery has succeeded",
        },
    }


async def test_it_is_reported_once_until_a_delivery_succeeds_also_over_a_restart(bench: Bench) -> None:
    box = bench.route("crm", concurrency=1)
    box.fail(NO)
    await bench.start()
    await bench.record(1)
    await bench.record(2)
    await bench.end()
    await bench.start()
    await bench.record(3)
    assert bench.notices() == ["poller.delivery.dead"]

    box.answer = box.accept
    await bench.record(4)
    box.fail(NO)
    await bench.record(5)
    assert bench.notices() == ["poller.delivery.dead"] * 2


@pytest.mark.parametrize(
    ("answer", "tries"),
    [(NO, 1), (Refused(Receipt(status="400")), 3), (RetryLater(None, Receipt(status="500")), 3)],
    ids=["rejected", "refused", "failed"],
)
async def test_of_a_digest_only_the_event_that_is_not_accepted_dies(
    bench: Bench, answer: DeliveryError, tries: int
) -> None:
    box = bench.route("mail", digest=60.0, retry=(5.0, 5.0))

    async def only_without_3(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if any(event.seq == 3 for event in events):
            raise answer
        return OK

    box.answer = only_without_3
    await bench.start()
    await bench.record(1, 2, 3, 4, 5)
    await bench.pass_(61 + 15)
    await bench.pass_(61)

    assert box.seqs == [1, 2, 4, 5]
    assert [one.seq for one in bench.reader.deliveries(states=["dead"])] == [3]
    assert [seqs for seqs, _ in box.calls][:tries] == [(1, 2, 3, 4, 5)] * tries
    assert bench.notices() == ["poller.delivery.dead"]
    assert bench.books("mail").balanced


async def test_the_halves_of_a_digest_that_is_given_up_wait_as_the_receiver_asked(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0, retry=())
    box.fail(RetryLater(600.0, Receipt(status="429")))
    await bench.start()
    await bench.record(1, 2)
    await bench.pass_(61)
    box.answer = box.accept
    await bench.pass_(590)
    assert box.seqs == []
    await bench.pass_(70)

    assert box.seqs == [1, 2]


async def test_a_subscription_never_gets_the_report_of_its_own_dead_letter(bench: Bench) -> None:
    first, second = bench.route("first", types=("*", "poller.*")), bench.route("second", types=("poller.*",))
    first.fail(NO)
    second.fail(TooLarge(Receipt(status="552")))
    await bench.start()
    await bench.record(1)
    await bench.pass_(3600)

    # Each reports the other's once; no report follows from a report without end.
    assert bench.notices() == ["poller.delivery.dead"] * 2
    assert bench.state("first").dead == 2
