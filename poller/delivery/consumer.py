"""One subscription's deliveries: claimed in batches, carried to the sink side by side, settled in batches.

The consumer holds no queue of its own beyond what it has leased: what waits, waits in the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import structlog

from poller.clock import Clock
from poller.delivery.attempts import Answer, AttemptRunner, RunningAttempt
from poller.delivery.batches import BATCH_EVENTS, halves
from poller.delivery.retry import RetryDecision, Unfinished, judge, receipt_of
from poller.delivery.settlement import AttemptFinished, SettlementDraft
from poller.delivery.subscription import Route
from poller.delivery.subscription_health import SubscriptionHealth
from poller.delivery.wakeup import Wakeup
from poller.sinks.protocol import Receipt, TooLarge
from state.deliveries import AttemptRow, Claim, ClaimRequest, Job, Settled
from state.errors import LeaseLost, StateError, Unavailable
from state.leases import Lease
from state.steps import Steps
from state.store import DeliveryStore

OUTAGE_WAIT = 2.0  # seconds between two tries while the state cannot be written
WINDOW = 64  # deliveries leased at once, at least

log = structlog.get_logger("poller.delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What consumers share, and whom they report to."""

    store: DeliveryStore
    steps: Steps
    clock: Clock
    random: Random
    limit: float  # seconds of one attempt, whole
    grace: float  # seconds in which attempts may end when the program stops
    log_grew: Callable[[], None]  # something was recorded, or there is room to read on
    at_rest: Callable[[], None]  # a consumer has nothing to do for now
    finished: Callable[[AttemptFinished], None]  # an attempt is over


