"""Records for a status: measured delays, units, and the times of changes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredDelay:
    """Measured delays of one endpoint: half the time between the two polls that each change lies between."""

    source: str  # CloudEvents source
    endpoint: str
    events: int
    mean: float  # seconds
    p95: float  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRow:
    """One unit of an endpoint, for a plan; times are Unix seconds."""

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
    next: float  # when the first of them is due, Unix seconds
    status: str  # of its latest attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenChange:
    """A recorded change: it happened after one poll and before another, Unix seconds."""

    source: str
    endpoint: str
    key: str | None  # of the unit that shows the object now
    after: float
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The origin of a state that began as a copy of another one."""

    log_id: str  # the other log's
    taken_at: float
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Events of one endpoint, or of one of its units, in one span of time."""

    source: str
    endpoint: str
    unit: str | None = None  # its key; None: the whole endpoint, or no unit shows the object any more
    span: int  # number of the span, which begins at `since + span * width`
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitClaims:
    """The claims of a unit: what its latest answer says about its list."""

    source: str
    endpoint: str
    key: str
    claims: bytes  # JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitProgress:
    """One unit of an endpoint at its latest poll; times are Unix seconds."""

    key: str
    asked_at: float | None  # of the latest successful poll
    objects: int  # number of objects shown
    calls: int
    failures: int  # in a row
    retry_at: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDelay:
    """An event, and the seconds from `observed_after` to when it was seen."""

    seq: int
    source: str
    endpoint: str
    delay: float | None  # None: it is not known since when
