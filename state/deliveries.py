"""What is kept of subscriptions and deliveries, and the steps in which a store changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from state.notices import Notice
from state.records import Event

Origin = Literal["log", "replay", "redelivery", "ping"]
State = Literal["pending", "delivered", "dead"]

LONGEST_WORD = 86_400.0  # seconds that a receiver may ask for, at most
PENDING_LIMIT = 10_000  # deliveries of one subscription; what is beyond stays in the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a store must know of a subscription."""

    name: str
    start: str | int | float = "now"  # "now", "beginning", the first number, or the first time
    enabled: bool = True
    digest: bool = False  # its deliveries wait in one lane and leave together
    longest_wait: float = LONGEST_WORD  # seconds; no delivery of it is due later than that


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkHealth:
    """How a subscription's sink has fared: the breaker, kept so that it outlives a restart."""

    failures: int = 0  # failed attempts in a row
    open_until: float | None = None  # no attempt before then; None: the breaker is closed
    wait: float = 0.0  # seconds between the latest probes
    last_error: str | None = None
    dead_reported: bool = False  # a dead letter was reported since a delivery last succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionState:
    """Where a subscription stands."""

    name: str
    state: str  # active, failing, paused, disabled or removed
    reason: str
    cursor: int  # read up to this number
    lag: int  # pending, and how many numbers the log is ahead
    pending: int
    dead: int
    health: SinkHealth
    filter_errors: int
    filter_error: str | None
    next_probe: float | None = None  # while the breaker is open: no attempt before then; in the past: at once

    @property
    def last_error(self) -> str | None:
        """The latest failure of the sink, else of the filter."""
        return self.health.last_error or self.filter_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A place from which a subscription reads on: its own cursor, or that of a replay."""

    subscription: str
    cursor: int
    room: int  # so many deliveries more may become pending
    replay: int | None = None  # the replay's number; None: the subscription's own cursor
    until: int | None = None  # the last number of a replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An event that a subscription wants: where it queues, and from when on it may leave."""

    seq: int
    lane: str
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """What a subscription made of the events between `feed.cursor` and `upto`."""

    feed: Feed
    upto: int
    done: bool = False  # the replay has reached its end
    matches: tuple[Match, ...] = ()
    not_matching: tuple[int, ...] = ()
    errors: int = 0  # events whose filter failed; they count as not matching
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One event of one subscription that is to be given now."""

    id: int
    event: Event
    attempts: int  # so far
    retries: int  # so far, of the retry schedule
    refusals: int  # so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claimed lane with its oldest deliveries, in order."""

    lane: str
    due: float  # as it was
    not_before: float  # not before then, whatever else is decided
    jobs: tuple[Job, ...]
    last_reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One attempt of one delivery, as it is kept."""

    number: int
    at: float
    latency: float  # seconds
    status: str
    text: str = ""  # the start of the answer, at most 4 KiB
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """What an attempt came to, for the one delivery or the whole digest that it carried."""

    lane: str
    ids: tuple[int, ...]  # of deliveries; the attempt is kept with the first, and a digest is named by it
    digest: bool = False  # they are one digest: a retry carries the same ones
    state: State
    retries: int
    refusals: int
    attempt: AttemptRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A lane that is given back; `due` None means: when its oldest delivery is due by itself."""

    lane: str
    due: float | None = None
    not_before: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What has come of claims of one subscription, to be written at once."""

    now: float
    settled: tuple[AttemptOutcome, ...] = ()
    released: tuple[Release, ...] = ()
    health: SinkHealth | None = None  # None: unchanged
    kept_until: float | None = None  # `open_until` that `health` rests on: where a command has changed it, that stays
    disabled: str | None = None  # the reason, if it is disabled now
    notices: tuple[Notice, ...] = ()
    promote: bool = False  # what only waits for its retry is due now


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """How much of one subscription to claim."""

    deliveries: int  # at most
    per_lane: int = 16  # of one lane, one after the other; at most
    together: int = 0  # a digest: so many of one lane together at most
    max_bytes: int = 0  # of the events of a digest together, or a single one
    probe: bool = False  # the lane that is next, also before it is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a settlement gave."""

    state: str
    claims: tuple[Claim, ...] = ()
    next_due: float | None = None  # of the lanes that are free; of a probe, the lowest `not_before`
    recorded: int = 0  # notices appended to the log
    health: SinkHealth  # as it is kept now: somebody may have resumed the subscription meanwhile
    wants_more: bool = False  # there is room again for what is still in the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery as it is shown."""

    id: int
    subscription: str
    seq: int
    origin: Origin
    state: str
    event_id: str
    event_type: str
    event_source: str
    event_subject: str
    attempts: int
    queued_at: float
    due: float | None  # while pending: when its lane leaves again, or the breaker lets it
    finished_at: float | None
    status: str | None  # of the latest attempt
    digest: int | None  # the first delivery of the digest it left with


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryQuery:
    """Which deliveries are asked for. A place is a delivery's number (int), or a time when one was queued (float)."""

    states: tuple[str, ...] = ()  # empty: all
    subscription: str | None = None
    subject: str | None = None  # of the event, exactly or as a glob
    seq: int | None = None  # the number of the event
    status: str | None = None  # of the latest attempt, exactly or as a glob: "500", "5??", "*timeout*"
    after: int | float | None = None  # later ones only
    before: int | float | None = None  # earlier ones only


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLedger:
    """One subscription's account: `events` is the sum of the five below it, or it says what is missing."""

    subscription: str
    events: int
    delivered: int
    pending: int
    dead: int
    not_matching: int
    dropped: int
    unread: int  # in the log, not read yet
    missing: tuple[int, ...]  # numbers in the log that are on no side
    stray: tuple[int, ...]  # numbers of deliveries whose event is not in the log

    @property
    def balanced(self) -> bool:
        """Whether both sides are equal and nothing is missing."""
        parts = self.delivered + self.pending + self.dead + self.not_matching + self.dropped
        return self.events == parts and not self.missing and not self.stray


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiring:
    """The beginning of the log that is old enough to be forgotten."""

    upto: int  # the last number
    dropped: Mapping[str, int]  # by subscription: events that it was not given in time
