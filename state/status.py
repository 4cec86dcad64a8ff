"""Records for a status: measured delays, units, and the times of changes."""

from __future__ import annotations

import msgspec


class MeasuredDelay(msgspec.Struct, frozen=True, kw_only=True):
    """Measured delays of one endpoint: half the time between the two polls that each change lies between."""

    source: str  # CloudEvents source
    endpoint: str
    events: int
    mean: float  # seconds
    p95: float  # seconds


class UnitRow(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of an endpoint, for a plan; times are Unix seconds."""

    source: str
    endpoint: str
    key: str
    calls: int  # of its latest poll
    answered_at: float | None
    retry_at: float | None


class Retrying(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries of one subscription that have failed and wait for another attempt."""

    subscription: str
    deliveries: int
    next: float  # when the first of them is due, Unix seconds
    status: str  # of its latest attempt


class SeenChange(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded change: it happened after one poll and before another, Unix seconds."""

    source: str
    endpoint: str
    key: str | None  # of the unit that shows the object now
    after: float
    time: float


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of a state that began as a copy of another one."""

    log_id: str  # the other log's
    taken_at: float
    since: float


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one endpoint, or of one of its units, in one span of time."""

    source: str
    endpoint: str
    unit: str | None = None  # its key; None: the whole endpoint, or no unit shows the object any more
    span: int  # number of the span, which begins at `since + span * width`
    events: int


class UnitClaims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a unit: what its latest answer says about its list."""

    source: str
    endpoint: str
    key: str
    claims: bytes  # JSON


class UnitProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of an endpoint at its latest poll; times are Unix seconds."""

    key: str
    asked_at: float | None  # of the latest successful poll
    objects: int  # number of objects shown
    calls: int
    failures: int  # in a row
    retry_at: float | None
    error: str | None


class SeenDelay(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and the seconds from `observed_after` to when it was seen."""

    seq: int
    source: str
    endpoint: str
    delay: float | None  # None: it is not known since when
