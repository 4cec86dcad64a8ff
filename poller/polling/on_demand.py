"""On-demand sweeps: a complete sweep of chosen endpoints that begins now, and what keeps it from ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
import orjson

from poller.changes.certainty import Uncertainty
from poller.events.cloudevents import iso
from poller.polling.endpoint import WatchedEndpoint, awaited, waits_for_others
from poller.polling.failing_lists import failing_text
from poller.polling.results import InFlight
from poller.polling.source import ActiveSource

TRIES = 3  # failures of a unit after which the sweep continues without it
PATIENCE = 60.0  # seconds; the sweep does not wait longer for a pause that a server asks for


class Begun(msgspec.Struct, frozen=True):
    """The sweep that was under way when the new one was requested, and the request from which the new one counts."""

    sweep: int
    order: int


class OnDemandSweep:
    """New sweeps of some endpoints, until each is complete or stuck."""

    def __init__(
        self, sources: Mapping[str, ActiveSource], in_flight: InFlight, began: Mapping[tuple[str, str], Begun]
    ) -> None:
        self._sources = sources
        self._in_flight = in_flight
        self._began = began
        self._left = dict.fromkeys(began)  # those that were not yet seen complete, in order

    def __iter__(self) -> Iterator[tuple[ActiveSource, WatchedEndpoint]]:
        return ((self._sources[source], self._sources[source].endpoints[name]) for source, name in self._began)

    def goes_on(self, now: float) -> bool:
        """Whether there is still something to poll or to wait for."""
        return (
            any((source, name) in self._began for source, name, _ in self._in_flight)
            or any(not self._is_stuck(active, w, now) for active, w in self._incomplete())
            or any(
                (active.name, name) in self._began and active.deletions.queue.is_due(name, now)
                for active in self._sources.values()
                for name in active.deletions.queue.waiting
            )
        )

    def stuck(self, now: float) -> list[str]:
        """What could not be read, as text."""
        missing = [f"{w.label}: {_why(active, w, now)}" for active, w in self if not self.is_swept(active, w)]
        doubtful = [
            f"{w.label}: uncertain, its baseline has not ended: {doubt.text}"
            for active, w in self
            if self.is_swept(active, w) and w.in_baseline and (doubt := Uncertainty.load(w.state.uncertain)) is not None
        ]
        failing = [
            f"{w.label}: {text}"
            for active, w in self
            if self.is_swept(active, w) and (text := failing_text(w)) is not None
        ]
        return [*missing, *doubtful, *failing]

    def progress(self) -> tuple[int, int]:
        """(units polled, units known so far)."""
        units = sum(len(w.units) for _, w in self)
        return units - sum(len(w.sweep.pending) for _, w in self._incomplete()), units

    def is_swept(self, active: ActiveSource, w: WatchedEndpoint) -> bool:
        """Whether the endpoint's sweep is complete."""
        return w.state.sweep > self._began[active.name, w.name].sweep and w.has_swept

    def next_unit(
        self, budget: str, now: float, held_back: Callable[[ActiveSource, WatchedEndpoint, str, float], float | None]
    ) -> tuple[ActiveSource, WatchedEndpoint, str] | None:
        """A unit that a sweep still waits for."""
        for active, w in self._incomplete():
            if active.config.budget != budget or self.is_held(active, w):
                continue
            for key in (*w.sweep.pending, *awaited(w)):
                if self._is_due(active, w, key, now) and held_back(active, w, key, now) is None:
                    return active, w, key
        return None

    def next_retry(self, now: float) -> float | None:
        """When a unit that failed may be polled again."""
        waiting = (unit.retry_at or now for _, w in self for unit in w.units.failing())
        return min((at for at in waiting if at <= now + PATIENCE), default=None)

    def _incomplete(self) -> Iterator[tuple[ActiveSource, WatchedEndpoint]]:
        """The endpoints whose sweep is not complete. One that is complete is not looked at again."""
        for source, name in list(self._left):
            active = self._sources[source]
            w = active.endpoints[name]
            if self.is_swept(active, w):
                self._left.pop((source, name), None)
            else:
                yield active, w

    def _is_due(self, active: ActiveSource, w: WatchedEndpoint, key: str, now: float) -> bool:
        unit = w.units.get(key)
        if unit is None or (active.name, w.name, key) in self._in_flight or waits_for_others(w, key):
            return False
        return not unit.failures or (unit.failures < TRIES and (unit.retry_at or now) <= now)

    def is_held(self, active: ActiveSource, w: WatchedEndpoint) -> bool:
        """Whether the endpoint is held and every unit was counted without the hold ending."""
        counted = w.guards.recount
        if w.state.held is None or counted is None:
            return False
        return counted.by_hand or counted.judged_order >= self._began[active.name, w.name].order

    def _is_under_way(self, active: ActiveSource, w: WatchedEndpoint) -> bool:
        return any(in_flight[:2] == (active.name, w.name) for in_flight in self._in_flight)

    def _is_stuck(self, active: ActiveSource, w: WatchedEndpoint, now: float) -> bool:
        """Whether the sweep cannot continue: its endpoint is held back, or the remaining units have failed several
        times.
        """
        if self._is_under_way(active, w):
            return False
        if not active.discovery.is_done:
            blocked = active.health.blocked_until(w.name, now)
            return active.discovery.failures >= TRIES or (blocked is not None and blocked > now + PATIENCE)
        if (
            self.is_held(active, w)
            or active.health.blocked_until(w.name, now) is not None
            or _throttled_until(active, now)
        ):
            return True
        parent = active.endpoints.get(w.rules.endpoint.parent or "")
        if not w.sweep.pending and parent is not None:
            return (active.name, parent.name) not in self._began or self._is_stuck(active, parent, now)
        left = (*w.sweep.pending, *awaited(w))
        tried = {
            unit.key for unit in w.units.failing() if unit.failures >= TRIES or (unit.retry_at or now) > now + PATIENCE
        }
        return bool(left) and all(key in tried or waits_for_others(w, key) for key in left)


def _throttled_until(active: ActiveSource, now: float) -> float | None:
    """The end of the server's pause, if that is longer than an on-demand sweep waits."""
    until = active.poll_loop.pauses.until()
    return until if until is not None and until > now + PATIENCE else None


def _why(active: ActiveSource, w: WatchedEndpoint, now: float) -> str:
    if w.state.held is not None:
        why = orjson.loads(w.state.held)["why"]
        return f"held, {why}: nothing is recorded until `poller release {w.label}` with `--accept` or `--emit` decides"
    if (until := _throttled_until(active, now)) is not None:
        return f"the server wants no call of budget {active.poll_loop.name} before {iso(until)}"
    errors = [unit.error for unit in w.units.failing() if unit.error]
    return (errors[0] if errors else None) or active.health.snapshot().reason or "not complete"
