"""Health of a source: what waits after a failure, and what is still polled. Pure.

A unit that fails backs off alone. A failure that concerns more than a unit closes a gate, which lets one probe through
at a time: the gate of the source if different units fail in a row or the credentials are refused, the gate of the
endpoint if it is forbidden.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec
from msgspec import structs

from poller.polling.episodes import (
    OF_ONE_PARENT,
    REFUSALS,
    REFUSED_WAIT,
    SEVERAL,
    EndpointView,
    Episode,
    FailingUnit,
    KnownSource,
    LatestFailure,
    backoff,
    begun,
    endpoint_over,
    gap_over,
    shut,
    source_over,
)
from state.notices import Notice

SourceState = Literal["ok", "failing", "probing", "blocked"]


class HealthUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from an answer, or from the removal of a unit."""

    retry_at: float | None = None  # the unit is not polled before then; None: the planner decides
    notices: tuple[Notice, ...] = ()
    reopened: bool = False  # units that the source or the endpoint held back may be polled now


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Problems of one endpoint."""

    endpoint: str
    reason: str
    since: float  # Unix seconds
    blocked: bool  # only probes of it are sent
    units: int  # units that fail now
    next_try: float  # Unix seconds; a past time means at once


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """Health of a source for the status. `ok` may include failing units whose failure was not reported yet."""

    state: SourceState
    since: float | None = None  # Unix seconds
    reason: str | None = None
    next_probe: float | None = None  # Unix seconds, of the source as a whole; in the past: at once
    endpoints: tuple[EndpointHealth, ...] = ()
    is_whole: bool = False  # nothing of the source succeeds

    def not_before(self, at: float) -> HealthReport:
        """The same report for a source that cannot be polled before then."""
        probe = None if self.next_probe is None else max(self.next_probe, at)
        endpoints = tuple(structs.replace(one, next_try=max(one.next_try, at)) for one in self.endpoints)
        return structs.replace(self, next_probe=probe, endpoints=endpoints)


class _KeptView(msgspec.Struct, frozen=True, kw_only=True):
    """Health of an endpoint as stored. Gates are not stored, because a restart and a reload poll at once."""

    unseen_since: float | None
    episode: Episode | None
    units: dict[str, FailingUnit]


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Health of a source as `dump` writes it."""

    failing_since: float | None
    episode: Episode | None
    endpoints: dict[str, _KeptView]


