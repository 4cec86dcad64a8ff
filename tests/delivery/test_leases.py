"""A subscription is delivered by the worker that owns its lease, and by nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from poller.sinks.protocol import Attempt, Receipt
from state.leases import FOREVER, LOCAL, Lease, Worker, subscription_lease
from state.records import Event
from state.sqlite.leases import LeaseTable
from tests.support.bench import OK, Bench, bench, said

__all__ = ["bench", "said"]

CRM = subscription_lease("crm")


def taken_away(bench: Bench) -> Lease:
    """Another worker owns the subscription from now on."""
    leases = LeaseTable(bench.db)
    (epoch,) = bench.db.execute("SELECT epoch FROM leases WHERE name = ?", [CRM]).fetchone()
    leases.give_up([Lease(name=CRM, worker=LOCAL, epoch=epoch, until=FOREVER)])
    [lease] = leases.take(Worker("other"), [CRM], most=1, ttl=60.0)
    return lease


async def test_who_lost_its_lease_delivers_nothing_more_and_the_others_go_on(bench: Bench, said: list[Any]) -> None:
    box, other = bench.route("crm"), bench.route("other")
    await bench.start()
    await bench.record(1)
    taken_away(bench)
    await bench.record(2, 3)

    assert (box.seqs, other.seqs) == ([1], [1, 2, 3])
    assert bench.state("crm").cursor == 1
    assert [entry["subscription"] for entry in said if entry["event"] == "subscription.lease_lost"] == ["crm"]


async def test_what_was_under_way_when_the_lease_was_lost_is_not_written_and_is_free_for_the_new_owner(
    bench: Bench,
) -> None:
    box = bench.route("crm")
    arrived = asyncio.Event()

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        await arrived.wait()
        return OK

    box.answer = answer
    await bench.start()
    await bench.record(1)
    lease = taken_away(bench)
    arrived.set()
    await bench.settle()

    assert [one.state for one in bench.reader.deliveries()] == ["pending"]
    assert bench.reader.attempts(1) == []
    assert bench.db.execute("SELECT epoch < ? FROM lanes", [lease.epoch]).fetchall() == [(1,)]


async def test_a_restart_takes_its_own_leases_again_and_what_it_had_claimed_with_them(bench: Bench) -> None:
    box = bench.route("crm")
    box.answer = box.hang
    await bench.start()
    await bench.record(1)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()  # the process is gone: nothing was given back
    await bench.settle()
    bench.running = None
    box.answer = box.accept

    await bench.start()
    assert box.seqs == [1]
