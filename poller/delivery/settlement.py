"""What a courier has to write, gathered attempt by attempt until its next turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from poller.delivery.retry import Verdict
from state.deliveries import AttemptRow, Claim, Health, Job, Release, Settlement, Turn
from state.notices import Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt that is over, as observers are told."""

    subscription: str
    jobs: tuple[Job, ...]
    state: str
    attempt: AttemptRow
    due: float | None = None  # while pending: when it leaves again, unless the breaker holds it back for longer


@dataclass(slots=True, kw_only=True)
class Slip:
    """The part of a turn that attempts fill."""

    settled: list[Settlement] = field(default_factory=list)
    released: list[Release] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    health: Health | None = None  # None: unchanged
    kept_until: float | None = None  # where there is a new health: `open_until` as the store had it before
    disabled: str | None = None  # the reason
    promote: bool = False

    def __bool__(self) -> bool:
        return bool(self.settled or self.released or self.notices or self.health or self.disabled or self.promote)

    def settle(self, claim: Claim, jobs: Sequence[Job], verdict: Verdict, attempt: AttemptRow) -> None:
        """What an attempt at these jobs came to."""
        self.settled.append(
            Settlement(
                lane=claim.lane,
                ids=tuple(job.id for job in jobs),
                state=verdict.state,
                tries=verdict.tries,
                refusals=verdict.refusals,
                attempt=attempt,
            )
        )

    def release(self, claim: Claim, verdict: Verdict | None) -> None:
        """Give a lane back behind its latest attempt, or because of what the store must decide by itself."""
        if verdict is not None and verdict.state == "pending":
            self.released.append(Release(lane=claim.lane, due=verdict.due, floor=verdict.floor))
        else:
            self.released.append(Release(lane=claim.lane))

    def give_back(self, claim: Claim) -> None:
        """A lane as it was: nothing of it has left."""
        self.released.append(Release(lane=claim.lane, due=claim.due, floor=claim.floor))

    def turn(self, subscription: str, *, now: float, due_at: Callable[[float], float] | None) -> Turn:
        """A turn that writes this and claims nothing."""
        return Turn(
            subscription=subscription,
            now=now,
            settled=tuple(self.settled),
            released=tuple(self.released),
            notices=tuple(self.notices),
            health=self.health,
            kept_until=self.kept_until,
            disabled=self.disabled,
            promote=self.promote,
            due_at=due_at,
        )
