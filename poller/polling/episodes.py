"""State of a failing source, and the episodes that are reported to operators. Pure.

An episode lasts from the notice of a failure until it is over. Its beginning and its end are each reported once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from poller.events.cloudevents import iso
from poller.http_dates import LONGEST
from poller.polling.notices import (
    Failure,
    Missed,
    endpoint_fails,
    endpoint_recovered,
    gap,
    source_fails,
    source_recovered,
)
from state.notices import Notice

FIRST_WAIT: Final = 5.0  # seconds
LONGEST_WAIT: Final = 1800.0
REFUSED_WAIT: Final = 900.0  # between probes after a 401 or 403
PROBE_TIME: Final = 60.0  # for which a running probe blocks others, even if it never ends
REFUSALS: Final = (401, 403)
OF_ONE_PARENT: Final = (403, 404, 410)  # statuses of a list per parent that concern only that parent
SEVERAL: Final = 5  # units that fail in a row, or failures of one unit, before a notice
GAP: Final = 300.0  # seconds that an endpoint may stay unread without a notice
CLOCK_SLACK: Final = 60.0


def backoff(failures: int, retry_after: float | None = None) -> float:
    """Seconds to wait after that many consecutive failures: 5 s, doubling to 30 min, and at least what the server asked
    for.

    `retry_after` is limited to a day.
    """
    wait = min(FIRST_WAIT * 2.0 ** min(max(failures - 1, 0), 20), LONGEST_WAIT)
    return max(wait, min(retry_after or 0.0, LONGEST))


class Gate(msgspec.Struct, kw_only=True):
    """Lets one probe through at a time."""

    since: float
    reason: str
    opens_at: float
    refused: bool = False  # closed by 401 or 403: probes have a constant interval
    probes: int = 1  # failed probes
    probe: tuple[str, str] | None = None  # the unit under way

    def is_shut(self, now: float) -> bool:
        # A wait longer than the longest possible one means that the clock was set back.
        return now < self.opens_at <= now + LONGEST_WAIT + CLOCK_SLACK

    def started(self, unit: tuple[str, str], now: float) -> None:
        self.probe, self.opens_at = unit, now + max(PROBE_TIME, self._wait())

    def failed(self, unit: tuple[str, str], now: float) -> None:
        """Lengthen the wait, unless the failed call was sent before the gate closed."""
        if self.probe == unit or (self.probe is None and not self.is_shut(now)):
            self.probes += 1
            self.probe, self.opens_at = None, now + self._wait()

    def _wait(self) -> float:
        return REFUSED_WAIT if self.refused else backoff(self.probes)


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    since: float
    reason: str


class FailingUnit(msgspec.Struct, kw_only=True):
    """A unit that fails."""

    since: float
    reason: str = ""
    retry_at: float = 0.0
    count: int = 0  # failures counted in this process; earlier ones may not belong to an outage
    failures: int = 0  # consecutive failures, including those before a restart
    of_parent: bool = False  # a list per parent that fails for a reason of that parent

    def is_sick(self, seen: float | None) -> bool:
        """Whether the failure concerns the endpoint: it lasts long, and is not one list among those of many parents.

        `seen` is the latest success of its endpoint.
        """
        return self.failures >= SEVERAL and not (self.of_parent and seen is not None and seen >= self.since)


class LatestFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The failure that was just observed."""

    endpoint: str
    unit: str
    status: int | None
    now: float
    not_before: float  # the budget allows no call before then


class EndpointView(msgspec.Struct, kw_only=True):
    """Health of one endpoint."""

    seen: float | None = None  # its latest success
    unseen_since: float | None = None  # since when none of it could be read
    gate: Gate | None = None
    episode: Episode | None = None
    units: dict[str, FailingUnit] = msgspec.field(default_factory=dict)
    refused: set[str] = msgspec.field(
        default_factory=set
    )  # lists per parent that were answered with 403 since the latest success

    def fail(self, unit: str, now: float, *, reason: str, failures: int, of_parent: bool) -> FailingUnit:
        """Count one more failure of a unit."""
        self.unseen_since = now if self.unseen_since is None else self.unseen_since
        failing = self.units.setdefault(unit, FailingUnit(since=now))
        failing.count, failing.failures = failing.count + 1, max(failing.failures + 1, failures)
        failing.reason, failing.of_parent = reason, of_parent
        return failing

    @property
    def is_worth_keeping(self) -> bool:
        """Whether the endpoint fails, or a failure of it was reported."""
        return bool(self.units) or self.episode is not None or self.unseen_since is not None

    def missing_since(self) -> float | None:
        """The latest success before the endpoint could not be read; None if it can be read, or only it is forbidden."""
        if self.unseen_since is None or self.gate is not None:
            return None
        return self.unseen_since if self.seen is None else self.seen

    def is_sick(self, seen: float | None) -> bool:
        """Whether the endpoint is forbidden, or a unit of it fails for long. `seen` is its latest success."""
        return self.gate is not None or any(unit.is_sick(seen) for unit in self.units.values())


