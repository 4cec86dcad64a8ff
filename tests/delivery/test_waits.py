"""Waits that receivers name: bounded, shown with their true end, and ended by a command."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from poller.delivery.notices import ping
from poller.sinks.protocol import Receipt, RetryLater
from state.sqlite.connection import open_database, transaction
from state.sqlite.events import log_migrations
from state.sqlite.migrations import Migrations
from state.sqlite.notices import notice_migrations
from state.sqlite.read_deliveries import DeliveryReader
from state.sqlite.rewind import rewind
from state.sqlite.schema import create_deliveries, delivery_migrations
from tests.support.bench import Bench, bench, said

__all__ = ["bench", "said"]

DAY = 86_400.0
BUSY = Receipt(status="429", text="not now")


@pytest.mark.parametrize("after", [1_795_700_000.0, 1e300, math.inf, 10**400])
async def test_no_receiver_parks_an_event_for_longer_than_a_day(bench: Bench, after: float) -> None:
    box = bench.route("crm", retry=(5.0,) * 3)
    box.fail(RetryLater(after, BUSY))
    await bench.start()
    await bench.record(1)

    [delivery] = bench.reader.deliveries()
    assert delivery.due == pytest.approx(bench.clock.now() + DAY)
    box.answer = box.accept
    await bench.pass_(DAY + 1)
    assert box.seqs == [1]


@pytest.mark.parametrize("after", [math.nan, -math.inf, -60.0])
async def test_a_wait_that_cannot_be_leaves_the_schedule_as_it_is(bench: Bench, after: float) -> None:
    box = bench.route("crm", retry=(5.0,) * 3)
    box.fail(RetryLater(after, BUSY))
    await bench.start()
    await bench.record(1)
    box.answer = box.accept
    await bench.pass_(6)

    assert box.seqs == [1]


async def failing_for_an_hour(bench: Bench) -> None:
    """Six objects whose receiver has said five times: not within the hour."""
    bench.route("crm", concurrency=1, retry=(5.0,) * 9).fail(RetryLater(3600.0, BUSY))
    await bench.start()
    await bench.record(1, 2, 3, 4, 5, 6)


async def test_the_next_probe_is_when_the_receiver_allows_it_and_so_it_is_shown(bench: Bench) -> None:
    await failing_for_an_hour(bench)
    box, until = bench.boxes["crm"], bench.clock.now() + 3600
    calls = len(box.calls)

    assert bench.state("crm").next_probe == pytest.approx(until)
    [notice] = [event for event in bench.log.read() if event.source == "/poller"]
    assert f"the next probe is sent at {'2023-11-14T23:13:20.000Z'}" in notice.data["detail"]["next"]
    await bench.pass_(3590)
    assert len(box.calls) == calls
    box.answer = box.accept
    await bench.pass_(20)
    assert sorted(box.seqs) == [1, 2, 3, 4, 5, 6]


async def test_a_breaker_that_would_probe_at_once_says_what_the_receiver_allows(bench: Bench) -> None:
    box = bench.route("crm", concurrency=1, retry=(5.0,) * 9)
    box.fail(RetryLater(3600.0, BUSY))
    await bench.start()
    await bench.record(1)
    until = bench.clock.now() + 3600
    bench.db.execute("UPDATE subscriptions SET failures = 5, open_until = ?, probe_wait = 5", [bench.clock.now()])

    assert bench.state("crm").next_probe == until
    [delivery] = bench.reader.deliveries()
    assert delivery.due == until


@pytest.mark.parametrize("command", ["redeliver", "resume", "ping"])
async def test_a_command_probes_at_once_past_the_breaker_and_the_receivers_word(bench: Bench, command: str) -> None:
    await failing_for_an_hour(bench)
    box, now = bench.boxes["crm"], bench.clock.now()
    box.answer = box.accept
    wanted = bench.reader.deliveries()[0]

    if command == "redeliver":
        bench.store.redeliver([wanted.id], now=now)
    elif command == "resume":
        bench.store.resume("crm")
    else:
        bench.store.ping("crm", ping("crm", now=now), now=now)
    bench.delivering.wake()
    await bench.settle()

    first = box.got[0]
    assert {"redeliver": first.seq == wanted.seq, "resume": len(box.got) == 6, "ping": first.type == "poller.ping"}[
        command
    ]
    assert bench.state("crm").state == "active"


async def test_a_command_holds_against_an_attempt_that_was_under_way(bench: Bench) -> None:
    box = bench.route("crm", concurrency=6, retry=(3600.0,) * 9)
    slow = bench.clock.now() + 30

    async def answer(events, attempt):  # type: ignore[no-untyped-def]
        if events[0].seq == 6:
            await bench.clock.sleep(slow - bench.clock.now())
        raise RetryLater(3600.0, BUSY)

    box.answer = answer
    await bench.start()
    await bench.record(1, 2, 3, 4, 5, 6)
    assert bench.state("crm").state == "failing"
    [second] = [delivery for delivery in bench.reader.deliveries() if delivery.seq == 2]
    bench.db.execute("UPDATE subscriptions SET state = 'paused'")  # the command's turn comes while nothing may leave
    bench.store.redeliver([second.id], now=bench.clock.now())
    await bench.pass_(31)

    assert bench.state("crm").health.open_until == pytest.approx(slow - 30)


async def test_a_digest_that_waits_at_the_receivers_word_leaves_on_command(bench: Bench) -> None:
    box = bench.route("mail", digest=60.0, retry=(5.0,) * 9)
    box.fail(RetryLater(DAY, BUSY))
    await bench.start()
    await bench.record(1, 2)
    await bench.pass_(61)
    box.answer = box.accept

    bench.store.resume("mail")
    bench.delivering.wake()
    await bench.settle()
    assert box.seqs == [1, 2]


async def test_what_was_written_while_the_clock_was_years_ahead_is_due_at_once(bench: Bench) -> None:
    box = bench.route("crm", retry=(5.0,) * 9)
    box.fail(OSError("down"))
    await bench.start()
    await bench.record(*range(1, 8))
    await bench.end()
    bench.db.execute("UPDATE lanes SET due = due + 3e8, not_before = due + 3e8")
    bench.db.execute("UPDATE subscriptions SET open_until = open_until + 3e8")
    box.answer = box.accept

    await bench.start()
    assert sorted(box.seqs) == list(range(1, 8))


@pytest.mark.parametrize("until", [4e9, 1e300, math.inf])
def test_rows_that_an_earlier_program_wrote_are_bounded(tmp_path: Path, until: float) -> None:
    old = Migrations("deliveries")
    old()(create_deliveries)
    db = open_database(tmp_path / "state.db", sets=(log_migrations, old))
    db.execute("INSERT INTO subscriptions (name, state, started, cursor, pending) VALUES ('crm', 'active', 0, 0, 1)")
    db.execute("INSERT INTO lanes (subscription, lane, due, floor) VALUES (1, 'a', ?1, ?1)", [until])
    db.execute(
        "INSERT INTO deliveries (subscription, seq, origin, lane, state, queued_at) "
        "VALUES (1, 1, 'log', 'a', 'pending', 1)"
    )
    db.close()

    db = open_database(tmp_path / "state.db", sets=(log_migrations, delivery_migrations, notice_migrations))
    [delivery] = DeliveryReader(db).deliveries()
    assert delivery.due is not None
    assert delivery.due < 4e9
    db.close()


async def test_what_is_given_back_after_the_clock_was_set_back_is_due_at_once(bench: Bench) -> None:
    box = bench.route("crm", concurrency=1, retry=(5.0,))
    box.answer = box.hang
    await bench.start()
    await bench.record(1, 2, 3)
    bench.clock.set_wall(-7200.0)
    with transaction(bench.db) as conn:
        rewind(conn, bench.clock.now(), -7200.0)
    await bench.end()
    box.answer = box.accept
    await bench.start()
    await bench.pass_(100.0)
    assert sorted(box.seqs) == [1, 2, 3]
