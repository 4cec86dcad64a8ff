"""The attempts of one subscription: side by side for different objects, one after the other for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import structlog

from poller.clock import Clock
from poller.delivery.retry import Unfinished, Verdict
from poller.delivery.subscription import Route
from poller.sinks.protocol import Attempt, DeliveryError, Receipt, Sink
from state.deliveries import Claim, Job

log = structlog.get_logger("poller.delivery")


@dataclass(slots=True, kw_only=True)
class Flight:
    """A claim on its way."""

    claim: Claim
    deadline: float  # steady time at which the current attempt is given up
    early: float | None  # of a probe: when it was due
    expired: bool = False  # the current attempt was


class Desk(Protocol):
    """Where flights come from and report to."""

    def next_claim(self) -> Claim | None:
        """What may leave behind a flight that is over, if anything."""
        ...

    def answered(
        self, flight: Flight, jobs: tuple[Job, ...], answer: Receipt | Exception, at: float, latency: float
    ) -> Verdict:
        """An attempt at these jobs is over."""
        ...

    def may_follow(self, verdict: Verdict) -> bool:
        """Whether the next job of a claim may leave behind an attempt that came to this."""
        ...

    def landed(self, claim: Claim, verdict: Verdict | None) -> None:
        """Nothing more of this claim leaves for now."""
        ...


class Flights:
    """Calls the sink: the one place where it may raise what it likes. An attempt has `limit` seconds at most."""

    def __init__(self, route: Route, desk: Desk, *, clock: Clock, limit: float, changed: Callable[[], None]) -> None:
        self._route = route
        self._name = route.subscription.name
        self._together = route.subscription.digest is not None
        self._desk = desk
        self._clock = clock
        self._limit = limit
        self._changed = changed
        self._sink: Sink | None = None
        self._opened = AsyncExitStack()
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._stopping = False
        self.fault: BaseException | None = None  # of ours, not of a sink

    def __len__(self) -> int:
        return len(self._flights)

    async def open(self) -> Exception | None:
        """Open the sink, unless it is; what it raises counts as a failed attempt."""
        if self._sink is not None:
            return None
        try:
            async with asyncio.timeout(self._limit):
                self._sink = await self._opened.enter_async_context(self._route.open_sink())
            self._limit = getattr(self._sink, "attempt_limit", self._limit)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it is recorded and retried
            self._complain("sink.not_opened", error)
            return error
        return None

    def launch(self, claim: Claim, early: float | None) -> None:
        """Let a claim leave."""
        flight = Flight(claim=claim, deadline=self._clock.steady() + self._limit, early=early)
        task = asyncio.create_task(self._fly(flight))
        self._flights[task] = flight
        task.add_done_callback(self._landed)

    def first_deadline(self) -> float | None:
        """Steady time at which the next attempt is given up, if it does not end before."""
        return min((flight.deadline for flight in self._flights.values() if not flight.expired), default=None)

    def expire(self) -> None:
        """Give up attempts that hang."""
        now = self._clock.steady()
        for task, flight in self._flights.items():
            if flight.deadline <= now and not flight.expired:
                flight.expired = True
                task.cancel()

    async def finish(self, grace: float) -> None:
        """Let attempts end within `grace` seconds, and cancel the rest: `Unfinished` is their answer."""
        self._stopping = True
        if not self._flights:
            return
        patience = asyncio.create_task(self._clock.sleep(grace))
        while self._flights and not patience.done():
            await asyncio.wait([patience, *self._flights], return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        flights = list(self._flights)
        for task in flights:
            task.cancel()
        if flights:
            await asyncio.wait(flights, timeout=grace)

    async def close(self) -> None:
        """Close the sink."""
        try:
            await self._opened.aclose()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; there is nothing left to lose
            self._complain("sink.not_closed", error)

    async def _fly(self, flight: Flight) -> None:
        """Carry a claim, and then what waits behind it: that need not wait for the store."""
        claim: Claim | None = flight.claim
        while claim is not None:
            flight.claim = claim
            verdict = await self._carry(flight)
            self._desk.landed(claim, verdict)
            flight.early = None
            claim = self._desk.next_claim()

    async def _carry(self, flight: Flight) -> Verdict | None:
        """Attempt the jobs of a claim in order, and stop behind the first that stays pending."""
        claim = flight.claim
        parts = [claim.jobs] if self._together else [(job,) for job in claim.jobs]
        reference = claim.last_reference
        verdict: Verdict | None = None
        for jobs in parts:
            at, began = self._clock.now(), self._clock.steady()
            flight.deadline, flight.expired = began + self._limit, False
            attempt = Attempt(number=jobs[0].attempts + 1, delivery_id=str(jobs[0].id), last_reference=reference)
            answer = await self._attempt(flight, jobs, attempt)
            verdict = self._desk.answered(flight, jobs, answer, at, self._clock.steady() - began)
            self._changed()
            if isinstance(answer, Receipt):
                reference = answer.reference or reference
            if not self._desk.may_follow(verdict):
                break
        return verdict

    async def _attempt(self, flight: Flight, jobs: tuple[Job, ...], attempt: Attempt) -> Receipt | Exception:
        assert self._sink is not None
        try:
            receipt = await self._sink.deliver([job.event for job in jobs], attempt)
        except asyncio.CancelledError:
            if not (flight.expired or self._stopping):
                raise
            if (task := asyncio.current_task()) is not None:
                task.uncancel()  # it goes on: what the sink does next must not take itself for cancelled
            if flight.expired:
                return TimeoutError(f"no answer within {self._limit:g} s")
            return Unfinished("the program stopped before the answer came; it may have arrived")
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
        self._changed()
        if not task.cancelled():
            self.fault = self.fault or task.exception()
