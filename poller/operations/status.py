"""The status at one moment, as records for the command line, the doctor, the dashboard, the metrics and the API, and
its public JSON form. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from poller.events.cloudevents import iso

SourceState = Literal["ok", "failing", "probing", "blocked"]
EndpointState = Literal["ok", "uncertain", "failing", "blocked", "held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """One window of a budget."""

    rate: str
    used: int
    remaining: int
    foreign: int = 0  # calls of other users of the key, as far as the server's headers show them


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """One budget."""

    name: str
    limits: tuple[LimitStatus, ...]
    throttled_until: datetime | None = None
    broken_promise: str | None = None  # the `max_staleness` that it cannot keep


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One source. `failing` of its `units` failed at their latest poll."""

    name: str
    state: SourceState
    reason: str | None = None
    since: datetime | None = None
    next_probe: datetime | None = None
    last_poll: datetime | None = None  # the latest successful poll
    units: int = 0
    failing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Why an endpoint is held."""

    why: str = "the reason is not known"
    since: datetime | None = None
    known: int = 0  # objects before the hold
    gone: int = 0  # missing objects
    deleted: int = 0  # objects reported as deleted before the hold
    by_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """One endpoint. It is `ok` only if its list is known to be complete; else `reason` says why not."""

    source: str
    endpoint: str
    state: EndpointState
    reason: str | None = None
    units: int = 0
    objects: int = 0
    last_sweep: datetime | None = None
    staleness_s: float | None = None
    expected_delay_s: float | None = None
    measured_delay_s: float | None = None
    measured_delay_p95_s: float | None = None
    measured_events: int = 0
    baseline: bool = False  # a silent first sweep is under way
    suspects: int = 0  # objects whose deletion is being confirmed
    unlisted: int = 0  # objects that left the list and answer under their own URL
    held: Held | None = None
    failing: int = 0  # units whose latest poll failed
    error: str | None = None
    blocked: bool = False  # only probes are sent
    failing_since: datetime | None = None
    next_try: datetime | None = None
    in_doubt_since: datetime | None = None
    aside: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # pages set aside: the fields that changed form
    notes: Mapping[str, str] = field(default_factory=dict)  # by unit: what was set aside in its latest answer
    ignore_candidates: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Source and endpoint, as commands take them."""
        return f"{self.source}/{self.endpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatus:
    """One subscription."""

    name: str
    state: str  # active, failing, paused or disabled
    reason: str | None = None
    cursor: int = 0
    lag: int = 0
    pending: int = 0
    dead: int = 0
    oldest_waiting_s: float | None = None
    retrying: int = 0  # deliveries that have failed and wait for another attempt
    next_attempt: datetime | None = None  # when the first of them leaves
    retry_status: str | None = None  # the result of its latest attempt
    failures: int = 0  # failed attempts in a row
    next_probe: datetime | None = None
    filter_errors: int = 0
    last_error: str | None = None

    @property
    def retry_text(self) -> str:
        """What has failed and waits for another attempt, and until when; empty where nothing does."""
        if not self.retrying:
            return ""
        what = "1 delivery has" if self.retrying == 1 else f"{self.retrying} deliveries have"
        latest = f" ({self.retry_status})" if self.retry_status else ""
        if self.state in ("paused", "disabled"):
            return f"{what} failed{latest} and will be tried again after `poller resume {self.name}`"
        until = "" if self.next_attempt is None else f", the next one at {iso(self.next_attempt.timestamp())}"
        return f"{what} failed{latest} and will be tried again{until}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A budget or a subscription that a worker owns, and under which epoch: each owner has a higher one."""

    name: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One of the workers that share a database."""

    name: str
    version: str  # of Poller
    digest: str  # of its configuration
    listen: str
    since: datetime
    lease_left_s: float  # until what it owns is free, unless it renews its leases
    budgets: tuple[Owned, ...] = ()
    subscriptions: tuple[Owned, ...] = ()
    lag: int = 0  # events that its subscriptions were not given yet
    lacks: tuple[str, ...] = ()  # what it leaves to others, since it cannot open it: "budget/office"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginFailure:
    """A plugin that could not be loaded, or that raised."""

    name: str
    origin: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The whole status. It contains no secret."""

    time: datetime
    running: bool
    log_id: str | None  # None: nothing has run yet
    last_seq: int
    budgets: tuple[BudgetStatus, ...] = ()
    sources: tuple[SourceStatus, ...] = ()
    endpoints: tuple[EndpointStatus, ...] = ()
    subscriptions: tuple[SubscriptionStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()  # on a database; the oldest first
    plugins_failed: tuple[PluginFailure, ...] = ()
    state_error: str | None = None  # why the state cannot be written: nothing is polled or delivered meanwhile
    config_error: str | None = None  # why the file was refused at the latest reload; the previous one is in use

    @property
    def config_differs(self) -> bool:
        """Whether workers run different configurations."""
        return len({one.digest for one in self.workers if one.digest}) > 1


def document(status: Status) -> dict[str, Any]:
    """The status as JSON: times are ISO text in UTC, spans are seconds (`..._s`)."""
    found: dict[str, Any] = _plain(status)
    return found


def parse(found: Mapping[str, Any]) -> Status:
    """The status from a daemon's JSON; members added by another version are ignored. Raises ValueError."""
    return msgspec.convert(found, Status)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value.timestamp())
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value
