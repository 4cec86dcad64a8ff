"""One budget at work: calls in flight, and polls whose answers are still being recorded."""

from __future__ import annotations

import asyncio
import math

import httpx

from poller.budget.budget import Budget
from poller.budget.limiter import CallRecords, RateLimiter
from poller.budget.limits import Limit
from poller.clock import VirtualClock
from poller.planner.planner import Planner
from poller.polling.loop import PER_CALL, PollLoop
from poller.sources.transport import BudgetTransport

CONCURRENCY = 2


class WorkQueue:
    """Has work without end: one call each, and then something to record."""

    def __init__(self) -> None:
        self.begun = 0
        self.most_in_flight = 0
        self.sends = asyncio.Event()
        self.records = asyncio.Event()
        self.client: httpx.AsyncClient

    def next_work(self, _now: float) -> str:
        return "work"

    def put_back(self, _work: str) -> None:
        pass

    def due(self, _now: float) -> float | None:
        return None

    def is_hurried(self) -> bool:
        return True

    async def do(self, _work: str) -> None:
        self.begun += 1
        await self.client.get("http://api.test/")
        await self.records.wait()


class World:
    """A lane, woken whenever it asks to be."""

    def __init__(self) -> None:
        async def spend(_answers: list[tuple[int, float]]) -> int:
            return 1

        async def nothing(_: object) -> None:
            pass

        clock = VirtualClock()
        self.queue = WorkQueue()
        self.budget = Budget("k", [Limit(1000, 1.0)], concurrency=CONCURRENCY)
        limiter = RateLimiter(self.budget, clock, CallRecords(spend=spend, flush=nothing, throttle=nothing))
        self.poll_loop = PollLoop(
            "k",
            planner=Planner([], now=clock.now()),
            limiter=limiter,
            clock=clock,
            queue=self.queue,
        )
        self._changed = asyncio.Event()
        self.poll_loop.poke = self._changed.set
        transport = BudgetTransport(httpx.MockTransport(self._answer), limiter, timeout=5.0)
        self.queue.client = httpx.AsyncClient(transport=transport)

    async def _answer(self, _request: httpx.Request) -> httpx.Response:
        self.queue.most_in_flight = max(self.queue.most_in_flight, self.budget.in_flight)
        await self.queue.sends.wait()
        return httpx.Response(200)

    async def settle(self) -> None:
        """Wake the lane until it has nothing more to begin."""
        quiet = 0
        self._changed.set()
        while quiet < 50:
            if self._changed.is_set():
                self._changed.clear()
                await self.poll_loop.wake()
                quiet = 0
            await asyncio.sleep(0)
            quiet += 1


async def test_while_answers_are_recorded_others_are_asked_for() -> None:
    world = World()
    await world.settle()
    assert world.queue.begun == CONCURRENCY  # nothing is answered: no more calls may be in flight

    world.queue.sends.set()
    await world.settle()
    assert world.queue.begun == CONCURRENCY * PER_CALL  # all are answered, none is recorded
    assert world.budget.in_flight == 0
    assert world.poll_loop.next_at() == math.inf

    world.queue.records.set()
    world.queue.sends.clear()
    await world.settle()
    assert world.queue.begun == CONCURRENCY * PER_CALL + CONCURRENCY
    assert world.queue.most_in_flight == CONCURRENCY
    await world.poll_loop.tasks.finish(0.0)
    await world.queue.client.aclose()
