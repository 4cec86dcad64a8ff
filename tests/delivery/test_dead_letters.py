"""A dead letter is an event itself: `poller.delivery.dead`, once per episode."""

from __future__ import annotations

from poller.sinks.protocol import Receipt, Rejected, TooLarge
from tests.support.bench import Bench, bench, said

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
            "events": 1,
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


async def test_a_digest_that_dies_is_one_report_that_counts_its_events(bench: Bench) -> None:
    bench.route("mail", digest=60.0).fail(NO)
    witness = bench.route("ops", types=("poller.delivery.*",))
    await bench.start()
    await bench.record(1, 2, 3)
    await bench.pass_(61)

    [event] = witness.got
    assert "event 1 (shop.items.updated, items/1) and 2 more of its digest" in event.data["summary"]
    assert event.data["detail"]["events"] == 3


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
