"""Pure: the health of a source. What waits after a failure, what is still asked, and what an operator is told.

A unit that fails backs off alone. What concerns more than a unit is a gate that lets one probe through at a time:
on the source when different units fail in a row or the credentials are refused, on an endpoint that is forbidden.
An episode is the time from when a failure is told to when it is over; each is told once and taken back once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import msgspec

from poller.events.cloudevents import iso
from poller.http_dates import LONGEST
from poller.polling.notices import (
    Failure,
    Missed,
    endpoint_fails,
    endpoint_recovered,
    gap,
    goes_on,
    source_fails,
    source_recovered,
    stands_still,
)
from state.notices import Notice

__all__ = [
    "EndpointHealth",
    "HealthReport",
    "HealthUpdate",
    "SourceHealth",
    "StallWatch",
    "Turns",
    "backoff",
    "due_since",
]

FIRST_WAIT: Final = 5.0  # seconds
LONGEST_WAIT: Final = 1800.0
REFUSED_WAIT: Final = 900.0  # between the probes after a 401 or 403
PROBE_TIME: Final = 60.0  # for which a probe under way keeps others back, should it never end
REFUSALS: Final = (401, 403)
OF_ONE_PARENT: Final = (403, 404, 410)  # answers of a list per parent that are a matter of this parent
SEVERAL: Final = 5  # units failing in a row, or failures of one unit
GAP: Final = 300.0  # seconds that an endpoint may stay unseen without a word
STALL: Final = 300.0
CLOCK_SLACK: Final = 60.0

SourceState = Literal["ok", "failing", "probing", "blocked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthUpdate:
    """What follows from an answer, or from a unit that is gone."""

    retry_at: float | None = None  # the unit is not to be asked before then; None: whenever the planner likes
    notices: tuple[Notice, ...] = ()
    reopened: bool = False  # what the source or the endpoint held back may go now


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointHealth:
    """What is wrong with one endpoint."""

    endpoint: str
    reason: str
    since: float  # Unix seconds
    blocked: bool  # nothing of it but probes is asked
    units: int  # that fail now
    next_try: float  # Unix seconds; in the past: at once


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """How a source is, for status. `ok` may have failing units that are too young to tell."""

    state: SourceState
    since: float | None = None  # Unix seconds
    reason: str | None = None
    next_probe: float | None = None  # Unix seconds, of the source as a whole; in the past: at once
    endpoints: tuple[EndpointHealth, ...] = ()
    is_whole: bool = False  # nothing of the source goes well

    def not_before(self, at: float) -> HealthReport:
        """The same where nothing can be asked before then."""
        probe = None if self.next_probe is None else max(self.next_probe, at)
        endpoints = tuple(replace(one, next_try=max(one.next_try, at)) for one in self.endpoints)
        return replace(self, next_probe=probe, endpoints=endpoints)


def backoff(failures: int, retry_after: float | None = None) -> float:
    """Seconds to wait after that many failures in a row: 5 s, doubling to 30 min, and never less than the server asks.

    `retry_after` is cut at a day.
    """
    wait = min(FIRST_WAIT * 2.0 ** min(max(failures - 1, 0), 20), LONGEST_WAIT)
    return max(wait, min(retry_after or 0.0, LONGEST))


@dataclass(slots=True, kw_only=True)
class _Gate:
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
class _Episode:
    since: float
    reason: str


@dataclass(slots=True, kw_only=True)
class _Unit:
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
class _Latest:
    """The failure that has just come."""

    endpoint: str
    unit: str
    status: int | None
    now: float
    not_before: float  # the budget allows no call until then


@dataclass(slots=True, kw_only=True)
class _View:
    """What is known of an endpoint."""

    seen: float | None = None  # its latest success
    unseen_since: float | None = None  # nothing of it could be seen from then on
    gate: _Gate | None = None
    episode: _Episode | None = None
    units: dict[str, _Unit] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # lists of single parents that were 403 since the latest success

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeptView:
    """What outlives a restart of an endpoint's health. Gates do not: a restart and a reload ask at once."""

    unseen_since: float | None
    episode: _Episode | None
    units: dict[str, _Unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What outlives a restart of a source's health, as `dump` writes it."""

    failing_since: float | None
    episode: _Episode | None
    endpoints: dict[str, _KeptView]


class SourceHealth:
    """The life of one source, told by the answers of its units. Times are Unix seconds.

    The wait of a single unit is `HealthUpdate.retry_at` and the planner's matter; `allows` and `blocked_until` tell
    what the source or the endpoint holds back. `seen` gives the latest success of each endpoint, from before a restart.
    """

    def __init__(self, source: str, *, seen: Mapping[str, float] | None = None) -> None:
        self.source = source
        self._views = {endpoint: _View(seen=at) for endpoint, at in (seen or {}).items()}
        self._gate: _Gate | None = None
        self._episode: _Episode | None = None
        self._row: set[tuple[str, str]] = set()  # units that failed since the latest success
        self._failing_since: float | None = None
        self._seen: float | None = max((seen or {}).values(), default=None)

    def dump(self) -> bytes:
        """The episodes and failures that `recall` takes up after a restart or reload."""
        views = {
            name: _KeptView(unseen_since=view.unseen_since, episode=view.episode, units=view.units)
            for name, view in self._views.items()
            if view.is_worth_keeping
        }
        return msgspec.json.encode(_Kept(failing_since=self._failing_since, episode=self._episode, endpoints=views))

    def recall(self, saved: bytes, units: Mapping[str, Collection[str]] | None = None) -> None:
        """Take up what was dumped, of the units (by endpoint) that there still are (None: of all): an episode that was
        told is not told again, and its end is. Raises ValueError, changing nothing, where it is no dump.
        """
        kept = msgspec.json.decode(saved, type=_Kept)
        for name, was in kept.endpoints.items():
            there = was.units if units is None else units.get(name)
            if there is None:
                continue
            view = self._views.setdefault(name, _View())
            view.unseen_since, view.episode = was.unseen_since, was.episode
            view.units = {key: unit for key, unit in was.units.items() if key in there}
        self._failing_since, self._episode = kept.failing_since, kept.episode

    def allows(self, endpoint: str, unit: str, now: float) -> bool:
        """Whether a call of this unit may leave: nothing holds its source or endpoint back, or it is the probe."""
        return all(gate.probe == (endpoint, unit) or not gate.is_shut(now) for gate in self._gates(endpoint))

    def blocked_until(self, endpoint: str, now: float) -> float | None:
        """When the next probe of this endpoint may leave; None: at once."""
        return max((gate.opens_at for gate in self._gates(endpoint) if gate.is_shut(now)), default=None)

    def started(self, endpoint: str, unit: str, now: float) -> None:
        """A call of this unit leaves: where there is a gate, it is the one probe, until it is answered or 60 s over."""
        for gate in self._gates(endpoint):
            gate.started((endpoint, unit), now)

    def failed(
        self,
        endpoint: str,
        unit: str,
        now: float,
        *,
        reason: str,
        status: int | None,
        retry_after: float | None,
        failures: int,
        not_before: float | None = None,
        per_parent: bool = False,
    ) -> HealthUpdate:
        """A poll of this unit failed; `reason` is shown, so without secrets.

        `failures` in a row decide how long it waits; how many have been counted here decides what is told, and a
        command that asks anew does not set that back. `not_before` (Unix seconds): the budget allows no call until
        then, so no next try is told that would be sooner. A 401 is one that renewed credentials did not cure.
        `per_parent`: the unit is the list of one parent of many; that this one is not there, or not to be seen, says
        nothing about the others.
        """
        view = self._views.setdefault(endpoint, _View())
        self._failing_since = now if self._failing_since is None else self._failing_since
        view.unseen_since = now if view.unseen_since is None else view.unseen_since
        failing = view.units.setdefault(unit, _Unit(since=now))
        failing.count, failing.failures = failing.count + 1, max(failing.failures + 1, failures)
        failing.reason = reason
        failing.of_parent = per_parent and status in OF_ONE_PARENT
        if status in REFUSALS and not failing.of_parent:
            failing.retry_at = now + max(REFUSED_WAIT, backoff(1, retry_after))
        else:
            failing.retry_at = now + backoff(failures, retry_after)
        for gate in self._gates(endpoint):
            gate.failed((endpoint, unit), now)
        if status != 403 and not failing.of_parent:
            self._row.add((endpoint, unit))
        if status == 403 and per_parent:
            view.refused.add(unit)
        is_alone = failing.of_parent and len(view.refused) < SEVERAL
        self._shut(view, now, status=None if is_alone else status, reason=reason)
        latest = _Latest(endpoint=endpoint, unit=unit, status=status, now=now, not_before=not_before or 0.0)
        return HealthUpdate(retry_at=failing.retry_at, notices=tuple(self._told(latest)))

    def succeeded(self, endpoint: str, unit: str, now: float) -> HealthUpdate:
        """A poll of this unit went well: what its source and endpoint held back may go, and what is over is told."""
        view = self._views.setdefault(endpoint, _View())
        reopened = self._gate is not None or view.gate is not None
        healed = view.units.pop(unit, None)
        view.gate = None
        view.refused.clear()
        notices = [
            *self._source_over(now),
            *self._endpoint_over(endpoint, unit, now, healed, seen=now),
            *self._gap(endpoint, now),
        ]
        self._gate, self._episode, self._failing_since = None, None, None
        self._row.clear()
        self._seen = view.seen = now
        view.unseen_since = None
        return HealthUpdate(notices=tuple(notices), reopened=reopened)

    def forget(self, endpoint: str, unit: str, now: float) -> HealthUpdate:
        """This unit is gone: nobody waits for it to be well again."""
        view = self._views.get(endpoint, _View())
        gone = view.units.pop(unit, None)
        self._row.discard((endpoint, unit))
        return HealthUpdate(notices=tuple(self._endpoint_over(endpoint, unit, now, gone, seen=view.seen)))

    def probe_now(self) -> tuple[tuple[str, str], ...]:
        """Let a probe go at once, everywhere; return the units (endpoint, key) that back off, to be tried as well."""
        for gate in (self._gate, *(view.gate for view in self._views.values())):
            if gate is not None:
                gate.opens_at, gate.probe = 0.0, None
        return tuple((endpoint, unit) for endpoint, view in self._views.items() for unit in view.units)

    def snapshot(self) -> HealthReport:
        """How the source is."""
        endpoints = tuple(_health(name, view) for name, view in sorted(self._views.items()) if view.units or view.gate)
        if self._gate is not None:
            state: SourceState = "blocked" if self._gate.refused else "probing"
            since, reason, probe = self._gate.since, self._gate.reason, self._gate.opens_at
            return HealthReport(
                state=state, since=since, reason=reason, next_probe=probe, endpoints=endpoints, is_whole=True
            )
        told = [self._episode, *(view.episode for view in self._views.values())]
        first = min((episode for episode in told if episode), key=lambda episode: episode.since, default=None)
        if first is None:
            return HealthReport(state="ok", endpoints=endpoints)
        return HealthReport(
            state="failing",
            since=first.since,
            reason=first.reason,
            endpoints=endpoints,
            is_whole=self._episode is not None,
        )

    def _gates(self, endpoint: str) -> Iterator[_Gate]:
        view = self._views.get(endpoint)
        if self._gate is not None:
            yield self._gate
        if view is not None and view.gate is not None:
            yield view.gate

    def _shut(self, view: _View, now: float, *, status: int | None, reason: str) -> None:
        """Shut the gate that this failure asks for, where it is not shut already."""
        if status == 403:
            view.gate = view.gate or _Gate(since=now, refused=True, reason=reason, opens_at=now + REFUSED_WAIT)
        elif status == 401 and (self._gate is None or not self._gate.refused):
            since = self._gate.since if self._gate else now
            self._gate = _Gate(since=since, refused=True, reason=reason, opens_at=now + REFUSED_WAIT)
        elif self._gate is None and len(self._row) >= SEVERAL:
            since = self._failing_since if self._failing_since is not None else now
            self._gate = _Gate(since=since, reason=reason, opens_at=now + FIRST_WAIT)

    def _told(self, latest: _Latest) -> Iterator[Notice]:
        """The notice of a failure that begins an episode. One of the source speaks for its endpoints."""
        view = self._views[latest.endpoint]
        failing = view.units[latest.unit]
        if self._episode is not None:
            return
        alone = self._seen is None or self._seen < failing.since  # nothing else went well meanwhile
        often = failing.is_sick(view.seen) and view.gate is None
        if self._gate is not None or (often and alone and failing.count >= SEVERAL):
            since = self._failing_since if self._failing_since is not None else failing.since
            self._episode = _Episode(since=since, reason=failing.reason)
            yield self._source_fails(self._failure(latest, self._gate, since))
        elif view.episode is None and (view.gate is not None or (often and not alone)):
            since = view.gate.since if view.gate is not None else failing.since
            view.episode = _Episode(since=since, reason=failing.reason)
            how = f"failed {failing.failures} times in a row at {latest.unit}" if view.gate is None else "is refused"
            yield endpoint_fails(self.source, self._failure(latest, view.gate, since), how=how)

    def _source_fails(self, failure: Failure) -> Notice:
        if self._gate is None:
            how = f"nothing of it could be seen since {iso(failure.since)}"
        elif self._gate.refused:
            how = "its credentials are refused"
        else:
            how = f"{len(self._row)} polls in a row failed, each of another unit"
        failing = [(name, key, unit.reason) for name, view in self._views.items() for key, unit in view.units.items()]
        return source_fails(self.source, failure, how=how, failing=failing)

    def _failure(self, latest: _Latest, gate: _Gate | None, since: float) -> Failure:
        failing = self._views[latest.endpoint].units[latest.unit]
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

    def _source_over(self, now: float) -> Iterator[Notice]:
        """The end of the source's episode. Endpoints that its gate kept waiting were unseen, asked or not."""
        since = self._gate.since if self._gate is not None else None
        if since is not None and now - since > GAP:
            for view in self._views.values():
                view.unseen_since = since if view.unseen_since is None else view.unseen_since
        if self._episode is not None:
            views = sorted(self._views.items())
            missed = [
                Missed(endpoint=name, since=at) for name, view in views if (at := view.missing_since()) is not None
            ]
            began, reason = self._episode.since, self._episode.reason
            yield source_recovered(self.source, since=began, now=now, reason=reason, missed=missed)

    def _endpoint_over(
        self, endpoint: str, unit: str, now: float, healed: _Unit | None, *, seen: float | None
    ) -> Iterator[Notice]:
        """The end of an endpoint's episode: it may be asked again, and no unit of it fails for long."""
        view = self._views.get(endpoint)
        if view is None or view.episode is None or view.is_sick(seen):
            return
        episode, view.episode = view.episode, None
        missed = []
        if (since := view.missing_since()) is not None:
            missed = [Missed(endpoint=endpoint, since=since)]
        elif healed is not None:
            missed = [Missed(endpoint=endpoint, since=healed.since, unit=unit)]
        began, reason = episode.since, episode.reason
        yield endpoint_recovered(self.source, endpoint, since=began, now=now, reason=reason, missed=missed)

    def _gap(self, endpoint: str, now: float) -> Iterator[Notice]:
        """What is said of an endpoint that is seen again after it could not be seen at all for a while."""
        view = self._views[endpoint]
        since = view.missing_since()
        if since is not None and view.unseen_since is not None and now - view.unseen_since > GAP:
            yield gap(self.source, endpoint, since=since, now=now)


class StallWatch:
    """Watches that a source which should poll does, whatever the cause if it does not."""

    def __init__(self, source: str, *, limit: float = STALL) -> None:
        self.source = source
        self.limit = limit  # seconds
        self._last_poll: float | None = None
        self._waiting_since: float | None = None
        self._stalled_since: float | None = None

    def dump(self) -> bytes:
        """The alarm that stands, for `recall` after a restart or reload."""
        return msgspec.json.encode(self._stalled_since)

    def recall(self, saved: bytes) -> None:
        """Take up an alarm that was told: its end will be. Raises ValueError where it is no dump."""
        self._stalled_since = msgspec.json.decode(saved, type=float | None)

    def check(self, now: float, *, due_since: float | None, last_poll: float | None) -> Notice | None:
        """Alarm once when nothing was polled for longer than the limit though something was due; tell once when it is.

        `due_since`: since when a unit of this source is due (see `due_since`); None where nothing is.
        `last_poll`: when a poll last began, well or not. Both are Unix seconds. Call it at least once a minute.
        """
        polled, self._last_poll = last_poll != self._last_poll, last_poll
        if due_since is not None and due_since > now:
            due_since = None
        if polled or due_since is None:
            self._waiting_since = None
        if polled and self._stalled_since is not None:
            began, self._stalled_since = self._stalled_since, None
            return goes_on(self.source, since=began, now=now)
        if due_since is None:
            return None
        began = due_since if last_poll is None else max(due_since, last_poll)
        # The earliest beginning holds: a caller's idea of "due since" may start anew at each look.
        self._waiting_since = min(now, began if self._waiting_since is None else min(began, self._waiting_since))
        if self._stalled_since is not None or now - self._waiting_since < self.limit:
            return None
        self._stalled_since = self._waiting_since
        return stands_still(self.source, since=self._stalled_since, now=now, last_poll=last_poll)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How the units of one source stand in the planner of their budget. Times are Unix seconds."""

    is_free: bool  # the budget allows a call now
    is_first: bool  # the planner would poll a unit of this source next
    due: float | None  # the earliest time of a unit of this source; None: all are in flight, or there is none
    latest: float  # when the budget, for whatever source, last began a poll, or was opened


def due_since(turns: Turns, now: float, *, limit: float = STALL) -> float | None:
    """Since when a unit of a source should have been polled.

    While others of the same budget are polled, only what the planner would poll next counts: the rest was rightly put
    off. Where nothing of the budget was polled for that long, everything that is due counts.
    """
    if not turns.is_free or turns.due is None or turns.due > now:
        return None
    if now - turns.latest >= limit:
        return max(turns.latest, turns.due)
    return now if turns.is_first else None


def _health(name: str, view: _View) -> EndpointHealth:
    units = view.units.values()
    worst = min(units, key=lambda unit: unit.since, default=_Unit(since=0.0))
    gate = view.gate
    return EndpointHealth(
        endpoint=name,
        reason=gate.reason if gate is not None else worst.reason,
        since=gate.since if gate is not None else worst.since,
        blocked=gate is not None,
        units=len(units),
        next_try=gate.opens_at if gate is not None else min(unit.retry_at for unit in units),
    )
