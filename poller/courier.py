"""One subscription's deliveries: claimed in batches, carried to the sink side by side, settled in batches.

The courier holds no queue of its own beyond what it has leased: what waits, waits in the store. Everything that
decides runs in the one task of `run`; an attempt only brings its answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

import structlog

from poller import breaker, notices
from poller.clock import Clock
from poller.retry import Verdict, judge, receipt_of
from poller.sinks import Attempt, DeliveryError, Gone, Receipt, Sink
from poller.subscriptions import Route
from poller.turns import Bell, Turns
from state.deliveries import AttemptRow, Claim, Health, Job, Release, Settlement, Turn, Turned
from state.errors import StateError

DIGEST = 1000  # events at most
WINDOW = 64  # deliveries leased at once, at least

log = structlog.get_logger("poller.delivery")


class Unfinished(Exception):
    """The program stopped before the answer came."""


@dataclass(slots=True, kw_only=True)
class Flight:
    """A claim on its way."""

    claim: Claim
    deadline: float  # steady time at which the current attempt is given up
    early: float | None  # of a probe: when it was due
    expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt that is over, as observers are told."""

    subscription: str
    jobs: tuple[Job, ...]
    state: str
    attempt: AttemptRow


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
        self._health = breaker.WELL
        self._sink: Sink | None = None
        self._opened = AsyncExitStack()
        self._ready: deque[Claim] = deque()
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._turn = Turn(subscription=self._name, now=0.0)  # what is to be written next
        self._look = True  # the store may have something new for us
        self._next: float | None = None  # when it has by itself
        self._known = False  # how it stands is in the store
        self._active = True
        self._resting = False
        self._stop = asyncio.Event()
        self._stopping = False
        self._fault: BaseException | None = None  # of ours, not of a sink

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
                self._expire()
                if self._fault is not None:
                    raise self._fault
        finally:
            await self._finish()

    def _rest(self) -> None:
        self._resting = not (self._flights or self._ready or self._has_news())
        if self._resting:
            self._office.at_rest()

    # The store: what is written next, and when there is a reason to.

    def _has_news(self) -> bool:
        turn = self._turn
        return bool(turn.settled or turn.released or turn.notices or turn.health or turn.disabled or turn.promote)

    def _has_business(self) -> bool:
        """Whether another exchange would do something now."""
        return self._has_news() or self._wants_claim() or (self._look and self._is_held()) or not self._known

    def _is_held(self) -> bool:
        """Whether only a command could let us go on."""
        return not self._active or breaker.is_open(self._health)

    def _wants_claim(self) -> bool:
        return self._room() > 0 and (self._look or (self._next is not None and self._next <= self._clock.now()))

    def _in_hand(self) -> int:
        return len(self._ready) + len(self._flights)

    def _room(self) -> int:
        """How many deliveries to claim; while the breaker is open one, and only when it may be probed."""
        if not (self._known and self._active) or self._stopping:
            return 0
        if breaker.is_open(self._health):
            return int(not self._in_hand() and breaker.may_probe(self._health, now=self._clock.now()))
        held = sum(len(claim.jobs) for claim in self._ready) + len(self._flights)
        return self._window - held if held <= self._window // 2 else 0

    async def _exchange(self) -> None:
        """Write what there is to write, and take what there is room for."""
        if not self._has_business():
            return
        now = self._clock.now()
        room = self._room() if self._wants_claim() else 0
        probing = breaker.is_open(self._health)
        early = probing and not self._together
        turn = replace(
            self._turn,
            now=now,
            claim=1 if self._together and room else room,
            run=1 if probing else 16,
            together=self._together,
            early=early and room > 0,
            due_at=self._route.due_at,
        )
        self._turn = Turn(subscription=self._name, now=0.0)
        if room or self._is_held():
            self._look = False
        turned = await self._commit(turn)
        self._take(turn, turned)

    async def _commit(self, turn: Turn) -> Turned:
        """Write the turn, as often as it takes: what has arrived must not be forgotten because a disk is full."""
        wait = 1.0
        while True:
            try:
                return await self._office.turns(turn)
            except StateError as error:
                log.error("delivery.not_recorded", subscription=self._name, error=str(error), retry_in=wait)
                if self._stop.is_set():
                    raise
            await self._clock.sleep(wait)
            wait = min(30.0, 2 * wait)

    def _take(self, turn: Turn, turned: Turned) -> None:
        self._known = True
        if self._turn.disabled is None:  # else an attempt has ended meanwhile and knows better, as below
            self._active = turned.state == "active"
        if self._turn.health is None:
            self._health = turned.health
        self._next = turned.next_due
        if breaker.is_open(self._health):
            self._next = turned.next_due if turn.claim and not turned.claims else 0.0
        self._ready.extend(turned.claims)
        if turned.recorded or (turned.wants_more and turn.settled):
            self._office.log_grew()

    def _until(self) -> float | None:
        """When to wake without being rung."""
        times = [flight.deadline for flight in self._flights.values()]
        if times:  # attempts are counted on steady time
            times = [self._clock.now() + max(0.0, min(times) - self._clock.steady())]
        if self._next is not None and self._active:
            opens = self._health.open_until
            if opens is None and self._room():
                times.append(self._next)
            elif opens is not None and not self._in_hand():
                times.append(max(opens, self._next))
        return min(times, default=None)

    # The sink: attempts side by side, one object's one after the other.

    async def _launch(self) -> None:
        if self._ready and not self._active:
            self._give_back()
        while self._ready and len(self._flights) < self._route.subscription.concurrency:
            claim = self._ready.popleft()
            probing = breaker.is_open(self._health)
            flight = Flight(
                claim=claim,
                deadline=self._deadline(),
                early=claim.due if probing and claim.due > self._clock.now() else None,
            )
            error = await self._open()
            if error is not None:
                jobs = claim.jobs if self._together else claim.jobs[:1]
                verdict = self._record(flight, jobs, error, self._clock.now(), 0.0)
                self._release(claim, verdict)
            else:
                task = asyncio.create_task(self._carry(flight))
                self._flights[task] = flight
                task.add_done_callback(self._landed)

    def _deadline(self) -> float:
        return self._clock.steady() + self._office.limit

    def _give_back(self) -> None:
        """Release what is leased and has not left."""
        releases = tuple(Release(lane=claim.lane, due=claim.due, floor=claim.floor) for claim in self._ready)
        self._turn = replace(self._turn, released=self._turn.released + releases)
        self._ready.clear()

    async def _open(self) -> Exception | None:
        """Open the sink, unless it is; what it raises counts as a failed attempt."""
        if self._sink is not None:
            return None
        try:
            async with asyncio.timeout(self._office.limit):
                self._sink = await self._opened.enter_async_context(self._route.open_sink())
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it is recorded and retried
            self._complain("sink.not_opened", error)
            return error
        return None

    async def _carry(self, flight: Flight) -> None:
        """Attempt the jobs of a claim in order, and stop behind the first that stays pending."""
        claim = flight.claim
        parts = [claim.jobs] if self._together else [(job,) for job in claim.jobs]
        reference = claim.last_reference
        verdict: Verdict | None = None
        for jobs in parts:
            flight.deadline = self._deadline()
            began, at = self._clock.steady(), self._clock.now()
            attempt = Attempt(number=jobs[0].attempts + 1, delivery_id=str(jobs[0].id), last_reference=reference)
            answer = await self._attempt(flight, jobs, attempt)
            verdict = self._record(flight, jobs, answer, at, self._clock.steady() - began)
            self._bell.ring()
            if isinstance(answer, Receipt):
                reference = answer.reference or reference
            if verdict.state == "pending" or self._stopping or self._is_held():
                break
        self._release(claim, verdict)

    async def _attempt(self, flight: Flight, jobs: tuple[Job, ...], attempt: Attempt) -> Receipt | Exception:
        """Call the sink: the one place where it can raise what it likes."""
        assert self._sink is not None
        try:
            receipt = await self._sink.deliver([job.event for job in jobs], attempt)
        except asyncio.CancelledError:
            if flight.expired:
                return TimeoutError(f"no answer within {self._office.limit:g} s")
            if self._stopping:
                return Unfinished("the program stopped before the answer came; it may have arrived")
            raise
        except DeliveryError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it is recorded and retried
            if not isinstance(error, OSError):
                self._complain("sink.raised", error)
            return error
        return receipt if isinstance(receipt, Receipt) else Receipt(status="ok")

    def _complain(self, event: str, error: Exception) -> None:
        log.warning(event, subscription=self._name, sink=self._route.subscription.plugin, exc_info=error)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._flights[task]
        self._bell.ring()
        if not task.cancelled():
            self._fault = self._fault or task.exception()

    def _expire(self) -> None:
        """Give up attempts that hang."""
        now = self._clock.steady()
        for task, flight in self._flights.items():
            if flight.deadline <= now and not flight.expired:
                flight.expired = True
                task.cancel()

    # The books: what an attempt came to.

    def _record(
        self, flight: Flight, jobs: tuple[Job, ...], answer: Receipt | Exception, at: float, latency: float
    ) -> Verdict:
        """Note what an attempt came to, for the next exchange."""
        first, receipt, now = jobs[0], receipt_of(answer), self._clock.now()
        if isinstance(answer, Unfinished):
            verdict = Verdict(state="pending", tries=first.tries, refusals=first.refusals, floor=flight.claim.floor)
        else:
            verdict = judge(
                answer,
                tries=first.tries,
                refusals=first.refusals,
                schedule=self._route.subscription.retry,
                now=now,
                chance=self._office.random.random(),
                early=flight.early,
            )
        row = AttemptRow(
            number=first.attempts + 1,
            at=at,
            latency=latency,
            status=receipt.status,
            text=receipt.text,
            reference=receipt.reference,
        )
        settlement = Settlement(
            lane=flight.claim.lane,
            ids=tuple(job.id for job in jobs),
            state=verdict.state,
            tries=verdict.tries,
            refusals=verdict.refusals,
            attempt=row,
        )
        self._turn = replace(self._turn, settled=(*self._turn.settled, settlement))
        self._diagnose(answer, jobs[0], row.number, receipt, now)
        self._office.finished(Finished(subscription=self._name, jobs=jobs, state=verdict.state, attempt=row))
        return verdict

    def _release(self, claim: Claim, verdict: Verdict | None) -> None:
        release = Release(lane=claim.lane)
        if verdict is not None and verdict.state == "pending":
            release = Release(lane=claim.lane, due=verdict.due, floor=verdict.floor)
        self._turn = replace(self._turn, released=(*self._turn.released, release))

    def _diagnose(self, answer: Receipt | Exception, job: Job, number: int, receipt: Receipt, now: float) -> None:
        """Follow the health of the sink, and tell when an episode begins or ends."""
        before = self._health
        if isinstance(answer, Unfinished):
            return
        if isinstance(answer, Gone):
            if self._active:
                self._active = False
                self._turn = replace(self._turn, disabled=f"{receipt.status}: the receiver wants no more")
                self._tell(notices.disabled(self._name, job.event, number, receipt, now=now))
            return
        if isinstance(answer, Receipt):
            self._set_health(breaker.succeeded(before))
            if breaker.is_open(before):
                self._turn = replace(self._turn, promote=not self._together)
                self._tell(notices.recovered(self._name, job.event, number, receipt, before, now=now))
            return
        error = f"{receipt.status} {receipt.text[:200]}".strip()
        self._set_health(breaker.failed(before, error, now=now))
        if breaker.is_open(self._health) and not breaker.is_open(before):
            self._give_back()
            self._tell(notices.failing(self._name, job.event, number, receipt, self._health, now=now))

    def _set_health(self, health: Health) -> None:
        if health != self._health:
            self._health = health
            self._turn = replace(self._turn, health=health)
            self._next = 0.0

    def _tell(self, notice: notices.Notice) -> None:
        self._turn = replace(self._turn, notices=(*self._turn.notices, notice))

    async def _finish(self) -> None:
        """Let attempts end, within the grace; record the rest as unfinished, give everything back, close the sink."""
        self._stopping = True
        try:
            await self._ground()
            self._give_back()
            if self._has_news():
                await self._commit(replace(self._turn, now=self._clock.now(), due_at=self._route.due_at))
        finally:
            await self._bell.close()
            try:
                await self._opened.aclose()
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything; there is nothing left to lose
                self._complain("sink.not_closed", error)

    async def _ground(self) -> None:
        if not self._flights:
            return
        patience = asyncio.create_task(self._clock.sleep(self._office.grace))
        while self._flights and not patience.done():
            await asyncio.wait([patience, *self._flights], return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        flights = list(self._flights)
        for task in flights:
            task.cancel()
        if flights:
            await asyncio.wait(flights, timeout=self._office.grace)