class SourceHealth:
    """Health of one source, derived from the answers of its units. Times are Unix seconds.

    The wait of a single unit is `HealthUpdate.retry_at`, which the planner keeps; `allows` and `blocked_until` say what
    the source or the endpoint holds back. `seen` gives the latest success of each endpoint from before a restart.
    """

    def __init__(self, source: str, *, seen: Mapping[str, float] | None = None) -> None:
        views = {endpoint: EndpointView(seen=at) for endpoint, at in (seen or {}).items()}
        self._known = KnownSource(source=source, views=views, seen=max((seen or {}).values(), default=None))

    def dump(self) -> bytes:
        """The episodes and failures that `recall` restores after a restart or reload."""
        views = {
            name: _KeptView(unseen_since=view.unseen_since, episode=view.episode, units=view.units)
            for name, view in self._known.views.items()
            if view.is_worth_keeping
        }
        return msgspec.json.encode(
            _Kept(failing_since=self._known.failing_since, episode=self._known.episode, endpoints=views)
        )

    def recall(self, saved: bytes, units: Mapping[str, Collection[str]] | None = None) -> None:
        """Restore a dump, for those units (by endpoint) that still exist (None: for all). An episode that was reported
        is not reported again, but its end is. Raises ValueError, changing nothing, if `raw` is not a dump.
        """
        kept = msgspec.json.decode(saved, type=_Kept)
        for name, was in kept.endpoints.items():
            there = was.units if units is None else units.get(name)
            if there is None:
                continue
            view = self._known.views.setdefault(name, EndpointView())
            view.unseen_since, view.episode = was.unseen_since, was.episode
            view.units = {key: unit for key, unit in was.units.items() if key in there}
        self._known.failing_since, self._known.episode = kept.failing_since, kept.episode

    def allows(self, endpoint: str, unit: str, now: float) -> bool:
        """Whether a call of this unit may be sent: its source and endpoint are open, or it is the probe."""
        return all(gate.probe == (endpoint, unit) or not gate.is_shut(now) for gate in self._known.gates(endpoint))

    def blocked_until(self, endpoint: str, now: float) -> float | None:
        """When the next probe of this endpoint may be sent; None: at once."""
        return max((gate.opens_at for gate in self._known.gates(endpoint) if gate.is_shut(now)), default=None)

    def started(self, endpoint: str, unit: str, now: float) -> None:
        """A call of this unit is sent. Behind a closed gate it is the only probe until it is answered, or for 60 s."""
        for gate in self._known.gates(endpoint):
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
        """A poll of this unit failed; `reason` is shown, so it must not contain secrets.

        `failures` in a row decide how long the unit waits. The failures counted here decide what is reported, and a
        command that polls anew does not reset them. `not_before` (Unix seconds): the budget allows no call before then,
        so no earlier attempt is announced. A 401 is one that renewed credentials did not cure. `per_parent`: the unit
        is the list of one parent among many; that it does not exist or is forbidden says nothing about the others.
        """
        known, is_of_parent = self._known, per_parent and status in OF_ONE_PARENT
        view = known.views.setdefault(endpoint, EndpointView())
        known.failing_since = now if known.failing_since is None else known.failing_since
        failing = view.fail(unit, now, reason=reason, failures=failures, of_parent=is_of_parent)
        if status in REFUSALS and not is_of_parent:
            failing.retry_at = now + max(REFUSED_WAIT, backoff(1, retry_after))
        else:
            failing.retry_at = now + backoff(failures, retry_after)
        for gate in known.gates(endpoint):
            gate.failed((endpoint, unit), now)
        if status != 403 and not is_of_parent:
            known.row.add((endpoint, unit))
        if status == 403 and per_parent:
            view.refused.add(unit)
        is_alone = is_of_parent and len(view.refused) < SEVERAL
        shut(known, view, now, status=None if is_alone else status, reason=reason)
        latest = LatestFailure(endpoint=endpoint, unit=unit, status=status, now=now, not_before=not_before or 0.0)
        return HealthUpdate(retry_at=failing.retry_at, notices=tuple(begun(known, latest)))

    def succeeded(self, endpoint: str, unit: str, now: float) -> HealthUpdate:
        """A poll of this unit succeeded: open the gates of its source and endpoint, and report what is over."""
        view = self._known.views.setdefault(endpoint, EndpointView())
        reopened = self._known.gate is not None or view.gate is not None
        healed = view.units.pop(unit, None)
        view.gate = None
        view.refused.clear()
        notices = [
            *source_over(self._known, now),
            *endpoint_over(self._known, endpoint, unit, now, healed, seen=now),
            *gap_over(self._known, endpoint, now),
        ]
        self._known.gate, self._known.episode, self._known.failing_since = None, None, None
        self._known.row.clear()
        self._known.seen = view.seen = now
        view.unseen_since = None
        return HealthUpdate(notices=tuple(notices), reopened=reopened)

    def forget(self, endpoint: str, unit: str, now: float) -> HealthUpdate:
        """Remove a unit that no longer exists, with its failures."""
        view = self._known.views.get(endpoint, EndpointView())
        gone = view.units.pop(unit, None)
        self._known.row.discard((endpoint, unit))
        return HealthUpdate(notices=tuple(endpoint_over(self._known, endpoint, unit, now, gone, seen=view.seen)))

    def probe_now(self) -> tuple[tuple[str, str], ...]:
        """Let a probe go at once everywhere; return the units (endpoint, key) that back off, to be polled as well."""
        for gate in (self._known.gate, *(view.gate for view in self._known.views.values())):
            if gate is not None:
                gate.opens_at, gate.probe = 0.0, None
        return tuple((endpoint, unit) for endpoint, view in self._known.views.items() for unit in view.units)

    def snapshot(self) -> HealthReport:
        """The current health."""
        endpoints = tuple(
            _health(name, view) for name, view in sorted(self._known.views.items()) if view.units or view.gate
        )
        if self._known.gate is not None:
            state: SourceState = "blocked" if self._known.gate.refused else "probing"
            since, reason, probe = self._known.gate.since, self._known.gate.reason, self._known.gate.opens_at
            return HealthReport(
                state=state, since=since, reason=reason, next_probe=probe, endpoints=endpoints, is_whole=True
            )
        told = [self._known.episode, *(view.episode for view in self._known.views.values())]
        first = min((episode for episode in told if episode), key=lambda episode: episode.since, default=None)
        if first is None:
            return HealthReport(state="ok", endpoints=endpoints)
        return HealthReport(
            state="failing",
            since=first.since,
            reason=first.reason,
            endpoints=endpoints,
            is_whole=self._known.episode is not None,
        )


def _health(name: str, view: EndpointView) -> EndpointHealth:
    units = view.units.values()
    worst = min(units, key=lambda unit: unit.since, default=FailingUnit(since=0.0))
    gate = view.gate
    return EndpointHealth(
        endpoint=name,
        reason=gate.reason if gate is not None else worst.reason,
        since=gate.since if gate is not None else worst.since,
        blocked=gate is not None,
        units=len(units),
        next_try=gate.opens_at if gate is not None else min(unit.retry_at for unit in units),
    )
