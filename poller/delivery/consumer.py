"""One subscription's deliveries: claimed in batches, carried to the sink side by side, settled in batches.

The courier holds no queue of its own beyond what it has leased: what waits, waits in the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from random import Random
from typing import Protocol

import structlog

from poller.clock import Clock
from poller.delivery.attempts import Flight, Flights
from poller.delivery.retry import Unfinished, Verdict, judge, receipt_of
from poller.delivery.settlement import Finished, Slip
from poller.delivery.sink_health import Standing
from poller.delivery.subscription import Route
from poller.delivery.wakeup import Bell, Turns
from poller.sinks.protocol import Receipt
from state.deliveries import AttemptRow, Claim, Job, Turn, Turned
from state.errors import StateError, Unavailable

DIGEST = 1000  # events at most
OUTAGE_WAIT = 2.0  # seconds between two tries while the state cannot be written
WINDOW = 64  # deliveries leased at once, at least

log = structlog.get_logger("poller.delivery")


class Office(Protocol):
    """What couriers share."""

    turns: Turns
    clock: Clock
    random: Random
    limit: float  # seconds of one attempt, whole
    grace: float  # seconds in which attempts may end when the program stops

    def log_grew(self) -> None:
        """Something was recorded, or there is room to read on."""
        ...

    def at_rest(self) -> None:
        """A courier has nothing to do for now."""
        ...

    def finished(self, attempt: Finished) -> None:
        """An attempt is over."""
        ...


class Courier:
    """Gives a subscription's events to its sink."""

    def __init__(self, route: Route, office: Office) -> None:
        self._route = route
        self._name = route.subscription.name
        self._together = DIGEST if route.subscription.digest is not None else 0
        self._window = max(WINDOW, 4 * route.subscription.concurrency)
        self._office = office
        self._clock = office.clock
        self._bell = Bell(office.clock)
        self._standing = Standing(self._name, promotes=not self._together)
        self._flights = Flights(route, self, clock=office.clock, limit=office.limit, changed=self._bell.ring)
        self._ready: deque[Claim] = deque()  # leased, not yet on its way
        self._slip = Slip()
        self._look = True  # the store may have something new for us
        self._next: float | None = None  # when it has by itself
        self._known = False  # how it stands is in the store
        self._is_stuck = False  # what attempts came to cannot be written: nothing more leaves
        self._resting = False
        self._stop = asyncio.Event()
        self._stopping = False

    def ring(self) -> None:
        """Look into the store again, soon."""
        self._look = True
        self._resting = False
        self._bell.ring()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, to be written, or due."""
        return self._resting and not self._bell.is_rung

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set (ring after setting it); then end what runs, or record it as unfinished."""
        self._stop = stop
        try:
            while not stop.is_set():
                await self._exchange()
                await self._launch()
                if not self._has_business():
                    self._rest()
                    await self._bell.wait(self._until())
                    self._resting = False
                self._flights.expire()
                if self._flights.fault is not None:
                    raise self._flights.fault
        finally:
            await self._finish()

    def _rest(self) -> None:
        self._resting = not (self._flights or self._ready or self._slip)
        if self._resting:
            self._office.at_rest()

    async def _finish(self) -> None:
        """Let attempts end, within the grace; record the rest as unfinished, give everything back, close the sink."""
        self._stopping = True
        try:
            await self._flights.finish(self._office.grace)
            self._give_back()
            if self._slip:
                await self._commit(self._slip.turn(self._name, now=self._clock.now(), due_at=self._route.due_at))
        finally:
            await self._bell.close()
            await self._flights.close()

    # The store: what is written next, and when there is a reason to.

    def _has_business(self) -> bool:
        """Whether another exchange would do something now."""
        return bool(self._slip) or self._wants_claim() or (self._look and self._standing.is_held) or not self._known

    def _wants_claim(self) -> bool:
        return self._room() > 0 and (self._look or (self._next is not None and self._next <= self._clock.now()))

    def _room(self) -> int:
        """How many deliveries to claim; while the breaker is open one, and only when it may be probed."""
        if not (self._known and self._standing.active) or self._stopping:
            return 0
        if self._standing.is_open:
            in_hand = self._ready or self._flights
            return int(not in_hand and self._standing.may_probe(self._clock.now()))
        held = sum(len(claim.jobs) for claim in self._ready) + len(self._flights)
        return self._window - held if held <= self._window // 2 else 0

    async def _exchange(self) -> None:
        """Write what there is to write, and take what there is room for."""
        if not self._has_business():
            return
        room = self._room() if self._wants_claim() else 0
        probing = self._standing.is_open
        slip, self._slip = self._slip, Slip()
        turn = replace(
            slip.turn(self._name, now=self._clock.now(), due_at=self._route.due_at),
            claim=1 if self._together and room else room,
            run=1 if probing else 16,
            together=self._together,
            early=probing and not self._together and room > 0,
        )
        if room or self._standing.is_held:
            self._look = False
        self._take(turn, await self._commit(turn))

    async def _commit(self, turn: Turn) -> Turned:
        """Write the turn, as often as it takes: what has arrived must not be forgotten because a disk is full."""
        wait = 1.0
        while True:
            try:
                turned = await self._office.turns(turn)
                self._is_stuck = False
                return turned
            except Unavailable:  # told once, where the outage is seen through
                longest = OUTAGE_WAIT
                if self._stop.is_set():
                    raise
            except StateError as error:
                longest = 30.0
                log.error("delivery.not_recorded", subscription=self._name, error=str(error), retry_in=wait)
                if self._stop.is_set():
                    raise
            self._is_stuck = True
            await self._clock.sleep(wait)
            wait = min(longest, 2 * wait)

    def _take(self, turn: Turn, turned: Turned) -> None:
        self._known = True
        self._standing.learn(turned, self._slip)
        self._next = turned.next_due
        if self._standing.is_open:
            self._next = turned.next_due if turn.claim and not turned.claims else 0.0
        self._ready.extend(turned.claims)
        if turned.recorded or (turned.wants_more and turn.settled):
            self._office.log_grew()

    def _until(self) -> float | None:
        """When to wake without being rung."""
        times = []
        if (deadline := self._flights.first_deadline()) is not None:  # attempts are counted on steady time
            times.append(self._clock.now() + max(0.0, deadline - self._clock.steady()))
        if self._next is not None and self._standing.active:
            opens = self._standing.health.open_until
            if opens is None and self._room():
                times.append(self._next)
            elif opens is not None and not (self._ready or self._flights):
                times.append(max(opens, self._next))
        return min(times, default=None)

    # The sink: what leaves, and what came of it.

    async def _launch(self) -> None:
        """Let leave what is ready, as far as there is room beside each other."""
        if self._ready and not self._standing.active:
            self._give_back()
        while self._ready and len(self._flights) < self._route.subscription.concurrency:
            claim = self._ready.popleft()
            early = claim.due if self._standing.is_open and claim.due > self._clock.now() else None
            error = await self._flights.open()
            if error is None:
                self._flights.launch(claim, early)
                continue
            flight = Flight(claim=claim, deadline=0.0, early=early)
            jobs = claim.jobs if self._together else claim.jobs[:1]
            self.landed(claim, self.answered(flight, jobs, error, self._clock.now(), 0.0))

    def next_claim(self) -> Claim | None:
        """What is ready, where it need not ask the store whether it may leave."""
        stays = self._standing.is_held or self._stopping or self._is_stuck
        return self._ready.popleft() if self._ready and not stays else None

    def answered(
        self, flight: Flight, jobs: tuple[Job, ...], answer: Receipt | Exception, at: float, latency: float
    ) -> Verdict:
        """Note what an attempt came to, for the next exchange."""
        first, receipt, now = jobs[0], receipt_of(answer), self._clock.now()
        verdict = self._judge(flight, first, answer, now)
        row = AttemptRow(
            number=first.attempts + 1,
            at=at,
            latency=latency,
            status=receipt.status,
            text=receipt.text,
            reference=receipt.reference,
        )
        self._slip.settle(flight.claim, jobs, verdict, row)
        held = self._standing.is_open
        self._standing.follow(answer, first, row.number, receipt, self._slip, now=now, not_before=verdict.floor)
        if self._standing.is_open and not held:
            self._give_back()
        if self._slip.health is not None:
            self._next = 0.0
        self._office.finished(
            Finished(subscription=self._name, jobs=jobs, state=verdict.state, attempt=row, due=verdict.due)
        )
        return verdict

    def _judge(self, flight: Flight, job: Job, answer: Receipt | Exception, now: float) -> Verdict:
        if isinstance(answer, Unfinished):
            return Verdict(state="pending", tries=job.tries, refusals=job.refusals, floor=flight.claim.floor)
        return judge(
            answer,
            tries=job.tries,
            refusals=job.refusals,
            schedule=self._route.subscription.retry,
            now=now,
            chance=self._office.random.random(),
            early=flight.early,
        )

    def may_follow(self, verdict: Verdict) -> bool:
        """Whether the next event of an object may leave behind one that came to this.

        Behind a dead letter it waits for the store: were that forgotten in a crash, the letter would arrive behind it.
        """
        return verdict.state == "delivered" and not (self._stopping or self._standing.is_held or self._is_stuck)

    def landed(self, claim: Claim, verdict: Verdict | None) -> None:
        """Give a lane back."""
        self._slip.release(claim, verdict)

    def _give_back(self) -> None:
        """Release what is leased and has not left."""
        while self._ready:
            self._slip.give_back(self._ready.popleft())
