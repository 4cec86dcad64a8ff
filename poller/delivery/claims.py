"""The claims that one subscription holds: which may be attempted, their results, and what must be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from poller.clock import Clock
from poller.delivery.batches import BATCH_EVENTS, halves
from poller.delivery.retry import RetryDecision, Unfinished, judge, receipt_of
from poller.delivery.settlement import SettlementDraft
from poller.delivery.subscription import Subscription
from poller.delivery.subscription_health import SubscriptionHealth
from poller.hooks.payloads import AttemptFinished
from poller.sinks.protocol import Receipt, TooLarge
from state.deliveries import AttemptRow, Claim, Job

Answer = Receipt | BaseException
REMEMBERED: Final = 100  # failed attempts
OUTSIDE: Final = ("!", "replay ")  # prefixes of the lanes of redelivered and replayed events


class RunningAttempt(msgspec.Struct, kw_only=True):
    """A claim whose attempts are under way, and the current attempt."""

    claim: Claim
    was_due: float | None  # for a probe: when the delivery was due
    jobs: tuple[Job, ...] = ()  # jobs of the current attempt
    at: float = 0.0  # when the current attempt began
    began: float = 0.0  # the same in steady time
    deadline: float  # steady time at which it is given up
    expired: bool = False  # it was given up and cancelled
    abandoned: bool = False  # it did not end when cancelled, so its answer is already decided
    waiting: deque[tuple[Job, ...]] = msgspec.field(default_factory=deque)  # jobs after the current attempt


class ClaimsInHand:
    """What is claimed and not settled yet. Methods do not wait, read the store or call a sink."""

    def __init__(
        self, settings: Subscription, *, clock: Clock, random: Random, finished: Callable[[AttemptFinished], None]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._finished = finished
        self.together = BATCH_EVENTS if settings.digest is not None else 0  # events in a digest; 0: no digest
        self.health = SubscriptionHealth(settings.name, promotes=not self.together)
        self.ready: deque[Claim] = deque()  # claims not yet attempted
        self.draft = self._new_draft()
        self._failed: deque[str] = deque(maxlen=REMEMBERED)  # lanes of the attempts that failed since one succeeded
        self.is_stuck = False  # results cannot be written: no further attempts
        self.is_closed = False  # the program stops: no further attempts

    @property
    def failed(self) -> tuple[str, ...]:
        """The lanes that failed since an attempt succeeded, the latest last. The others are probed before them: a
        receiver may refuse the events of one object alone.
        """
        return tuple(dict.fromkeys(reversed(self._failed)))[::-1]

    @property
    def may_go_on(self) -> bool:
        """Whether further attempts may begin without asking the store."""
        return not (self.health.is_held or self.is_closed or self.is_stuck)

    def next_claim(self) -> Claim | None:
        """The next claim that may be attempted without asking the store."""
        return self.ready.popleft() if self.ready and self.may_go_on else None

    def may_follow(self, decision: RetryDecision) -> bool:
        """Whether an object's next event may be attempted after this decision.

        After a dead letter it waits for the store: if a crash lost the dead letter, that event would otherwise arrive
        after the next one.
        """
        return decision.state == "delivered" and self.may_go_on

    def answered(self, running: RunningAttempt, answer: Answer, latency: float) -> RetryDecision:
        """Record the result of an attempt.

        Only a single event becomes a dead letter: of several, one may be the cause, so each half is a separate digest
        from now on.
        """
        first, receipt, now = running.jobs[0], receipt_of(answer), self._clock.now()
        decision = self._judged(running, answer, now)
        parts: tuple[tuple[Job, ...], ...] = (running.jobs,)
        if decision.state == "dead" and len(running.jobs) > 1:
            decision, parts = _again(first, decision), halves(running.jobs)
        row = _row(running, receipt, latency)
        for part in parts:
            self.draft.settle(running.claim, part, decision, row)
        held, before = self.health.is_open, self.health.health
        if not (isinstance(answer, TooLarge) and len(parts) > 1):  # else the receiver is well
            self.health.follow(answer, first, row.number, receipt, self.draft, now=now, not_before=decision.not_before)
        if decision.state == "dead":
            self.health.report_dead(first, row.number, receipt, self.draft, now=now)
        if decision.state == "delivered":
            self._failed.clear()
        else:
            self._failed.append(running.claim.lane)
        if self.health.is_open and not held:
            self._give_back_due()
        repeated = before.dead_reported if decision.state == "dead" else before.failures > 0
        self._report(running, decision, row, is_repeated=repeated and decision.state != "delivered")
        return decision

    def release(self, claim: Claim, decision: RetryDecision | None) -> None:
        """Give a lane back: the claim has no further attempts for now."""
        self.draft.release(claim, decision)

    def give_back(self) -> None:
        """Give back the claims that were not attempted. While the breaker is open, they are to be probed."""
        if not self.health.is_open:
            self._give_back_due()
        while self.ready:
            self.draft.give_back(self.ready.popleft())

    def _give_back_due(self) -> None:
        """Give back claims that were due: not at the time that they name, as the clock may have been set back since."""
        while self.ready:
            self.draft.release(self.ready.popleft(), None)

    def take_draft(self) -> SettlementDraft:
        """Take the draft of what must be written; later results go into a new one."""
        draft, self.draft = self.draft, self._new_draft()
        return draft

    def _new_draft(self) -> SettlementDraft:
        return SettlementDraft(digest=self.together > 0)

    def _judged(self, running: RunningAttempt, answer: Answer, now: float) -> RetryDecision:
        job = running.jobs[0]
        if isinstance(answer, Unfinished):
            return RetryDecision(
                state="pending", retries=job.retries, refusals=job.refusals, not_before=running.claim.not_before
            )
        return judge(
            answer,
            retries=job.retries,
            refusals=job.refusals,
            schedule=self._settings.retry,
            now=now,
            chance=self._random.random(),
            was_due=running.was_due,
        )

    def _report(
        self, running: RunningAttempt, decision: RetryDecision, row: AttemptRow, *, is_repeated: bool = False
    ) -> None:
        self._finished(
            AttemptFinished(
                subscription=self._settings.name,
                jobs=running.jobs,
                state=decision.state,
                attempt=row,
                due=decision.due,
                is_in_order=not running.claim.lane.startswith(OUTSIDE),
                is_repeated=is_repeated,
            )
        )


def _again(first: Job, dead: RetryDecision) -> RetryDecision:
    """Instead of a dead letter: another attempt of each half as soon as possible, which is the last one again."""
    return RetryDecision(
        state="pending",
        retries=first.retries,
        refusals=first.refusals,
        due=dead.not_before or None,
        not_before=dead.not_before,
        halves=True,
    )


def _row(running: RunningAttempt, receipt: Receipt, latency: float) -> AttemptRow:
    return AttemptRow(
        number=running.jobs[0].attempts + 1,
        at=running.at,
        latency=latency,
        status=receipt.status,
        text=receipt.text,
        reference=receipt.reference,
    )
