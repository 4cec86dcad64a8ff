"""The books balance, and where somebody has torn a page out, they say which."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from poller.delivery.notices import dropped
from poller.operations.log import Forgotten, place
from poller.sinks.protocol import Attempt, Receipt, Rejected
from state.errors import Conflict
from state.records import Event
from state.sqlite.not_matching import add, forget, numbers
from tests.support.bench import Bench, bench, said

__all__ = ["bench", "said"]

T0 = 1_700_000_000.0


def purge(bench: Bench, upto: int, *, limit: int = 2000) -> int:
    """Forget the oldest events, as the deliverer does; 0 when there are none left."""
    old = bench.store.expiring(upto, before=T0, limit=limit)
    if old is None:
        return 0
    notices = [dropped(name, events, now=T0 + 1000) for name, events in old.dropped.items()]
    return bench.store.purge(old, before=T0, notices=notices)


@pytest.fixture
async def busy(bench: Bench) -> Bench:
    """Ten events for one subscription: of each kind of end at least one."""
    box = bench.route("crm", types=("shop.items.*",))

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        if events[0].seq == 3:
            raise Rejected(Receipt(status="413"))
        if events[0].seq == 4:
            raise OSError("away")
        return Receipt(status="200")

    box.answer = answer
    await bench.start()
    await bench.record(*range(1, 9))
    await bench.record(9, 10, type="shop.orders.created")
    return bench


async def test_every_event_is_on_one_side(busy: Bench) -> None:
    books = busy.books("crm")
    assert (books.events, books.delivered, books.pending, books.dead, books.not_matching) == (
        11,
        6,
        1,
        1,
        3,
    )  # its dead letter is an event, too
    assert books.balanced


async def test_a_delivery_that_vanished_is_named(busy: Bench) -> None:
    busy.db.execute("DELETE FROM deliveries WHERE seq = 5")
    books = busy.books("crm")
    assert (books.balanced, books.missing, books.stray) == (False, (5,), ())


async def test_an_event_that_vanished_is_named(busy: Bench) -> None:
    busy.db.execute("DELETE FROM events WHERE seq = 6")
    books = busy.books("crm")
    assert (books.balanced, books.missing, books.stray) == (False, (), (6,))


async def test_a_note_of_what_did_not_match_that_vanished_is_named(busy: Bench) -> None:
    busy.db.execute("DELETE FROM passed_over")
    assert busy.books("crm").missing == (9, 10, 11)


async def test_the_books_balance_while_events_are_forgotten(busy: Bench) -> None:
    before = busy.books("crm")
    assert purge(busy, 8, limit=3) == 3
    assert purge(busy, 8, limit=3) == 3
    while purge(busy, 8, limit=3):
        pass

    books = busy.books("crm")
    assert books.balanced
    assert (books.delivered, books.dead, books.not_matching) == (before.delivered, before.dead, before.not_matching)
    assert (books.pending, books.dropped) == (0, 1)
    assert busy.state("crm").pending == 0


async def test_what_was_not_given_in_time_is_dropped_and_told_once(busy: Bench) -> None:
    busy.store.pause("crm")
    await busy.record(11, 12)
    while purge(busy, 13):
        pass

    state, books = busy.state("crm"), busy.books("crm")
    assert (state.state, state.reason) == ("disabled", "retention")
    assert (books.dropped, books.unread, books.balanced) == (3, 1, True)
    assert busy.notices() == ["poller.subscription.disabled"]


async def test_what_was_given_meanwhile_is_counted_again_before_it_is_forgotten(busy: Bench) -> None:
    busy.store.pause("crm")
    await busy.record(11, 12)
    old = busy.store.expiring(13, before=T0)
    assert old is not None
    assert old.dropped == {"crm": 3}
    busy.store.resume("crm")
    busy.delivering.wake()
    await busy.settle()

    with pytest.raises(Conflict):
        busy.store.purge(old, before=T0, notices=[])
    assert busy.log.first_seq() == 1


async def test_what_leaves_while_it_is_forgotten_does_no_harm(bench: Bench) -> None:
    box = bench.route("crm")
    arrived = asyncio.Event()

    async def answer(events: Sequence[Event], attempt: Attempt) -> Receipt:
        await arrived.wait()
        return Receipt(status="200")

    box.answer = answer
    await bench.start()
    await bench.record(1)
    assert await bench.delivering.purge(1, before=T0) == 1
    arrived.set()
    await bench.settle()

    assert (bench.state("crm").pending, bench.books("crm").dropped) == (0, 1)
    assert bench.books("crm").balanced
    assert bench.db.execute("SELECT count(*) FROM attempts").fetchone() == (0,)


async def test_numbers_are_kept_as_bits_across_blocks(bench: Bench) -> None:
    conn = bench.db.conn
    assert conn is not None
    add(conn, 7, [1, 4095, 4096, 9000])
    add(conn, 7, [4097])
    add(conn, 8, [5])
    assert list(numbers(conn, 7)) == [1, 4095, 4096, 4097, 9000]
    assert forget(conn, 7, 4096) == 3
    assert list(numbers(conn, 7)) == [4097, 9000]
    assert forget(conn, 7, 10_000) == 2
    assert list(numbers(conn, 8)) == [5]


async def test_a_reader_whose_next_events_are_forgotten_is_told_so(busy: Bench) -> None:
    while purge(busy, 8):
        pass
    reader: Any = SimpleNamespace(log=busy.log)
    log_id = busy.log.id
    with pytest.raises(Forgotten, match=f"the events 8 to 8 after {log_id}-7 are no longer in the log"):
        place(reader, f"{log_id}-7", default=0)
    assert [place(reader, cursor, default=0) for cursor in (f"{log_id}-8", "7", None)] == [8, 7, 0]
