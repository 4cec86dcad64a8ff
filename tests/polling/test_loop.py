"""One budget at work: calls in flight, and polls whose answers are still being recorded."""

from __future__ import annotations

import asyncio
import math

import httpx

from poller.budget.budget import Budget, Limit
from poller.clock import VirtualClock
from poller.planner.planner import Planner
from poller.polling.loop import PER_CALL, Lane
from poller.sources.transport import BudgetTransport, Gate

CONCURRENCY = 2


class Crew:
    """Has work without end: one call each, and then something to record."""

    def __init__(self) -> None:
        self.begun = 0
        self.most_in_flight = 0
        self.sends = asyncio.Event()
        self.records = asyncio.Event()
        self.client: httpx.AsyncClient

    def next_work(self, _now: float) -> str:
        return "work"

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
        self.crew = Crew()
        self.budget = Budget("k", [Limit(1000, 1.0)], concurrency=CONCURRENCY)
        gate = Gate(self.budget, clock, spend=spend, flush=nothing, throttle=nothing)
        self.lane = Lane(
            name="k",
            budget=self.budget,
            share=0.9,
            planner=Planner([], now=clock.now()),
            gate=gate,
            clock=clock,
            crew=self.crew,
        )
        self._changed = asyncio.Event()
        self.lane.poke = self._changed.set
        transport = BudgetTransport(httpx.MockTransport(self._answer), gate, timeout=5.0)
        self.crew.client = httpx.AsyncClient(transport=transport)

    async def _answer(self, _request: httpx.Request) -> httpx.Response:
        self.crew.most_in_flight = max(self.crew.most_in_flight, self.budget.in_flight)
        await self.crew.sends.wait()
        return httpx.Response(200)

    async def settle(self) -> None:
        """Wake the lane until it has nothing more to begin."""
        quiet = 0
        self._changed.set()
        while quiet < 50:
            if self._changed.is_set():
                self._changed.clear()
                await self.lane.wake()
                quiet = 0
            await asyncio.sleep(0)
            quiet += 1


async def test_while_answers_are_recorded_others_are_asked_for() -> None:
    world = World()
    await world.settle()
    assert world.crew.begun == CONCURRENCY  # nothing is answered: no more calls may be in flight

    world.crew.sends.set()
    await world.settle()
    assert world.crew.begun == CONCURRENCY * PER_CALL  # all are answered, none is recorded
    assert world.budget.in_flight == 0
    assert world.lane.next_at() == math.inf

    world.crew.records.set()
    world.crew.sends.clear()
    await world.settle()
    assert world.crew.begun == CONCURRENCY * PER_CALL + CONCURRENCY
    assert world.crew.most_in_flight == CONCURRENCY
    await world.lane.finish(0.0)
    await world.crew.client.aclose()
