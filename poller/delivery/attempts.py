"""The attempts of one subscription: side by side for different objects, one after the other for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Protocol, TypeGuard

import structlog

from poller.clock import Clock
from poller.delivery.retry import RetryDecision, Unfinished
from poller.delivery.subscription import Route
from poller.hooks.faults import abandon, is_cancelled, running_task, said, trace
from poller.sinks.protocol import Attempt, DeliveryError, Receipt, RetryLater, Sink
from state.deliveries import Claim, Job

log = structlog.get_logger("poller.delivery")

UNFINISHED: Final = "the program stopped before the answer came; it may have arrived"
LONGEST: Final = 86_400.0  # seconds of an attempt, whatever a sink asks for
OBEY: Final = 5.0  # seconds that a sink has to obey its cancellation


@dataclass(slots=True, kw_only=True)
class RunningAttempt:
    """A claim on its way."""

    claim: Claim
    deadline: float  # steady time at which the current attempt is given up
    was_due: float | None  # of a probe: when it was due
    expired: bool = False  # the current attempt was
    jobs: tuple[Job, ...] = ()  # what the current attempt delivers
    at: float = 0.0  # when it began
    began: float = 0.0  # the same in steady time
    abandoned_at: float | None = None  # steady time at which a sink that does not obey is given up
    abandoned: bool = False


class Desk(Protocol):
    """Where attempts come from and report to."""

    def next_claim(self) -> Claim | None:
        """What may leave after a claim that is over, if anything."""
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
        self._plugin = route.subscription.plugin
        self._together = route.subscription.digest is not None
        self._desk = desk
        self._clock = clock
        self._limit = limit
        self._changed = changed
        self._sink: Sink | None = None
        self._opened = AsyncExitStack()
        self._running: dict[asyncio.Task[None], RunningAttempt] = {}
        self._stopping = False
        self._disobeyed = False
        self._unreceipted = False
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
            if _is_number(limit := getattr(self._sink, "attempt_limit", None)):
                self._limit = min(limit, LONGEST)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            self._complain("sink.not_opened", error)
            return _judgeable(error)
        return None

    def launch(self, claim: Claim, was_due: float | None) -> None:
        """Let a claim leave."""
        running = RunningAttempt(claim=claim, deadline=self._clock.steady() + self._limit, was_due=was_due)
        task = asyncio.create_task(self._carry_on(running))
        self._running[task] = running
        task.add_done_callback(self._landed)

    def first_deadline(self) -> float | None:
        """Steady time at which the next attempt is given up, if it does not end before."""
        left = self._running.values()
        return min((one.abandoned_at if one.abandoned_at is not None else one.deadline for one in left), default=None)

    def expire(self) -> None:
        """Give up attempts that hang; wait no longer for a sink that ignores that."""
        now = self._clock.steady()
        for task, running in list(self._running.items()):
            if running.abandoned_at is not None and running.abandoned_at <= now:
                self._abandon(task, running, TimeoutError(f"no answer within {self._limit:g} s"))
            elif running.deadline <= now and not running.expired:
                running.expired, running.abandoned_at = True, now + OBEY
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
            await asyncio.wait(left, timeout=min(grace, OBEY))
        for task, running in list(self._running.items()):
            self._abandon(task, running, Unfinished(UNFINISHED))

    async def close(self) -> None:
        """Close the sink."""
        try:
            async with asyncio.timeout(OBEY):
                await self._opened.aclose()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            self._complain("sink.not_closed", error)

    def _abandon(self, task: asyncio.Task[None], running: RunningAttempt, answer: Exception) -> None:
        """Go on without an attempt that ignores its cancellation, as if it had ended so."""
        del self._running[task]
        running.abandoned = True
        label = f"{self._plugin}.deliver"
        abandon(task, label, quietly=self._disobeyed)
        self._disobeyed = True
        latency = self._clock.steady() - running.began
        decision = self._desk.answered(running, running.jobs, answer, running.at, latency)
        self._desk.landed(running.claim, decision)
        self._changed()

    async def _carry_on(self, running: RunningAttempt) -> None:
        """Carry a claim, and then what waits behind it: that need not wait for the store."""
        claim: Claim | None = running.claim
        while claim is not None:
            running.claim = claim
            decision = await self._carry(running)
            if running.abandoned:
                return
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
            running.jobs, running.at, running.began = jobs, at, began
            running.deadline, running.expired, running.abandoned_at = began + self._limit, False, None
            attempt = Attempt(number=jobs[0].attempts + 1, delivery_id=str(jobs[0].id), last_reference=reference)
            answer = await self._attempt(running, jobs, attempt)
            if running.abandoned:
                return None
            decision = self._desk.answered(running, jobs, answer, at, self._clock.steady() - began)
            self._changed()
            if isinstance(answer, Receipt):
                reference = answer.reference or reference
            if not self._desk.may_follow(decision):
                break
        return decision

    async def _attempt(self, running: RunningAttempt, jobs: tuple[Job, ...], attempt: Attempt) -> Receipt | Exception:
        assert self._sink is not None
        failure: BaseException | None = None
        task = running_task()
        try:
            receipt = await self._sink.deliver([job.event for job in jobs], attempt)
        except BaseException as error:
            if running_task() is not task:
                raise  # nobody runs this any more: it was abandoned, and the interpreter throws it away
            given_up = running.expired or self._stopping
            if isinstance(error, asyncio.CancelledError) and is_cancelled() and not given_up:
                raise
            failure = error
        stopped = is_cancelled()
        while task is not None and task.cancelling():  # it goes on: the sink's next call must not seem cancelled
            task.uncancel()
        if failure is None:
            return self._receipt(receipt)
        if not (stopped and isinstance(failure, asyncio.CancelledError)):
            return self._failed(failure)
        return TimeoutError(f"no answer within {self._limit:g} s") if running.expired else Unfinished(UNFINISHED)

    def _failed(self, error: BaseException) -> Exception:
        if not isinstance(error, OSError | DeliveryError):
            self._complain("sink.raised", error)
        return _judgeable(error)

    def _receipt(self, returned: object) -> Receipt:
        """What `deliver` returned. To return at all is to promise that the receiver has the events."""
        if isinstance(returned, Receipt):
            return returned
        if not self._unreceipted:
            self._unreceipted = True
            hint = "it counts as delivered; let deliver() return a Receipt"
            log.warning("sink.no_receipt", subscription=self._name, sink=self._plugin, hint=hint)
        return Receipt(status="ok")

    def _complain(self, event: str, error: BaseException) -> None:
        log.warning(event, subscription=self._name, sink=self._plugin, error=said(error))
        log.debug("sink.traceback", sink=self._plugin, trace=trace(error))

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._changed()
        if not task.cancelled():
            self.fault = self.fault or task.exception()


def _judgeable(error: BaseException) -> Exception:
    """What a sink raised, as an error of the contract: whatever breaks it is an attempt that failed."""
    if isinstance(error, TimeoutError):
        return error
    if isinstance(error, DeliveryError) and isinstance(getattr(error, "receipt", None), Receipt):
        if not isinstance(error, RetryLater):
            return error
        after = getattr(error, "after", None)
        return error if _is_number(after) else RetryLater(None, error.receipt)
    return RetryLater(None, Receipt(status=type(error).__name__, text=_text_of(error)))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - even `str` of it is a plugin's code
        return said(error)


def _is_number(given: object) -> TypeGuard[float]:
    return isinstance(given, int | float) and not isinstance(given, bool) and given > 0