class KnownSource(msgspec.Struct, kw_only=True):
    """Health of a source: its endpoints, its gate, and the episode that was reported."""

    source: str
    views: dict[str, EndpointView]
    seen: float | None  # the latest success
    gate: Gate | None = None
    episode: Episode | None = None
    row: set[tuple[str, str]] = msgspec.field(default_factory=set)  # units that failed since the latest success
    failing_since: float | None = None

    def gates(self, endpoint: str) -> Iterator[Gate]:
        """The gates that a call of an endpoint must pass."""
        view = self.views.get(endpoint)
        if self.gate is not None:
            yield self.gate
        if view is not None and view.gate is not None:
            yield view.gate


def shut(known: KnownSource, view: EndpointView, now: float, *, status: int | None, reason: str) -> None:
    """Close the gate that this failure requires, if it is not closed yet."""
    if status == 403:
        view.gate = view.gate or Gate(since=now, refused=True, reason=reason, opens_at=now + REFUSED_WAIT)
    elif status == 401 and (known.gate is None or not known.gate.refused):
        since = known.gate.since if known.gate else now
        known.gate = Gate(since=since, refused=True, reason=reason, opens_at=now + REFUSED_WAIT)
    elif known.gate is None and len(known.row) >= SEVERAL:
        since = known.failing_since if known.failing_since is not None else now
        known.gate = Gate(since=since, reason=reason, opens_at=now + FIRST_WAIT)


def begun(known: KnownSource, latest: LatestFailure) -> Iterator[Notice]:
    """The notice of a failure that begins an episode. An episode of the source includes its endpoints."""
    view = known.views[latest.endpoint]
    failing = view.units[latest.unit]
    if known.episode is not None:
        return
    alone = known.seen is None or known.seen < failing.since  # no other success meanwhile
    often = failing.is_sick(view.seen) and view.gate is None
    if known.gate is not None or (often and alone and failing.count >= SEVERAL):
        since = known.failing_since if known.failing_since is not None else failing.since
        known.episode = Episode(since=since, reason=failing.reason)
        yield _source_fails(known, _failure(known, latest, known.gate, since))
    elif view.episode is None and (view.gate is not None or (often and not alone)):
        since = view.gate.since if view.gate is not None else failing.since
        view.episode = Episode(since=since, reason=failing.reason)
        how = f"failed {failing.failures} times in a row at {latest.unit}" if view.gate is None else "is refused"
        yield endpoint_fails(known.source, _failure(known, latest, view.gate, since), how=how)


def _source_fails(known: KnownSource, failure: Failure) -> Notice:
    if known.gate is None:
        how = f"nothing of it could be read since {iso(failure.since)}"
    elif known.gate.refused:
        how = "its credentials are refused"
    else:
        how = f"{len(known.row)} polls in a row failed, each of another unit"
    failing = [(name, key, unit.reason) for name, view in known.views.items() for key, unit in view.units.items()]
    return source_fails(known.source, failure, how=how, failing=failing)


def _failure(known: KnownSource, latest: LatestFailure, gate: Gate | None, since: float) -> Failure:
    failing = known.views[latest.endpoint].units[latest.unit]
    return Failure(
        endpoint=latest.endpoint,
        unit=latest.unit,
        reason=failing.reason,
        status=latest.status,
        failures=failing.failures,
        since=since,
        next_try=max(failing.retry_at if gate is None else gate.opens_at, latest.not_before),
        now=latest.now,
    )


def source_over(known: KnownSource, now: float) -> Iterator[Notice]:
    """The end of the source's episode. Endpoints that its gate kept waiting were unread, whether tried or not."""
    since = known.gate.since if known.gate is not None else None
    if since is not None and now - since > GAP:
        for view in known.views.values():
            view.unseen_since = since if view.unseen_since is None else view.unseen_since
    if known.episode is not None:
        views = sorted(known.views.items())
        missed = [Missed(endpoint=name, since=at) for name, view in views if (at := view.missing_since()) is not None]
        began, reason = known.episode.since, known.episode.reason
        yield source_recovered(known.source, since=began, now=now, reason=reason, missed=missed)


def endpoint_over(
    known: KnownSource, endpoint: str, unit: str, now: float, healed: FailingUnit | None, *, seen: float | None
) -> Iterator[Notice]:
    """The end of an endpoint's episode: it may be polled again, and no unit of it fails for long."""
    view = known.views.get(endpoint)
    if view is None or view.episode is None or view.is_sick(seen):
        return
    episode, view.episode = view.episode, None
    missed = []
    if (since := view.missing_since()) is not None:
        missed = [Missed(endpoint=endpoint, since=since)]
    elif healed is not None:
        missed = [Missed(endpoint=endpoint, since=healed.since, unit=unit)]
    began, reason = episode.since, episode.reason
    yield endpoint_recovered(known.source, endpoint, since=began, now=now, reason=reason, missed=missed)


def gap_over(known: KnownSource, endpoint: str, now: float) -> Iterator[Notice]:
    """The notice of an endpoint that can be read again after a gap."""
    view = known.views[endpoint]
    since = view.missing_since()
    if since is not None and view.unseen_since is not None and now - view.unseen_since > GAP:
        yield gap(known.source, endpoint, since=since, now=now)
