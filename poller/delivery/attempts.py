"""The attempts of one subscription: side by side for different objects, one after the other for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import structlog

from poller.clock import Clock
from poller.delivery.retry import RetryDecision, Unfinished
from poller.delivery.subscription import Route
from poller.sinks.protocol import Attempt, DeliveryError, Receipt, Sink
from state.deliveries import Claim, Job

log = structlog.get_logger("poller.delivery")


@dataclass(slots=True, kw_only=True)
class RunningAttempt:
    """A claim on its way."""

    claim: Claim
    deadline: float  # steady time at which the current attempt is given up
    was_due: float | None  # of a probe: when it was due
    expired: bool = False  # the current attempt was


class Desk(Protocol):
    """Where left come from and report to."""

    def next_claim(self) -> Claim | None:
        """What may leave behind a running that is over, if anything."""
        ...

    def answered(
        self, running: RunningAttempt, jobs: tuple[Job, ...], answer: Receipt | Exception, at: float, latency: float
    ) -> RetryDecision:
        """An attempt at these jobs is over."""
        ...

    def may_follow(self, decision: RetryDecision) -> bool:
        """Whether the next job of a claim may leave behind an attempt that came to this."""
        ...

    def landed(self, claim: Claim, decision: RetryDecision | None) -> None:
        """Nothing more of this claim leaves for now."""
        ...


class AttemptRunner:
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
        self._running: dict[asyncio.Task[None], RunningAttempt] = {}
        self._stopping = False
        self.fault: BaseException | None = None  # of ours, not of a sink

    def __len__(self) -> int:
        return len(self._running)

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

    def launch(self, claim: Claim, was_due: float | None) -> None:
        """Let a claim leave."""
        running = RunningAttempt(claim=claim, deadline=self._clock.steady() + self._limit, was_due=was_due)
        task = asyncio.create_task(self._carry_on(running))
        self._running[task] = running
        task.add_done_callback(self._landed)

    def first_deadline(self) -> float | None:
        """Steady time at which the next attempt is given up, if it does not end before."""
        return min((running.deadline for running in self._running.values() if not running.expired), default=None)

    def expire(self) -> None:
        """Give up attempts that hang."""
        now = self._clock.steady()
        for task, running in self._running.items():
            if running.deadline <= now and not running.expired:
                running.expired = True
                task.cancel()

    async def finish(self, grace: float) -> None:
        """Let attempts end within `grace` seconds, and cancel the rest: `Unfinished` is their answer."""
        self._stopping = True
        if not self._running:
            return
        patience = asyncio.create_task(self._clock.sleep(grace))
        while self._running and not patience.done():
            await asyncio.wait([patience, *self._running], return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=grace)

    async def close(self) -> None:
        """Close the sink."""
        try:
            await self._opened.aclose()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; there is nothing left to lose
            self._complain("sink.not_closed", error)

    async def _carry_on(self, running: RunningAttempt) -> None:
        """Carry a claim, and then what waits behind it: that need not wait for the store."""
        claim: Claim | None = running.claim
        while claim is not None:
            running.claim = claim
            decision = await self._carry(running)
            self._desk.landed(claim, decision)
            running.was_due = None
            claim = self._desk.next_claim()

    async def _carry(self, running: RunningAttempt) -> RetryDecision | None:
        """Attempt the jobs of a claim in order, and stop behind the first that stays pending."""
        claim = running.claim
        parts = [claim.jobs] if self._together else [(job,) for job in claim.jobs]
        reference = claim.last_reference
        decision: RetryDecision | None = None
        for jobs in parts:
            at, began = self._clock.now(), self._clock.steady()
            running.deadline, running.expired = began + self._limit, False
            attempt = Attempt(number=jobs[0].attempts + 1, delivery_id=str(jobs[0].id), last_reference=reference)
            answer = await self._attempt(running, jobs, attempt)
            decision = self._desk.answered(running, jobs, answer, at, self._clock.steady() - began)
            self._changed()
            if isinstance(answer, Receipt):
                reference = answer.reference or reference
            if not self._desk.may_follow(decision):
                break
        return decision

    async def _attempt(self, running: RunningAttempt, jobs: tuple[Job, ...], attempt: Attempt) -> Receipt | Exception:
        assert self._sink is not None
        try:
            receipt = await self._sink.deliver([job.event for job in jobs], attempt)
        except asyncio.CancelledError:
            if not (running.expired or self._stopping):
                raise
            if (task := asyncio.current_task()) is not None:
                task.uncancel()  # it goes on: what the sink does next must not take itself for cancelled
            if running.expired:
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
        del self._running[task]
        self._changed()
        if not task.cancelled():
            self.fault = self.fault or task.exception()
