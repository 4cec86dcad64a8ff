"""Records of subscriptions and deliveries, and of the steps in which a store changes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from state.notices import Notice
from state.records import Event

Origin = Literal["log", "replay", "redelivery", "ping"]
State = Literal["pending", "delivered", "dead"]

LONGEST_WORD = 86_400.0  # longest wait in seconds that a receiver may ask for
# Pending deliveries of one subscription; further events stay in the log. If half of this number wait for a retry, or
# behind one, only the others count, up to ten times as many in all: objects that fail leave room for the rest.
PENDING_LIMIT = 10_000


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What a store must know of a subscription."""

    name: str
    start: str | int | float = "now"  # "now", "beginning", the first number, or the first time
    enabled: bool = True
    digest: bool = False  # its deliveries wait in one lane and are sent together
    longest_wait: float = LONGEST_WORD  # seconds; none of its deliveries is due later than that


class SinkHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Health of a subscription's sink, stored so that the breaker survives a restart."""

    failures: int = 0  # consecutive failed attempts
    open_until: float | None = None  # no attempt before then; None: the breaker is closed
    wait: float = 0.0  # seconds between the latest probes
    last_error: str | None = None
    dead_reported: bool = False  # a dead letter was reported since a delivery last succeeded


class SubscriptionState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a subscription."""

    name: str
    state: str  # active, failing, paused, disabled or removed
    reason: str
    cursor: int  # number up to which it has read
    lag: int  # `pending` plus the numbers of the log that it has not read
    pending: int
    dead: int
    health: SinkHealth
    filter_errors: int
    filter_error: str | None
    next_probe: float | None = None  # while the breaker is open: no attempt before then; a past time means at once

    @property
    def last_error(self) -> str | None:
        """The latest failure of the sink, else of the filter."""
        return self.health.last_error or self.filter_error


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A position from which a subscription reads on: its own cursor, or that of a replay."""

    subscription: str
    cursor: int
    room: int  # how many more deliveries may become pending
    replay: int | None = None  # the replay's number; None: the subscription's own cursor
    until: int | None = None  # the last number of a replay


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a subscription wants: its lane, and when it is due."""

    seq: int
    lane: str
    due: float


class Dispatched(msgspec.Struct, frozen=True, kw_only=True):
    """The matches of a subscription among the events between `feed.cursor` and `upto`."""

    feed: Feed
    upto: int
    done: bool = False  # the replay has reached its end
    matches: tuple[Match, ...] = ()
    not_matching: tuple[int, ...] = ()
    errors: int = 0  # events whose filter failed; they count as not matching
    error: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One event of one subscription that is to be delivered now."""

    id: int
    event: Event
    attempts: int  # so far
    retries: int  # retries of the schedule so far
    refusals: int  # so far


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed lane with its oldest deliveries, in order."""

    lane: str
    due: float  # when it was due
    not_before: float  # no attempt before then, whatever else is decided
    jobs: tuple[Job, ...]
    last_reference: str | None


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one delivery, as stored."""

    number: int
    at: float
    latency: float  # seconds
    status: str
    text: str = ""  # the start of the answer, at most 4 KiB
    reference: str | None = None


class AttemptOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an attempt, for a delivery or the whole digest that it carried."""

    lane: str
    ids: tuple[int, ...]  # ids of deliveries; the attempt is stored with the first, which also names a digest
    digest: bool = False  # they are one digest: a retry carries the same deliveries
    state: State
    retries: int
    refusals: int
    attempt: AttemptRow


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A lane that is given back. `due` None: when its oldest delivery is due."""

    lane: str
    due: float | None = None
    not_before: float = 0.0


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The results of claims of one subscription, to be written at once."""

    now: float
    settled: tuple[AttemptOutcome, ...] = ()
    released: tuple[Release, ...] = ()
    health: SinkHealth | None = None  # None: unchanged
    kept_until: float | None = (
        None  # `open_until` that `health` is based on: if a command has changed it, that value stays
    )
    disabled: str | None = None  # the reason, if it is to be disabled
    notices: tuple[Notice, ...] = ()
    promote: bool = False  # deliveries that wait for a retry are due now


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one subscription to claim."""

    deliveries: int  # most deliveries
    per_lane: int = 16  # most deliveries of one lane, one after the other
    together: int = 0  # for a digest: most deliveries of one lane together
    max_bytes: int = 0  # bytes of the events of a digest together, unless it has one event
    probe: bool = False  # the next lane, even before it is due
    failed: tuple[str, ...] = ()  # in a probe: lanes that others go before, the later ones last


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a settlement."""

    state: str
    claims: tuple[Claim, ...] = ()
    next_due: float | None = None  # earliest time of a free lane; for a probe the lowest `not_before`
    recorded: int = 0  # notices appended to the log
    health: SinkHealth  # the stored health: the subscription may have been resumed meanwhile
    wants_more: bool = False  # there is room for more events of the log


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery for display."""

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
    due: float | None  # while pending: time of the next attempt of its lane, not before the breaker allows it
    finished_at: float | None
    status: str | None  # of the latest attempt
    digest: int | None  # the first delivery of its digest


class DeliveryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query for deliveries. A position is a delivery's number (int), or the time when one was queued (float)."""

    states: tuple[str, ...] = ()  # empty: all
    subscription: str | None = None
    subject: str | None = None  # of the event, exactly or as a glob
    seq: int | None = None  # the number of the event
    status: str | None = None  # of the latest attempt, exactly or as a glob: "500", "5??", "*timeout*"
    after: int | float | None = None  # later ones only
    before: int | float | None = None  # earlier ones only


class SubscriptionLedger(msgspec.Struct, frozen=True, kw_only=True):
    """The books of one subscription: `events` is the sum of the five numbers after it, or events are missing."""

    subscription: str
    events: int
    delivered: int
    pending: int
    dead: int
    not_matching: int
    dropped: int
    unread: int  # events in the log that it has not read
    missing: tuple[int, ...]  # numbers in the log that are accounted for nowhere
    stray: tuple[int, ...]  # numbers of deliveries whose event is not in the log

    @property
    def balanced(self) -> bool:
        """Whether both sides are equal and no event is missing."""
        parts = self.delivered + self.pending + self.dead + self.not_matching + self.dropped
        return self.events == parts and not self.missing and not self.stray


class Expiring(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest part of the log, old enough to be deleted."""

    upto: int  # the last number
    dropped: Mapping[str, int]  # by subscription: events that were not delivered in time
