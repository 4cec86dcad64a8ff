"""The way from the log to the sinks, on a real state file and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import structs

from poller.delivery.notices import ping
from poller.events.cloudevents import iso
from poller.sinks.protocol import Attempt, Gone, Receipt, Refused, Rejected, RetryLater
from state.deliveries import Registration, SubscriptionLedger
from state.records import Event
from state.sqlite.dispatch import Deliveries
from tests.support.bench import OK, Bench, bench, make_event, said

__all__ = ["bench", "said"]


async def test_an_event_reaches_every_subscription_that_wants_it(bench: Bench) -> None:
    everything, deletions = bench.route("everything"), bench.route("deletions", types=("*.deleted",))
    await bench.start()

    await bench.record(1)
    await bench.record(2, type="shop.items.deleted")

    assert everything.seqs == [1, 2]
    assert deletions.seqs == [2]
    assert bench.books("deletions") == SubscriptionLedger(
        subscription="deletions",
        events=2,
        delivered=1,
        pending=0,
        dead=0,
        not_matching=1,
        dropped=0,
        unread=0,
        missing=(),
        stray=(),
    )


async def test_what_is_due_at_once_leaves_in_the_order_of_the_log(bench: Bench) -> None:
    box = bench.route("crm", concurrency=1)
    await bench.record(9, 11, 10, 2)
    await bench.start()

    assert box.seqs == [1, 2, 3, 4]
    await bench.end()


async def test_events_of_one_object_wait_for_the_one_being_retried_and_others_do_not(bench: Bench) -> None:
    box = bench.route("crm", retry=(5.0, 5.0))
    failing = {1}

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if events[0].seq in failing:
            raise RetryLater(None, Receipt(status="503"))
        return OK

    box.answer = answer
    await bench.start()
    await bench.record(1, subject="items/a")
    await bench.record(2, subject="items/a")
    await bench.record(3, subject="items/b")

    assert box.seqs == [3]
    failing.clear()
    await bench.pass_(6)
    assert box.seqs == [3, 1, 2]


async def test_a_receivers_retry_after_is_a_floor_over_the_schedule(bench: Bench) -> None:
    box = bench.route("crm", retry=(5.0, 5.0))
    box.fail(RetryLater(60.0, Receipt(status="429")))
    await bench.start()
    await bench.record(1)
    box.answer = box.accept

    await bench.pass_(59)
    assert box.seqs == []
    await bench.pass_(1.5)
    assert box.seqs == [1]


async def test_retry_after_holds_across_a_restart(bench: Bench) -> None:
    box = bench.route("crm", retry=(5.0, 5.0))
    box.fail(RetryLater(60.0, Receipt(status="429")))
    await bench.start()
    await bench.record(1)
    box.answer = box.accept
    await bench.end()
    await bench.pass_(30)

    await bench.start()
    await bench.pass_(29)
    assert box.seqs == []
    await bench.pass_(1.5)
    assert box.seqs == [1]


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (Rejected(Receipt(status="413")), 1),
        (Refused(Receipt(status="404")), 3),
        (RetryLater(None, Receipt(status="500")), 5),
        (OSError("connection reset"), 5),
    ],
)
async def test_an_answer_decides_how_often_a_delivery_is_attempted(
    bench: Bench, error: Exception, attempts: int
) -> None:
    box = bench.route("crm", retry=(1.0, 1.0, 1.0, 1.0))
    box.fail(error)
    await bench.start()
    await bench.record(1)
    await bench.pass_(10)

    assert [attempt.number for _, attempt in box.calls] == list(range(1, attempts + 1))
    [delivery] = bench.reader.deliveries(states=["dead"])
    assert len(bench.reader.attempts(delivery.id)) == delivery.attempts == attempts
    assert bench.books("crm").balanced


async def test_a_dead_letter_lets_the_next_event_of_its_object_pass(bench: Bench) -> None:
    box = bench.route("crm")

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if events[0].seq == 1:
            raise Rejected(Receipt(status="413", text="too large"))
        return OK

    box.answer = answer
    await bench.start()
    await bench.record(1, 2, subject="items/a")

    assert box.seqs == [2]
    assert bench.state("crm").dead == 1


async def test_what_follows_a_dead_letter_leaves_when_that_is_written_not_before(bench: Bench) -> None:
    box = bench.route("crm")
    known: list[str] = []

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if events[0].seq == 1:
            raise Rejected(Receipt(status="413"))
        known.extend(state for (state,) in bench.db.execute("SELECT state FROM deliveries WHERE seq = 1"))
        return OK

    box.answer = answer
    await bench.record(1, 2, subject="items/a")
    await bench.start()

    assert box.seqs == [2]
    assert known == ["dead"]


async def test_a_dead_letter_is_redelivered_with_its_number_and_a_fresh_schedule(bench: Bench) -> None:
    box = bench.route("crm", retry=(1.0,))
    box.fail(Rejected(Receipt(status="413")))
    await bench.start()
    await bench.record(1)
    [dead] = bench.reader.deliveries(states=["dead"])

    bench.store.redeliver([dead.id], now=bench.clock.now())
    box.fail(OSError("away"))
    bench.delivering.wake()
    await bench.settle()
    box.answer = box.accept
    await bench.pass_(2)

    assert box.seqs == [1]
    assert [attempt.number for _, attempt in box.calls] == [1, 2, 3]
    assert (bench.books("crm").delivered, bench.books("crm").dead) == (1, 0)


async def test_a_delivered_event_is_redelivered_as_a_copy(bench: Bench) -> None:
    box = bench.route("crm")
    await bench.start()
    await bench.record(1)
    [delivered] = bench.reader.deliveries()

    assert bench.store.redeliver([delivered.id, 999], now=bench.clock.now()) == 1
    bench.delivering.wake()
    await bench.settle()

    assert box.seqs == [1, 1]
    assert [delivery.origin for delivery in bench.reader.deliveries()] == ["redelivery", "log"]
    assert bench.books("crm").balanced


async def test_a_replay_reads_the_log_again(bench: Bench) -> None:
    box = bench.route("crm", types=("shop.*",))
    await bench.start()
    await bench.record(1, 2, 3)
    await bench.record(4, type="other.items.updated")

    bench.store.replay("crm", after=1)
    bench.delivering.wake()
    await bench.settle()

    assert box.seqs == [1, 2, 3, 2, 3]
    assert bench.db.execute("SELECT count(*) FROM replays").fetchone() == (0,)
    assert bench.books("crm").events == 4


async def test_a_ping_reaches_just_the_subscription_it_tests(bench: Bench) -> None:
    box, other = bench.route("crm"), bench.route("other")
    await bench.start()

    bench.store.ping("crm", ping("crm", now=bench.clock.now()), now=bench.clock.now())
    bench.delivering.wake()
    await bench.settle()

    assert [event.type for event in box.got] == ["poller.ping"]
    assert other.got == []
    assert bench.books("crm").balanced


async def test_a_hanging_attempt_is_given_up(bench: Bench) -> None:
    box = bench.route("crm", retry=(5.0,))
    box.answer = box.hang
    await bench.start()
    await bench.record(1)
    await bench.pass_(59)
    box.answer = box.accept
    await bench.pass_(10)

    assert box.seqs == [1]
    [delivery] = bench.reader.deliveries()
    first, second = bench.reader.attempts(delivery.id)
    assert (first.status, first.latency, second.status) == ("timeout", 60.0, "200")


async def test_a_sink_may_have_more_patience_than_others(bench: Bench) -> None:
    box = bench.route("crm", retry=())
    box.answer, box.attempt_limit = box.hang, 600.0
    await bench.start()
    await bench.record(1)

    await bench.pass_(599)
    assert bench.state("crm").pending == 1
    await bench.pass_(2)
    assert bench.state("crm").dead == 1


async def test_what_follows_an_attempt_that_was_given_up_is_given_up_in_its_turn(bench: Bench) -> None:
    box = bench.route("crm", retry=())
    box.answer = box.hang
    await bench.start()
    await bench.record(1, 2, subject="items/a")
    await bench.pass_(121)

    assert [(row.seq, row.state, row.status) for row in bench.reader.deliveries()] == [
        (2, "dead", "timeout"),
        (1, "dead", "timeout"),
    ]


async def test_a_sink_that_cannot_be_opened_is_opened_again(bench: Bench) -> None:
    box = bench.route("crm", retry=(5.0,))
    box.open_error = ConnectionRefusedError("no mail server")
    await bench.start()
    await bench.record(1)
    box.open_error = None
    await bench.pass_(6)

    assert box.seqs == [1]
    assert [row.status for row in bench.reader.attempts(1)] == ["ConnectionRefusedError", "200"]


async def test_the_breaker_opens_once_probes_alone_and_tells_when_it_is_over(bench: Bench) -> None:
    box, witness = bench.route("crm", retry=(5.0, 300.0)), bench.route("witness", types=("poller.subscription.*",))
    box.fail(RetryLater(None, Receipt(status="503", text="down")))
    await bench.start()
    await bench.record(*range(1, 31))

    assert bench.state("crm").state == "failing"
    calls = len(box.calls)
    assert calls <= 4 + 8  # four failures, and what is in flight beside the fifth
    await bench.pass_(5.1)
    assert len(box.calls) == calls + 1
    await bench.pass_(10.1)
    assert len(box.calls) == calls + 2
    assert bench.notices() == ["poller.subscription.failing"]

    box.answer = box.accept
    await bench.pass_(20.1)
    assert sorted(box.seqs) == list(range(1, 31))
    assert bench.state("crm").state == "active"
    assert [event.type.rsplit(".")[-1] for event in witness.got] == ["failing", "recovered"]
    detail = witness.got[0].data["detail"]
    assert detail == {
        "event": f"event-{detail['sequence']}",
        "sequence": detail["sequence"],
        "type": "shop.items.updated",
        "attempt": 1,
        "status": "503",
        "answer": "down",
        "next": f"the next probe is sent at {iso(witness.got[0].time + 5)} at the earliest, further ones at growing "
        "intervals; a probe is an ordinary attempt of a delivery, and may be its last; all other deliveries are kept; "
        "`poller resume crm` tries at once",
    }


async def test_an_object_that_fails_for_days_leaves_room_for_the_others(bench: Bench) -> None:
    bench.store = Deliveries(bench.db, pending_limit=20)
    box = bench.route("crm", retry=(3600.0,) * 20)

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if events[0].subject == "items/good":
            return OK
        raise RetryLater(None, Receipt(status="500"))

    box.answer = answer
    await bench.start()
    for number in range(1, 101):
        await bench.record(number, subject="items/bad")
    await bench.record(101, subject="items/good")
    assert [event.id for event in box.got] == ["event-101"]

    for number in range(102, 302):
        await bench.record(number, subject="items/bad")
    state = bench.state("crm")
    assert state.pending == 200
    assert state.lag > state.pending


async def test_a_receiver_that_refuses_two_objects_is_probed_with_another(bench: Bench) -> None:
    box = bench.route("crm", retry=(), concurrency=1)

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if events[0].subject == "items/good":
            return OK
        raise Refused(Receipt(status="400"))

    box.answer = answer
    await bench.start()
    for number in range(1, 21):
        await bench.record(number, subject=f"items/bad {number % 2}")
    await bench.record(21, subject="items/good")
    assert (len(box.calls), bench.state("crm").state) == (5, "failing")

    await bench.pass_(5.1)
    assert [event.id for event in box.got] == ["event-21"]


async def test_an_open_breaker_outlives_a_restart_and_is_told_once(bench: Bench) -> None:
    box = bench.route("crm")
    box.fail(OSError("down"))
    await bench.start()
    await bench.record(*range(1, 10))
    await bench.end()
    calls = len(box.calls)

    await bench.start()
    await bench.pass_(4)
    assert len(box.calls) == calls
    await bench.pass_(2)
    assert len(box.calls) == calls + 1
    assert bench.notices() == ["poller.subscription.failing"]


async def test_what_the_breaker_holds_back_uses_up_no_retries(bench: Bench) -> None:
    box = bench.route("crm", retry=(1.0, 1.0))
    box.fail(OSError("down"))
    await bench.start()
    await bench.record(*range(1, 51))
    await bench.pass_(100)

    assert bench.state("crm").dead <= 3
    box.answer = box.accept
    await bench.pass_(400)
    books = bench.books("crm")
    assert (books.pending, books.balanced) == (0, True)
    assert books.dead <= 3


async def test_gone_disables_keeps_the_events_and_resume_goes_on(bench: Bench) -> None:
    box = bench.route("crm", concurrency=3)
    box.fail(Gone(Receipt(status="410", text="moved out")))
    await bench.start()
    await bench.record(1, 2, 3)
    await bench.pass_(1000)

    assert len(box.calls) == 1
    state = bench.state("crm")
    assert (state.state, state.pending, state.reason) == ("disabled", 3, "410: the receiver wants no more events")
    assert bench.notices() == ["poller.subscription.disabled"]

    box.answer = box.accept
    bench.store.resume("crm")
    bench.delivering.wake()
    await bench.settle()
    assert box.seqs == [1, 2, 3]


async def test_a_paused_subscription_loses_nothing(bench: Bench) -> None:
    box = bench.route("crm")
    await bench.start()
    bench.store.pause("crm")
    bench.delivering.wake()
    await bench.record(1, 2)
    assert (box.seqs, bench.state("crm").state, bench.state("crm").lag) == ([], "paused", 2)

    await bench.end()
    await bench.start()
    assert box.seqs == []
    bench.store.resume("crm")
    bench.delivering.wake()
    await bench.settle()
    assert box.seqs == [1, 2]


async def test_resume_probes_a_failing_subscription_at_once(bench: Bench) -> None:
    box = bench.route("crm", retry=(3600.0,))
    box.fail(OSError("down"))
    await bench.start()
    await bench.record(*range(1, 9))
    box.answer = box.accept

    bench.store.resume("crm")
    bench.delivering.wake()
    await bench.settle()
    assert sorted(box.seqs) == list(range(1, 9))


async def test_a_digest_collects_and_leaves_together(bench: Bench) -> None:
    box = bench.route("mail", digest=900.0)
    await bench.start()
    await bench.record(1)
    await bench.pass_(600)
    await bench.record(2)
    assert box.calls == []

    await bench.pass_(300)
    assert [seqs for seqs, _ in box.calls] == [(1, 2)]
    await bench.record(3)
    await bench.pass_(900)
    assert [seqs for seqs, _ in box.calls] == [(1, 2), (3,)]


async def test_a_digest_is_retried_as_a_whole(bench: Bench) -> None:
    box = bench.route("mail", digest=900.0, retry=(60.0,))
    box.fail(OSError("greylisted"))
    await bench.start()
    await bench.record(1, 2)
    await bench.pass_(900)
    await bench.record(3)
    box.answer = box.accept
    await bench.pass_(70)

    assert [(seqs, attempt.number) for seqs, attempt in box.calls] == [((1, 2), 1), ((1, 2), 2)]
    await bench.pass_(900)
    assert box.seqs == [1, 2, 3]
    assert len(bench.reader.attempts(2)) == 2


async def test_a_redelivered_dead_letter_stays_outside_the_order_when_a_digest_is_asked_for(bench: Bench) -> None:
    box = bench.route("mail", retry=())
    box.fail(Rejected(Receipt(status="413")))
    await bench.start()
    await bench.record(1, subject="items/a")
    [dead] = bench.reader.deliveries(states=["dead"])
    await bench.end()
    bench.store.redeliver([dead.id], now=bench.clock.now())
    bench.store.register([Registration(name="mail", start="beginning", digest=True)], now=bench.clock.now())

    assert bench.db.execute("SELECT lane FROM lanes").fetchall() == [(f"!{dead.id}",)]


async def test_what_the_receiver_said_holds_when_a_digest_is_asked_for(bench: Bench) -> None:
    bench.route("mail").fail(RetryLater(600.0, Receipt(status="503")))
    await bench.start()
    await bench.record(1)
    await bench.end()
    until = bench.clock.now() + 600.0

    bench.store.register([Registration(name="mail", start="beginning", digest=True)], now=bench.clock.now())
    assert bench.db.execute("SELECT lane, due, not_before FROM lanes").fetchall() == [("", until, until)]


async def test_a_replay_stays_outside_the_order_when_a_digest_is_asked_for_and_when_it_is_no_longer(
    bench: Bench,
) -> None:
    box = bench.route("mail")
    box.fail(RetryLater(60.0, Receipt(status="503")))
    await bench.start()
    await bench.record(1, 2, subject="items/a")
    bench.store.replay("mail", after=0)
    bench.delivering.wake()
    await bench.settle()
    await bench.end()

    def lanes() -> list[tuple[str, str]]:
        rows = bench.db.execute("SELECT DISTINCT origin, lane FROM deliveries JOIN lanes USING (subscription, lane)")
        return sorted(rows.fetchall())

    apart = [("log", "/sources/acme items/a"), ("replay", "replay /sources/acme items/a")]
    assert lanes() == apart
    bench.store.register([Registration(name="mail", start="beginning", digest=True)], now=bench.clock.now())
    assert lanes() == [("log", ""), ("replay", "replay ")]
    bench.store.register([Registration(name="mail", start="beginning", digest=False)], now=bench.clock.now())
    assert lanes() == apart


async def test_a_digest_by_a_timetable_leaves_at_its_time(bench: Bench) -> None:
    box = bench.route("mail", digest="@hourly", next_digest=lambda now: (now // 3600 + 1) * 3600)
    await bench.start()
    await bench.record(1)
    ahead = 3600 - bench.clock.now() % 3600
    await bench.pass_(ahead - 1)
    assert box.calls == []
    await bench.pass_(2)
    assert box.seqs == [1]


async def test_a_failing_digest_by_itself_does_not_spin(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0, retry=(1.0,) * 10)
    box.fail(OSError("down"))
    await bench.start()
    await bench.record(1)
    await bench.pass_(3600)
    assert len(box.calls) == 11
    assert bench.state("mail").dead == 1


async def test_the_latest_reference_of_an_object_goes_into_its_next_attempt(bench: Bench) -> None:
    box = bench.route("mail")

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        return Receipt(status="250", reference=f"<{events[0].seq}@x>")

    box.answer = answer
    await bench.start()
    await bench.record(1, 2, subject="items/a")
    await bench.record(3, subject="items/a")
    await bench.record(4, subject="items/b")

    assert [attempt.last_reference for _, attempt in box.calls] == [None, "<1@x>", "<2@x>", None]


async def test_stopping_records_what_could_not_finish(bench: Bench) -> None:
    box = bench.route("crm")
    box.answer = box.hang
    await bench.start()
    await bench.record(1)

    bench.stop.set()
    await bench.settle()
    await bench.pass_(11)
    assert bench.running is not None
    assert bench.running.done()
    [row] = bench.reader.attempts(1)
    assert row.status == "Unfinished"
    assert (bench.state("crm").pending, box.opened) == (1, 0)

    box.answer = box.accept
    await bench.end()
    await bench.start()
    assert box.seqs == [1]


async def test_stopping_lets_a_quick_answer_arrive(bench: Bench) -> None:
    box = bench.route("crm")
    arrived = asyncio.Event()

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        await arrived.wait()
        return OK

    box.answer = answer
    await bench.start()
    await bench.record(1)
    bench.stop.set()
    await bench.settle()
    arrived.set()
    await bench.end()
    assert bench.books("crm").delivered == 1


async def test_drain_delivers_all_that_is_due_and_leaves_retries(bench: Bench) -> None:
    box, poor = bench.route("crm"), bench.route("poor")
    poor.fail(RetryLater(None, Receipt(status="503")))
    bench.log.append(make_event(number) for number in range(1, 601))

    await asyncio.wait_for(bench.deliverer().drain(), 10)

    assert len(box.seqs) == 600
    assert bench.state("poor").pending == 600


async def test_drain_without_subscriptions_returns(bench: Bench) -> None:
    await asyncio.wait_for(bench.deliverer().drain(), 10)


async def test_reconfiguring_keeps_the_cursor_and_starts_the_new_one_now(bench: Bench) -> None:
    box = bench.route("crm")
    await bench.start()
    await bench.record(1, 2)

    bench.routes[0] = structs.replace(
        bench.routes[0], subscription=structs.replace(bench.routes[0].subscription, types=("*.deleted",))
    )
    fresh = bench.route("fresh", start="now")
    await bench.delivering.reconfigure(bench.routes)
    await bench.record(3)
    await bench.record(4, type="shop.items.deleted")

    assert box.seqs == [1, 2, 4]
    assert fresh.seqs == [3, 4]


async def test_a_removed_subscription_is_kept_and_goes_on_when_it_is_back(bench: Bench) -> None:
    box, _ = bench.route("crm"), bench.route("other")
    await bench.start()
    await bench.record(1)
    await bench.delivering.reconfigure(bench.routes[1:])
    await bench.record(2)
    assert (bench.state("crm").state, box.seqs) == ("removed", [1])

    await bench.delivering.reconfigure(bench.routes)
    await bench.settle()
    assert box.seqs == [1, 2]


async def test_an_expression_without_an_answer_counts_as_not_matching_and_is_told(bench: Bench) -> None:
    box = bench.route("crm", where="data.object.amount > 5")
    await bench.start()
    await bench.record(1)
    await bench.record(2, raw=b'{"object":{"amount":9}}')

    state = bench.state("crm")
    assert box.seqs == [2]
    assert state.filter_errors == 1
    assert state.last_error is not None
    assert "event 1" in state.last_error
    assert bench.books("crm").not_matching == 1


async def test_a_dead_subscriber_costs_a_bounded_number_of_rows_and_its_lag_says_the_rest(bench: Bench) -> None:
    bench.store = Deliveries(bench.db, pending_limit=100)
    box, well = bench.route("dead"), bench.route("well")
    box.fail(OSError("down"))
    await bench.start()
    await bench.record(*range(1, 601))
    await bench.settle()

    state = bench.state("dead")
    assert (state.pending, state.lag) == (100, 600 + 1)  # its own failing is in the log, too
    assert len(well.seqs) == 600

    box.answer = box.accept
    await bench.pass_(6)
    await bench.settle()
    assert (bench.books("dead").delivered, bench.books("dead").balanced) == (600, True)
