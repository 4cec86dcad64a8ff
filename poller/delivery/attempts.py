"""The attempts of one subscription: concurrent for different objects, one after the other for the same object."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import structs

from poller.clock import Clock
from poller.delivery.batches import batches, halves
from poller.delivery.claims import Answer, ClaimsInHand, RunningAttempt
from poller.delivery.opened_sink import OpenedSink, ends
from poller.delivery.retry import RetryDecision, Unfinished
from poller.delivery.subscription import Route
from poller.hooks.faults import abandon, running_task
from poller.sinks.protocol import Attempt, Receipt
from poller.tracing import span
from state.deliveries import Claim

T = TypeVar("T")
CANCELLING = 5.0  # seconds that a cancelled attempt has to end; then it is abandoned


class AttemptRunner:
    """Runs attempts in tasks. An attempt that exceeds the limit is cancelled, and abandoned if that does not end it."""

    def __init__(
        self, route: Route, hand: ClaimsInHand, *, clock: Clock, limit: float, changed: Callable[[], None]
    ) -> None:
        self._plugin = route.subscription.plugin
        self._name = route.subscription.name
        self.sink = OpenedSink(route, clock=clock, limit=limit)
        self._hand = hand
        self._clock = clock
        self._changed = changed
        self._running: dict[asyncio.Task[None], RunningAttempt] = {}
        self._stopping = False
        self._disobeyed = False  # an attempt was abandoned; logged once
        self.fault: BaseException | None = None  # an error of Poller, not of a sink

    def __len__(self) -> int:
        return len(self._running)

    def launch(self, claim: Claim, was_due: float | None) -> None:
        """Begin the attempts of a claim."""
        running = RunningAttempt(claim=claim, deadline=self._clock.steady() + self.sink.attempt_limit, was_due=was_due)
        task = asyncio.create_task(self._run(running))
        self._running[task] = running
        task.add_done_callback(self._ended)

    def first_deadline(self) -> float | None:
        """Steady time at which the next attempt must be cancelled or abandoned."""
        deadlines = (one.deadline + CANCELLING if one.expired else one.deadline for one in self._running.values())
        return min(deadlines, default=None)

    def expire(self) -> None:
        """Cancel attempts that exceed the limit, and abandon those that continue in spite of that."""
        now = self._clock.steady()
        for task, running in list(self._running.items()):
            if running.deadline <= now and not running.expired:
                running.expired = True
                task.cancel()
            elif running.expired and running.deadline + CANCELLING <= now:
                self._abandon(task, running, _timeout(self.sink.attempt_limit))

    async def finish(self, grace: float) -> None:
        """Let attempts end within `grace` seconds, then cancel them; their answer is `Unfinished`."""
        self._stopping = True
        if not self._running or await ends(list(self._running), self._clock, grace):
            return
        for task in list(self._running):
            task.cancel()
        await ends(list(self._running), self._clock, CANCELLING)
        for task, running in list(self._running.items()):
            if not task.done():
                self._abandon(task, running, _unfinished())

    async def close(self) -> None:
        """Close the sink."""
        await self.sink.close()

    async def _run(self, running: RunningAttempt) -> None:
        """Make the attempts of a claim, then those of claims that may follow it without waiting for the store."""
        claim: Claim | None = running.claim
        while claim is not None:
            running.claim = claim
            decision = await self._carry(running)
            if running.abandoned:
                return
            self._hand.release(claim, decision)
            running.was_due = None
            claim = self._hand.next_claim()

    async def _carry(self, running: RunningAttempt) -> RetryDecision | None:
        """Attempt the jobs of a claim in order, and stop after the first that remains pending."""
        claim, decision = running.claim, None
        reference = claim.last_reference
        running.jobs = claim.jobs if self._hand.together else claim.jobs[:1]
        not_opened = None if self.sink.is_open else await self._timed(running, self.sink.open())
        if self._hand.together:
            running.waiting.extend(batches(claim.jobs, self.sink.max_bytes))
        else:
            running.waiting.extend((job,) for job in claim.jobs)
        # An attempt that ended since the launch may have disabled the subscription.
        while running.waiting and not running.abandoned and self._hand.health.active:
            running.jobs = running.waiting.popleft()
            answer = not_opened or await self._attempt(running, reference)
            if not running.abandoned:
                decision = self._concluded(running, answer)
            if isinstance(answer, Receipt):
                reference = answer.reference or reference
        return decision

    async def _attempt(self, running: RunningAttempt, reference: str | None) -> Answer:
        """One call of the sink."""
        first = running.jobs[0]
        attempt = Attempt(number=first.attempts + 1, delivery_id=str(first.id), last_reference=reference)
        with span(
            "deliver",
            subscription=self._name,
            sequence=first.event.seq,
            events=len(running.jobs),
            attempt=attempt.number,
        ) as note:
            answer = await self._timed(running, self.sink.deliver([job.event for job in running.jobs], attempt))
            if isinstance(answer, Receipt):
                note(status=answer.status)
            else:
                note(failure=type(answer).__name__)
        return answer

    async def _timed(self, running: RunningAttempt, call: Awaitable[T]) -> T | Exception:
        """The result of the call, unless it is given up."""
        running.at, running.began = self._clock.now(), self._clock.steady()
        running.deadline, running.expired = running.began + self.sink.attempt_limit, False
        task = asyncio.current_task()
        try:
            return await call
        except asyncio.CancelledError:
            if not (running.expired or self._stopping):
                raise
            return _timeout(self.sink.attempt_limit) if running.expired else _unfinished()
        finally:
            if task is not None and task.cancelling():
                _forget_cancellation(task)

    def _concluded(self, running: RunningAttempt, answer: Answer) -> RetryDecision:
        """Report an answer, and keep only the jobs that may follow it."""
        latency = self._clock.steady() - running.began
        decision = self._hand.answered(running, answer, latency)
        if decision.halves and self._hand.may_go_on and not decision.not_before:
            attempted = [structs.replace(job, attempts=running.jobs[0].attempts + 1) for job in running.jobs]
            running.waiting.extendleft(reversed(halves(attempted)))
        elif not self._hand.may_follow(decision):
            running.waiting.clear()
        self._changed()
        return decision

    def _abandon(self, task: asyncio.Task[None], running: RunningAttempt, answer: Answer) -> None:
        """Decide the answer of an attempt that does not end."""
        running.abandoned = True
        del self._running[task]
        abandon(task, f"{self._plugin}.deliver", quietly=self._disobeyed)
        self._disobeyed = True
        decision = self._hand.answered(running, answer, self._clock.steady() - running.began)
        self._hand.release(running.claim, decision)
        self._changed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        running = self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None and running is not None:
            self.fault = self.fault or error
        self._changed()


def _timeout(limit: float) -> TimeoutError:
    return TimeoutError(f"no answer within {limit:g} s")


def _unfinished() -> Unfinished:
    return Unfinished("the program stopped before the answer came; it may have arrived")


def _forget_cancellation(task: asyncio.Task[None]) -> None:
    """Clear the task's cancellation, because the task continues and the sink must not see itself cancelled."""
    if running_task() is not task:  # an abandoned task, discarded by the interpreter while another task runs
        return
    while task.cancelling():
        task.uncancel()
