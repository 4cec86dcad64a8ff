"""The draft of a consumer's next settlement, filled attempt by attempt."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from poller.delivery.retry import RetryDecision
from state.deliveries import AttemptOutcome, AttemptRow, Claim, Job, Release, Settlement, SinkHealth
from state.notices import Notice


class SettlementDraft(msgspec.Struct, kw_only=True):
    """The part of a settlement that attempts fill."""

    digest: bool = False  # the subscription's deliveries are sent together
    settled: list[AttemptOutcome] = msgspec.field(default_factory=list)
    released: list[Release] = msgspec.field(default_factory=list)
    notices: list[Notice] = msgspec.field(default_factory=list)
    health: SinkHealth | None = None  # None: unchanged
    kept_until: float | None = None  # with a new health: `open_until` as stored before
    disabled: str | None = None  # why the subscription is disabled
    promote: bool = False

    def __bool__(self) -> bool:
        return bool(self.settled or self.released or self.notices or self.health or self.disabled or self.promote)

    def settle(self, claim: Claim, jobs: Sequence[Job], decision: RetryDecision, attempt: AttemptRow) -> None:
        """Add the result of an attempt at these jobs."""
        self.settled.append(
            AttemptOutcome(
                lane=claim.lane,
                ids=tuple(job.id for job in jobs),
                digest=self.digest,
                state=decision.state,
                retries=decision.retries,
                refusals=decision.refusals,
                attempt=attempt,
            )
        )

    def release(self, claim: Claim, decision: RetryDecision | None) -> None:
        """Give a lane back: due as the latest attempt decided, or when its oldest delivery is due."""
        if decision is not None and decision.state == "pending":
            self.released.append(Release(lane=claim.lane, due=decision.due, not_before=decision.not_before))
        else:
            self.released.append(Release(lane=claim.lane))

    def give_back(self, claim: Claim) -> None:
        """Give a lane back unchanged, because it was not attempted."""
        self.released.append(Release(lane=claim.lane, due=claim.due, not_before=claim.not_before))

    def settlement(self, now: float) -> Settlement:
        """The settlement to be written."""
        return Settlement(
            now=now,
            settled=tuple(self.settled),
            released=tuple(self.released),
            notices=tuple(self.notices),
            health=self.health,
            kept_until=self.kept_until,
            disabled=self.disabled,
            promote=self.promote,
        )