class Consumer:
    """Gives a subscription's events to its sink."""

    def __init__(self, route: Route, lease: Lease, shared: Shared) -> None:
        self._route = route
        self._lease = lease
        self._name = route.subscription.name
        self._together = BATCH_EVENTS if route.subscription.digest is not None else 0
        self._window = max(WINDOW, 4 * route.subscription.concurrency)
        self._shared = shared
        self._clock = shared.clock
        self._wakeup = Wakeup(shared.clock)
        self._health = SubscriptionHealth(self._name, promotes=not self._together)
        self._runner = AttemptRunner(route, self, clock=shared.clock, limit=shared.limit, changed=self._wakeup.set)
        self._ready: deque[Claim] = deque()  # leased, not yet on its way
        self._draft = SettlementDraft(digest=self._together > 0)
        self._look = True  # the store may have something new for us
        self._next: float | None = None  # when it has by itself
        self._known = False  # how it stands is in the store
        self._is_stuck = False  # what attempts came to cannot be written: nothing more leaves
        self._resting = False
        self._stop = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Look into the store again, soon."""
        self._look = True
        self._resting = False
        self._wakeup.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, to be written, or due."""
        return self._resting and not self._wakeup.is_set

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set (wake it after setting it); then end what runs, or record it as unfinished."""
        self._stop = stop
        try:
            while not stop.is_set():
                await self._exchange()
                self._launch()
                if not self._has_business():
                    self._rest()
                    await self._wakeup.wait(self._until())
                    self._resting = False
                self._runner.expire()
                if self._runner.fault is not None:
                    raise self._runner.fault
        finally:
            await self._finish()

    def _rest(self) -> None:
        self._resting = not (self._runner or self._ready or self._draft)
        if self._resting:
            self._shared.at_rest()

    async def _finish(self) -> None:
        """Let attempts end, within the grace; record the rest as unfinished, give everything back, close the sink."""
        self._stopping = True
        try:
            await self._runner.finish(self._shared.grace)
            self._give_back()
            if self._draft:
                await self._commit(self._draft, None)
        finally:
            await self._wakeup.close()
            await self._runner.close()

    # The store: what is written next, and when there is a reason to.

    def _has_business(self) -> bool:
        """Whether another exchange would do something now."""
        return bool(self._draft) or self._wants_claim() or (self._look and self._health.is_held) or not self._known

    def _wants_claim(self) -> bool:
        return self._room() > 0 and (self._look or (self._next is not None and self._next <= self._clock.now()))

    def _room(self) -> int:
        """How many deliveries to claim; while the breaker is open one, and only when it may be probed."""
        if not (self._known and self._health.active) or self._stopping:
            return 0
        if self._health.is_open:
            in_hand = self._ready or self._runner
            return int(not in_hand and self._health.may_probe(self._clock.now()))
        held = sum(len(claim.jobs) for claim in self._ready) + len(self._runner)
        return self._window - held if held <= self._window // 2 else 0

    async def _exchange(self) -> None:
        """Write what there is to write, and take what there is room for."""
        if not self._has_business():
            return
        claim = self._claim_request() if self._wants_claim() else None
        draft, self._draft = self._draft, SettlementDraft(digest=self._together > 0)
        if claim is not None or self._health.is_held:
            self._look = False
        self._take(draft, claim, await self._commit(draft, claim))

    def _claim_request(self) -> ClaimRequest:
        """As much as there is room for; of a digest one, and for a probe one delivery."""
        probing = self._health.is_open
        return ClaimRequest(
            deliveries=self._room(),
            per_lane=1 if probing else 16,
            together=self._together,
            max_bytes=self._runner.max_bytes,
            probe=probing and not self._together,
        )

    async def _commit(self, draft: SettlementDraft, claim: ClaimRequest | None) -> Settled:
        """Write the draft, as often as it takes: what has arrived must not be forgotten because a disk is full."""
        batch = draft.settlement(self._clock.now())
        wait = 1.0
        while True:
            try:
                settled = await self._shared.steps(self._shared.store.settle, self._lease, batch, claim)
                self._is_stuck = False
                return settled
            except LeaseLost:
                raise
            except Unavailable:  # reported once, where the outage is seen through
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

    def _take(self, draft: SettlementDraft, claim: ClaimRequest | None, settled: Settled) -> None:
        self._known = True
        self._health.learn(settled, self._draft)
        self._next = settled.next_due
        if self._health.is_open:
            self._next = settled.next_due if claim is not None and not settled.claims else 0.0
        self._ready.extend(settled.claims)
        if settled.recorded or (settled.wants_more and draft.settled):
            self._shared.log_grew()

    def _until(self) -> float | None:
        """When to wake without being woken."""
        times = []
        if (deadline := self._runner.first_deadline()) is not None:  # attempts are counted on steady time
            times.append(self._clock.now() + max(0.0, deadline - self._clock.steady()))
        if self._next is not None and self._health.active:
            opens = self._health.health.open_until
            if opens is None and self._room():
                times.append(self._next)
            elif opens is not None and not (self._ready or self._runner):
                times.append(max(opens, self._next))
        return min(times, default=None)

    # The sink: what leaves, and what came of it.

    def _launch(self) -> None:
        """Let leave what is ready, as far as there is room beside each other."""
        if self._ready and not self._health.active:
            self._give_back()
        while self._ready and len(self._runner) < self._route.subscription.concurrency:
            claim = self._ready.popleft()
            was_due = claim.due if self._health.is_open and claim.due > self._clock.now() else None
            self._runner.launch(claim, was_due)

    @property
    def may_go_on(self) -> bool:
        """Whether anything may leave without asking the store."""
        return not (self._health.is_held or self._stopping or self._is_stuck)

    def next_claim(self) -> Claim | None:
        """What is ready, where it need not ask the store whether it may leave."""
        return self._ready.popleft() if self._ready and self.may_go_on else None

    def answered(self, running: RunningAttempt, answer: Answer, latency: float) -> RetryDecision:
        """Note what an attempt came to, for the next exchange."""
        first, receipt, now = running.jobs[0], receipt_of(answer), self._clock.now()
        decision = self._judge(running, first, answer, now)
        row = _row(running, receipt, latency)
        self._draft.settle(running.claim, running.jobs, decision, row)
        held = self._health.is_open
        self._health.follow(answer, first, row.number, receipt, self._draft, now=now, not_before=decision.not_before)
        if decision.state == "dead":
            self._health.report_dead(running.jobs, row.number, receipt, self._draft, now=now)
        if self._health.is_open and not held:
            self._give_back()
        if self._draft.health is not None:
            self._next = 0.0
        self._finished(running, decision, row)
        return decision

    def halved(self, running: RunningAttempt, answer: TooLarge, latency: float) -> None:
        """Note an attempt that carried too much: each half is a digest of its own from now on."""
        row = _row(running, receipt_of(answer), latency)
        first = running.jobs[0]
        decision = RetryDecision(state="pending", retries=first.retries, refusals=first.refusals)
        for half in halves(running.jobs):
            self._draft.settle(running.claim, half, decision, row)
        self._finished(running, decision, row)

    def _finished(self, running: RunningAttempt, decision: RetryDecision, row: AttemptRow) -> None:
        self._shared.finished(
            AttemptFinished(
                subscription=self._name, jobs=running.jobs, state=decision.state, attempt=row, due=decision.due
            )
        )

    def _judge(self, running: RunningAttempt, job: Job, answer: Answer, now: float) -> RetryDecision:
        if isinstance(answer, Unfinished):
            return RetryDecision(
                state="pending", retries=job.retries, refusals=job.refusals, not_before=running.claim.not_before
            )
        return judge(
            answer,
            retries=job.retries,
            refusals=job.refusals,
            schedule=self._route.subscription.retry,
            now=now,
            chance=self._shared.random.random(),
            was_due=running.was_due,
        )

    def may_follow(self, decision: RetryDecision) -> bool:
        """Whether the next event of an object may leave behind one that came to this.

        Behind a dead letter it waits for the store: were that forgotten in a crash, the letter would arrive behind it.
        """
        return decision.state == "delivered" and self.may_go_on

    def landed(self, claim: Claim, decision: RetryDecision | None) -> None:
        """Give a lane back."""
        self._draft.release(claim, decision)

    def _give_back(self) -> None:
        """Release what is leased and has not left."""
        while self._ready:
            self._draft.give_back(self._ready.popleft())


def _row(running: RunningAttempt, receipt: Receipt, latency: float) -> AttemptRow:
    return AttemptRow(
        number=running.jobs[0].attempts + 1,
        at=running.at,
        latency=latency,
        status=receipt.status,
        text=receipt.text,
        reference=receipt.reference,
    )
