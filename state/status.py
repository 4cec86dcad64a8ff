"""What a status sums up: measured delays, units, and changes as they were seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredDelay:
    """How long the changes of one endpoint took to be seen; it happened between two looks: half of that counts."""

    source: str  # CloudEvents source
    endpoint: str
    events: int
    mean: float  # seconds
    p95: float  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRow:
    """One unit of an endpoint, as far as a plan needs it; times are Unix seconds."""

    source: str
    endpoint: str
    key: str
    calls: int  # of its latest poll
    answered_at: float | None
    retry_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """Deliveries of one subscription that have failed and wait for another attempt."""

    subscription: str
    deliveries: int
    next: float  # when the first of them leaves, Unix seconds
    status: str  # of its latest attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenChange:
    """A recorded change: it happened after one look and before another, Unix seconds."""

    source: str
    endpoint: str
    key: str | None  # of the unit that shows the object now
    after: float
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """That a state began as a copy of another one."""

    log_id: str  # the other log's
    taken_at: float
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Events of one endpoint, or of one of its units, in one span of time."""

    source: str
    endpoint: str
    unit: str | None = None  # its key; None: all of the endpoint, or no unit shows the object any more
    span: int  # number of the span: its begin is `since + span * width`
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitClaims:
    """What the latest answer of a unit says about its list."""

    source: str
    endpoint: str
    key: str
    claims: bytes  # JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitProgress:
    """One unit of an endpoint, as it was polled last; times are Unix seconds."""

    key: str
    asked_at: float | None  # of the latest good poll
    objects: int  # that it showed
    calls: int
    failures: int  # in a row
    retry_at: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDelay:
    """An event, and how long after it had certainly not happened yet it was seen, in seconds."""

    seq: int
    source: str
    endpoint: str
    delay: float | None  # None: it is not known since when
