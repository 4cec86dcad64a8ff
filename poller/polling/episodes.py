"""Pure: what is known of a source that fails, and the episodes that an operator is told of.

An episode is the time from when a failure is told to when it is over; each is told once and taken back once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

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
REFUSED_WAIT: Final = 900.0  # between the probes after a 401 or 403
PROBE_TIME: Final = 60.0  # for which a probe under way keeps others back, should it never end
REFUSALS: Final = (401, 403)
OF_ONE_PARENT: Final = (403, 404, 410)  # answers of a list per parent that are a matter of this parent
SEVERAL: Final = 5  # units failing in a row, or failures of one unit
GAP: Final = 300.0  # seconds that an endpoint may stay unseen without a word
CLOCK_SLACK: Final = 60.0


def backoff(failures: int, retry_after: float | None = None) -> float:
    """Seconds to wait after that many failures in a row: 5 s, doubling to 30 min, and never less than the server asks.

    `retry_after` is cut at a day.
    """
    wait = min(FIRST_WAIT * 2.0 ** min(max(failures - 1, 0), 20), LONGEST_WAIT)
    return max(wait, min(retry_after or 0.0, LONGEST))


@dataclass(slots=True, kw_only=True)
class Gate:
    """Lets one probe through at a time."""

    since: float
    reason: str
    opens_at: float
    refused: bool = False  # by 401 or 403: probes keep a steady distance
    probes: int = 1  # that failed
    probe: tuple[str, str] | None = None  # the unit under way

    def is_shut(self, now: float) -> bool:
        # No wait is longer than the longest: what seems to be is a clock that was set back.
        return now < self.opens_at <= now + LONGEST_WAIT + CLOCK_SLACK

    def started(self, unit: tuple[str, str], now: float) -> None:
        self.probe, self.opens_at = unit, now + max(PROBE_TIME, self._wait())

    def failed(self, unit: tuple[str, str], now: float) -> None:
        """Wait on, unless the answer is of a call that had left before the gate shut."""
        if self.probe == unit or (self.probe is None and not self.is_shut(now)):
            self.probes += 1
            self.probe, self.opens_at = None, now + self._wait()

    def _wait(self) -> float:
        return REFUSED_WAIT if self.refused else backoff(self.probes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    since: float
    reason: str


@dataclass(slots=True, kw_only=True)
class FailingUnit:
    """A unit that fails."""

    since: float
    reason: str = ""
    retry_at: float = 0.0
    count: int = 0  # of them, seen by this memory: what had been before it began may not have been an outage
    failures: int = 0  # in a row, those before a restart included
    of_parent: bool = False  # one list of many, for a cause of its own

    def is_sick(self, seen: float | None) -> bool:
        """Whether it concerns its endpoint: it has failed for long, and not alone among the lists of many parents.

        `seen` is the latest success of its endpoint.
        """
        return self.failures >= SEVERAL and not (self.of_parent and seen is not None and seen >= self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestFailure:
    """The failure that has just come."""

    endpoint: str
    unit: str
    status: int | None
    now: float
    not_before: float  # the budget allows no call until then


@dataclass(slots=True, kw_only=True)
class EndpointView:
    """What is known of an endpoint."""

    seen: float | None = None  # its latest success
    unseen_since: float | None = None  # nothing of it could be seen from then on
    gate: Gate | None = None
    episode: Episode | None = None
    units: dict[str, FailingUnit] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # lists of single parents that were 403 since the latest success

    def fail(self, unit: str, now: float, *, reason: str, failures: int, of_parent: bool) -> FailingUnit:
        """Know one more failure of a unit."""
        self.unseen_since = now if self.unseen_since is None else self.unseen_since
        failing = self.units.setdefault(unit, FailingUnit(since=now))
        failing.count, failing.failures = failing.count + 1, max(failing.failures + 1, failures)
        failing.reason, failing.of_parent = reason, of_parent
        return failing

    @property
    def is_worth_keeping(self) -> bool:
        """Whether something is wrong with it, or was told to be."""
        return bool(self.units) or self.episode is not None or self.unseen_since is not None

    def missing_since(self) -> float | None:
        """From when on nothing is known of it: its latest success; None while it can be seen, or is refused alone."""
        if self.unseen_since is None or self.gate is not None:
            return None
        return self.unseen_since if self.seen is None else self.seen

    def is_sick(self, seen: float | None) -> bool:
        """Whether it is refused, or a unit fails for long. `seen`: its latest success."""
        return self.gate is not None or any(unit.is_sick(seen) for unit in self.units.values())


@dataclass(slots=True, kw_only=True)
class KnownSource:
    """What is known of a source: its endpoints, what holds it back, and the episode that was told."""

    source: str
    views: dict[str, EndpointView]
    seen: float | None  # the latest success
    gate: Gate | None = None
    episode: Episode | None = None
    row: set[tuple[str, str]] = field(default_factory=set)  # units that failed since the latest success
    failing_since: float | None = None

    def gates(self, endpoint: str) -> Iterator[Gate]:
        """What lets one probe through at a time where an endpoint is asked."""
        view = self.views.get(endpoint)
        if self.gate is not None:
            yield self.gate
        if view is not None and view.gate is not None:
            yield view.gate


def shut(known: KnownSource, view: EndpointView, now: float, *, status: int | None, reason: str) -> None:
    """Shut the gate that this failure asks for, where it is not shut already."""
    if status == 403:
        view.gate = view.gate or Gate(since=now, refused=True, reason=reason, opens_at=now + REFUSED_WAIT)
    elif status == 401 and (known.gate is None or not known.gate.refused):
        since = known.gate.since if known.gate else now
        known.gate = Gate(since=since, refused=True, reason=reason, opens_at=now + REFUSED_WAIT)
    elif known.gate is None and len(known.row) >= SEVERAL:
        since = known.failing_since if known.failing_since is not None else now
        known.gate = Gate(since=since, reason=reason, opens_at=now + FIRST_WAIT)


def begun(known: KnownSource, latest: LatestFailure) -> Iterator[Notice]:
    """The notice of a failure that begins an episode. One of the source speaks for its endpoints."""
    view = known.views[latest.endpoint]
    failing = view.units[latest.unit]
    if known.episode is not None:
        return
    alone = known.seen is None or known.seen < failing.since  # nothing else went well meanwhile
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
        how = f"nothing of it could be seen since {iso(failure.since)}"
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
    """The end of the source's episode. Endpoints that its gate kept waiting were unseen, asked or not."""
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
    """The end of an endpoint's episode: it may be asked again, and no unit of it fails for long."""
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
    """What is said of an endpoint that is seen again after it could not be seen at all for a while."""
    view = known.views[endpoint]
    since = view.missing_since()
    if since is not None and view.unseen_since is not None and now - view.unseen_since > GAP:
        yield gap(known.source, endpoint, since=since, now=now)
