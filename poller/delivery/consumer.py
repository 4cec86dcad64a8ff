"""One subscription's deliveries: claimed in batches, attempted concurrently, settled in batches.

A consumer holds only what it has claimed. Everything else waits in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec
import structlog

from poller.clock import Clock
from poller.delivery.attempts import AttemptRunner
from poller.delivery.claims import ClaimsInHand
from poller.delivery.settlement import SettlementDraft
from poller.delivery.subscription import Route
from poller.delivery.wakeup import Wakeup
from poller.hooks.payloads import AttemptFinished
from state.deliveries import ClaimRequest, Settled
from state.errors import LeaseLost, StateError, Unavailable
from state.leases import Lease
from state.steps import Steps
from state.store import DeliveryStore

OUTAGE_WAIT = 2.0  # seconds between two attempts while the state cannot be written
WINDOW = 64  # least number of deliveries claimed at once

log = structlog.get_logger("poller.delivery")


class Shared(msgspec.Struct, kw_only=True):
    """What all consumers share."""

    store: DeliveryStore
    steps: Steps
    clock: Clock
    random: Random
    limit: float  # seconds of one whole attempt
    grace: float  # seconds that attempts have to end when the program stops
    log_grew: Callable[[], None]  # called when something was recorded, or there is room to read on
    at_rest: Callable[[], None]  # called when a consumer has nothing to do for now
    finished: Callable[[AttemptFinished], None]  # called when an attempt has ended
    valid_until: Callable[[], float] | None = None  # steady time after which no attempt begins; None: no limit


class Consumer:
    """Gives a subscription's events to its sink."""

    def __init__(self, route: Route, lease: Lease, shared: Shared) -> None:
        self._route = route
        self._lease = lease
        self._shared = shared
        self._window = max(WINDOW, 4 * route.subscription.concurrency)
        self._wakeup = Wakeup(shared.clock)
        self._hand = ClaimsInHand(
            route.subscription, clock=shared.clock, random=shared.random, finished=shared.finished
        )
        self._runner = AttemptRunner(
            route, self._hand, clock=shared.clock, limit=shared.limit, changed=self._wakeup.set
        )
        self._look = True  # the store may have something new
        self._next: float | None = None  # when the store will have something due
        self._known = False  # whether the state of the subscription was read
        self._resting = False
        self._stop = asyncio.Event()

    def wake(self) -> None:
        """Read the store again soon."""
        self._look = True
        self._resting = False
        self._wakeup.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, to be written, or due."""
        return self._resting and not self._wakeup.is_set

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set (wake it after setting it); then end running attempts, or record them as
        unfinished.
        """
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
        self._resting = not (self._runner or self._hand.ready or self._hand.draft)
        if self._resting:
            self._shared.at_rest()

    async def _finish(self) -> None:
        """Let attempts end within the grace period, record the rest as unfinished, give everything back, and close the
        sink.
        """
        self._hand.is_closed = True
        try:
            await self._runner.finish(self._shared.grace)
            self._hand.give_back()
            if self._hand.draft:
                await self._commit(self._hand.take_draft(), None)
        finally:
            await self._wakeup.close()
            await self._runner.close()

    # Exchanges with the store: what is written next, and when.

    def _has_business(self) -> bool:
        """Whether another exchange with the store would do something now."""
        hand = self._hand
        return bool(hand.draft) or self._wants_claim() or (self._look and hand.health.is_held) or not self._known

    def _wants_claim(self) -> bool:
        if self._room() == 0:
            return False
        is_due = self._next is not None and self._next <= self._shared.clock.now()
        return self._look or is_due or self._hand.draft.health is not None

    def _room(self) -> int:
        """How many deliveries to claim; while the breaker is open one, if it may be probed."""
        hand = self._hand
        if not (self._known and hand.health.active) or hand.is_closed:
            return 0
        if hand.health.is_open:
            busy = hand.ready or self._runner
            return int(not busy and hand.health.may_probe(self._shared.clock.now()))
        held = sum(len(claim.jobs) for claim in hand.ready) + len(self._runner)
        return self._window - held if held <= self._window // 2 else 0

    async def _exchange(self) -> None:
        """Write the draft, and claim as much as there is room for."""
        if not self._has_business():
            return
        claim = self._claim_request() if self._wants_claim() else None
        draft = self._hand.take_draft()
        if claim is not None or self._hand.health.is_held:
            self._look = False
        self._take(draft, claim, await self._commit(draft, claim))

    def _claim_request(self) -> ClaimRequest:
        """A request for as much as there is room for: one digest, or for a probe one delivery."""
        probing = self._hand.health.is_open
        return ClaimRequest(
            deliveries=self._room(),
            per_lane=1 if probing else 16,
            together=self._hand.together,
            max_bytes=self._runner.sink.max_bytes,
            probe=probing and not self._hand.together,
            failed=self._hand.failed if probing else (),
        )

    async def _commit(self, draft: SettlementDraft, claim: ClaimRequest | None) -> Settled:
        """Write the draft, repeatedly if necessary, because results must not be lost while the disk is full."""
        batch = draft.settlement(self._shared.clock.now())
        wait = 1.0
        while True:
            try:
                settled = await self._shared.steps(self._shared.store.settle, self._lease, batch, claim)
                self._hand.is_stuck = False
                return settled
            except LeaseLost:
                raise
            except Unavailable:  # reported once, where outages are handled
                longest = OUTAGE_WAIT
                if self._stop.is_set():
                    raise
            except StateError as error:
                longest = 30.0
                log.error(
                    "delivery.not_recorded", subscription=self._route.subscription.name, error=str(error), retry_in=wait
                )
                if self._stop.is_set():
                    raise
            self._hand.is_stuck = True
            await self._shared.clock.sleep(wait)
            wait = min(longest, 2 * wait)

    def _take(self, draft: SettlementDraft, claim: ClaimRequest | None, settled: Settled) -> None:
        self._known = True
        self._hand.health.learn(settled, self._hand.draft)
        self._next = settled.next_due
        if self._hand.health.is_open:
            self._next = settled.next_due if claim is not None and not settled.claims else 0.0
        self._hand.ready.extend(settled.claims)
        if settled.recorded or (settled.wants_more and draft.settled):
            self._shared.log_grew()

    def _until(self) -> float | None:
        """When to wake next."""
        times, clock, health = [], self._shared.clock, self._hand.health
        if (deadline := self._runner.first_deadline()) is not None:  # deadlines of attempts are in steady time
            times.append(clock.now() + max(0.0, deadline - clock.steady()))
        if self._next is not None and health.active:
            opens = health.health.open_until
            if opens is None and self._room():
                times.append(self._next)
            elif opens is not None and not (self._hand.ready or self._runner):
                times.append(max(opens, self._next))
        return min(times, default=None)

    def _launch(self) -> None:
        """Begin attempts as far as concurrency allows. Raises LeaseLost if it is too late."""
        hand, clock = self._hand, self._shared.clock
        valid_until = self._shared.valid_until
        if hand.ready and valid_until is not None and clock.steady() >= valid_until():
            raise LeaseLost(f"{self._lease.name}: the lease has run out")
        if hand.ready and not hand.health.active:
            hand.give_back()
        while hand.ready and len(self._runner) < self._route.subscription.concurrency:
            claim = hand.ready.popleft()
            was_due = claim.due if hand.health.is_open and claim.due > clock.now() else None
            self._runner.launch(claim, was_due)
