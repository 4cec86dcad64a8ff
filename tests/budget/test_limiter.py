"""The limiter of a budget: what is written down and when, pauses that are told, and permits. On a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
import structlog

from poller.budget.budget import Budget
from poller.budget.limiter import CallRecords, Paused, RateLimiter, current_permit
from poller.budget.limits import Limit
from poller.clock import VirtualClock
from state.errors import LeaseLost

START = 1_700_000_000.0


class Kept:
    """What the state keeps of the calls of a budget, in memory."""

    def __init__(self) -> None:
        self.spent = 0
        self.answered: list[tuple[int, float]] = []
        self.throttled: list[float] = []
        self.is_full = False

    async def spend(self, answers: list[tuple[int, float]]) -> int:
        if self.is_full:
            raise OSError("the disk is full")
        self.answered += answers
        self.spent += 1
        return 100 + self.spent

    async def flush(self, answers: list[tuple[int, float]]) -> None:
        self.answered += answers

    async def throttle(self, until: float) -> None:
        self.throttled.append(until)


class Limited:
    """A limiter with its clock and its records."""

    def __init__(self, *limits: Limit, concurrency: int = 4) -> None:
        self.clock, self.kept = VirtualClock(START), Kept()
        self.budget = Budget("office", limits or [Limit(2, 1.0)], share=1.0, concurrency=concurrency)
        records = CallRecords(spend=self.kept.spend, flush=self.kept.flush, throttle=self.kept.throttle)
        self.limiter = RateLimiter(self.budget, self.clock, records)

    @property
    def now(self) -> float:
        """Seconds since the start, steady."""
        return self.clock.steady() - self.began

    began = VirtualClock(START).steady()

    async def after(self, work: Awaitable[Any]) -> Any:
        """The result of this work, for which the clock goes on while nothing else can."""
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(10):
                await asyncio.sleep(0)
            if not task.done() and (at := self.clock.next_waking()) is not None:
                self.clock.advance(max(0.0, at - self.clock.steady()))
        return task.result()

    async def paused(self, status: int = 429, **headers: str) -> list[Any]:
        """What is logged when the server answers so."""
        with structlog.testing.capture_logs() as logs:
            await self.limiter.heed(status, {name.replace("_", "-"): text for name, text in headers.items()})
        return list(logs)


async def test_calls_leave_when_the_windows_have_room_and_not_a_moment_earlier():
    one = Limited(Limit(2, 0.5), concurrency=9)
    times = []
    for _ in range(4):
        permit = await one.after(one.limiter.permit())
        permit.done()
        times.append(round(one.now, 2))

    assert times == [0.0, 0.0, 0.5, 0.5]
    assert (one.limiter.calls, one.kept.spent) == (4, 4)


async def test_an_answer_makes_room_for_the_call_that_waits_for_it():
    one = Limited(Limit(100, 1.0), concurrency=1)
    first = await one.limiter.permit()
    waiting = asyncio.ensure_future(one.limiter.permit())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.done()

    second = await one.after(waiting)
    assert one.now == 0.0
    assert one.budget.in_flight == 1
    second.done()


async def test_what_waits_and_watches_is_told_of_calls_and_of_answers():
    one, told = Limited(), []
    one.limiter.paid = lambda: told.append("paid")
    one.limiter.freed = lambda: told.append("freed")
    permit = await one.limiter.permit()
    assert told == ["paid"]
    permit.done()
    permit.done()  # a permit is over once

    assert told == ["paid", "freed"]
    assert one.budget.in_flight == 0


async def test_a_call_takes_the_answers_before_it_along_and_a_failed_write_keeps_them():
    one = Limited(Limit(100, 1.0))
    for _ in range(2):
        (await one.limiter.permit()).done()
    assert one.kept.answered == [(101, one.clock.steady())]

    one.kept.is_full = True
    one.clock.advance(5.0)
    with pytest.raises(OSError, match="full"):
        await one.limiter.permit()
    assert (one.budget.in_flight, one.limiter.calls) == (0, 2)
    assert one.budget.usage(one.clock.steady())[0].used == 1  # it may have been written: it counts as answered

    one.kept.is_full = False
    (await one.limiter.permit()).done()
    assert [call for call, _ in one.kept.answered] == [101, 102]
    await one.limiter.flush()
    await one.limiter.flush()
    assert [call for call, _ in one.kept.answered] == [101, 102, 103]


async def test_a_pause_is_told_once_with_its_length_and_reason_where_it_is_of_some_length():
    one = Limited()

    assert await one.paused(retry_after="9") == []
    assert one.limiter.noted == one.clock.steady() + 9.0
    [line] = await one.paused(retry_after="60")
    assert await one.paused(retry_after="60") == []  # it is known
    assert line == {
        "event": "budget.waits",
        "log_level": "warning",
        "budget": "office",
        "seconds": 60,
        "why": "an answer 429 says to come back in 60 s (Retry-After)",
    }


@pytest.mark.parametrize(("seconds", "lines"), [(9.5, 0), (10.0, 1), (10.4, 1)])
async def test_a_pause_of_ten_seconds_is_said(seconds: float, lines: int):
    one = Limited()
    await one.limiter.heed(200, {"retry-after": f"{seconds}"})

    with structlog.testing.capture_logs() as logs:
        one.limiter.say_pause()
    assert len(logs) == lines


async def test_without_a_pause_there_is_nothing_to_say():
    one = Limited()
    with structlog.testing.capture_logs() as logs:
        one.limiter.say_pause()
    assert logs == []


async def test_a_pause_of_an_earlier_run_is_said_without_its_reason():
    one = Limited()
    one.budget.restore([], one.clock.steady(), throttled_until=one.clock.steady() + 90.0)
    with structlog.testing.capture_logs() as logs:
        one.limiter.say_pause()

    assert [(line["seconds"], line["why"]) for line in logs] == [(90, "the server asked for it before")]


async def test_a_pause_is_stored_when_it_becomes_longer_by_more_than_a_moment():
    one = Limited()
    for seconds in ("20", "20", "20.05", "20.5", "10"):
        await one.limiter.heed(429, {"retry-after": seconds})

    assert [at - one.clock.steady() for at in one.kept.throttled] == pytest.approx([20.0, 20.5])
    assert one.limiter.refused == 5


async def test_a_refusal_in_a_text_alone_lets_the_budget_wait():
    one = Limited()
    await one.limiter.heed(403, {})
    assert one.budget.throttled_until(one.clock.steady()) is None

    await one.limiter.heed(403, {}, is_refusal=True)
    assert one.budget.throttled_until(one.clock.steady()) is not None
    assert one.limiter.refused == 1


async def test_a_pause_shorter_than_any_restart_is_not_stored():
    one = Limited()
    await one.limiter.heed(200, {"retry-after": "0.05"})
    await one.limiter.heed(200, {})

    assert one.kept.throttled == []
    assert one.limiter.refused == 0


async def test_a_date_is_compared_with_the_wall_clock():
    one = Limited()
    one.clock.set_wall(50.0)  # the wall clock is ahead of the steady one
    date = "Tue, 14 Nov 2023 22:15:20 GMT"  # 120 seconds after the start
    await one.limiter.heed(429, {"retry-after": date})

    until = one.budget.throttled_until(one.clock.steady())
    assert until is not None
    assert until - one.clock.steady() == pytest.approx(START + 120.0 - one.clock.now())


@pytest.mark.parametrize(("patience", "waits"), [(29.0, False), (30.0, True), (float("inf"), True)])
async def test_who_has_less_patience_than_the_server_asks_for_is_refused_with_the_end_of_the_pause(
    patience: float, waits: bool
):
    one = Limited()
    await one.limiter.heed(200, {"retry-after": "30"})
    if waits:
        await one.after(one.limiter.permit(patience=patience))
        assert one.now == pytest.approx(30.0)
        return
    with pytest.raises(Paused, match="the server wants no call of budget office") as refused:
        await one.limiter.permit(patience=patience)
    assert refused.value.until == pytest.approx(one.clock.now() + 30.0)
    assert one.kept.spent == 0


async def test_who_waits_for_an_answer_that_brings_a_pause_is_refused_then():
    one = Limited(Limit(100, 1.0), concurrency=1)
    first = await one.limiter.permit()
    waiting = asyncio.ensure_future(one.limiter.permit(patience=5.0))
    await asyncio.sleep(0)
    await one.limiter.heed(429, {"retry-after": "60"})
    first.done()

    with pytest.raises(Paused):
        await one.after(waiting)


async def test_a_command_ends_a_pause_here_and_in_the_state_for_who_waits_as_well():
    one = Limited()
    await one.limiter.heed(429, {"retry-after": "60"})
    waiting = asyncio.ensure_future(one.limiter.permit())
    await asyncio.sleep(0)
    await one.limiter.resume()

    (await one.after(waiting)).done()
    assert one.now == 0.0
    assert one.kept.throttled[-1] == one.limiter.noted == one.clock.steady()
    await one.limiter.heed(429, {"retry-after": "20"})  # the next answer may ask for another
    assert one.kept.throttled[-1] == one.clock.steady() + 20.0


@pytest.mark.parametrize(("left", "late"), [(0.001, False), (0.0, True), (-5.0, True)])
async def test_a_call_whose_lease_has_run_out_does_not_leave(left: float, late: bool):
    one = Limited()
    one.limiter.refuse_if_late()  # without leases nothing is late
    one.limiter.valid_until = lambda: one.clock.steady() + left
    if not late:
        one.limiter.refuse_if_late()
        return
    with pytest.raises(LeaseLost, match="budget/office: the lease has run out before the call left"):
        one.limiter.refuse_if_late()


async def test_a_permit_covers_the_first_call_within_it_and_is_over_at_its_end():
    one = Limited()
    permit = await one.limiter.permit()
    assert current_permit() is None
    assert not permit.is_taken
    async with permit as same:
        assert current_permit() is same is permit
        assert permit.take()
        assert permit.is_taken
        assert not permit.take()

    assert current_permit() is None
    assert one.budget.in_flight == 0


async def test_permits_within_permits_are_the_innermost_one():
    one = Limited()
    outer, inner = await one.limiter.permit(), await one.limiter.permit()
    async with outer:
        async with inner:
            assert current_permit() is inner
        assert current_permit() is outer
