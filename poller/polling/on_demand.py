"""Sweeps on command: one complete sweep of chosen endpoints, begun now, and what stands in its way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from poller.changes.certainty import Uncertainty
from poller.events.cloudevents import iso
from poller.polling.endpoint import Watching, awaited, waits_for_others
from poller.polling.source import Run

TRIES = 3  # failures of a unit, since the sweep was asked for, after which it goes on without it
PATIENCE = 60.0  # seconds: a sweep does not wait for a unit that its server wants left alone for longer

Flying = Collection[tuple[str, str, str]]  # units being asked for: source, endpoint, key


@dataclass(frozen=True, slots=True)
class Begun:
    """The sweep that was under way when it was to begin anew, and from which request on."""

    sweep: int
    order: int


class Sweeping:
    """The sweeps of some endpoints, each begun anew, until each is complete or stuck."""

    def __init__(self, runs: Mapping[str, Run], flying: Flying, began: Mapping[tuple[str, str], Begun]) -> None:
        self._runs = runs
        self._flying = flying
        self._began = began

    def __iter__(self) -> Iterator[tuple[Run, Watching]]:
        return ((self._runs[source], self._runs[source].watchings[name]) for source, name in self._began)

    def goes_on(self, now: float) -> bool:
        """Whether there is still something to ask for, or to wait for."""
        return any(
            (not self.is_swept(run, w) and not self._is_stuck(run, w, now))
            or run.deletions.waiting.get(w.name)
            or self._is_under_way(run, w)
            for run, w in self
        )

    def stuck(self, now: float) -> list[str]:
        """What could not be seen, in words."""
        found = [f"{w.label}: {_why(run, w, now)}" for run, w in self if not self.is_swept(run, w)]
        return found + [
            f"{w.label}: uncertain, its baseline has not ended: {doubt.text}"
            for run, w in self
            if self.is_swept(run, w) and w.in_baseline and (doubt := Uncertainty.load(w.state.uncertain)) is not None
        ]

    def progress(self) -> tuple[int, int]:
        """(units polled, units known so far)."""
        units = sum(len(w.units) for _, w in self)
        return units - sum(len(w.sweep.pending) for run, w in self if not self.is_swept(run, w)), units

    def is_swept(self, run: Run, w: Watching) -> bool:
        """Whether its sweep is complete."""
        return w.state.sweep > self._began[run.name, w.name].sweep and w.has_swept

    def next_unit(
        self, budget: str, now: float, held_back: Callable[[Run, Watching, str, float], float | None]
    ) -> tuple[Run, Watching, str] | None:
        """A unit that a sweep still waits for."""
        for run, w in self:
            if run.config.budget != budget or self.is_swept(run, w) or self.is_held(run, w):
                continue
            for key in (*w.sweep.pending, *awaited(w)):
                if self._is_due(run, w, key, now) and held_back(run, w, key, now) is None:
                    return run, w, key
        return None

    def next_retry(self, now: float) -> float | None:
        """When a unit that failed may be tried again."""
        waiting = (unit.retry_at or now for _, w in self for unit in w.failing())
        return min((at for at in waiting if at <= now + PATIENCE), default=None)

    def _is_due(self, run: Run, w: Watching, key: str, now: float) -> bool:
        unit = w.units.get(key)
        if unit is None or (run.name, w.name, key) in self._flying or waits_for_others(w, key):
            return False
        return not unit.failures or (unit.failures < TRIES and (unit.retry_at or now) <= now)

    def is_held(self, run: Run, w: Watching) -> bool:
        """It is held, and what it shows now has been counted: it is not back to normal."""
        counted = w.guards.recount
        if w.state.held is None or counted is None:
            return False
        return counted.by_hand or counted.judged_order >= self._began[run.name, w.name].order

    def _is_under_way(self, run: Run, w: Watching) -> bool:
        return any(flying[:2] == (run.name, w.name) for flying in self._flying)

    def _is_stuck(self, run: Run, w: Watching, now: float) -> bool:
        """Nothing more can come of it now: it is held back, or what is left of it has failed several times."""
        if self._is_under_way(run, w):
            return False
        if not run.discovery.is_done:
            return run.discovery.failures >= TRIES
        if self.is_held(run, w) or run.health.blocked_until(w.name, now) is not None or _throttled_until(run, now):
            return True
        parent = run.watchings.get(w.watch.endpoint.parent or "")
        if not w.sweep.pending and parent is not None:
            return (run.name, parent.name) not in self._began or self._is_stuck(run, parent, now)
        left = (*w.sweep.pending, *awaited(w))
        tried = {unit.key for unit in w.failing() if unit.failures >= TRIES or (unit.retry_at or now) > now + PATIENCE}
        return bool(left) and all(key in tried or waits_for_others(w, key) for key in left)


def _throttled_until(run: Run, now: float) -> float | None:
    """Until when its server wants no call, where that is longer than a sweep on command waits."""
    until = run.lane.throttled_until()
    return until if until is not None and until > now + PATIENCE else None


def _why(run: Run, w: Watching, now: float) -> str:
    if w.state.held is not None:
        return "held: see `poller status`"
    if (until := _throttled_until(run, now)) is not None:
        return f"the server wants no call of budget {run.lane.name} before {iso(until)}"
    errors = [unit.error for unit in w.failing() if unit.error]
    return (errors[0] if errors else None) or run.health.snapshot().reason or "not complete"
