"""The planner of a budget: chooses which unit is polled next, and learns from each poll. Pure.

The next poll goes to the unit with the most accumulated weighted delay per call: argmax of w A / c, where A is the
integral of the expected number of unseen changes since the unit's last poll. With constant known rates the index is w l
tau^2 / (2 c), the Whittle index of the age cost, and the mean delay is within 0.1 % of the optimum D* = (sum sqrt(w l
c))^2 / (2 B sum w l) (Coffman, Liu & Weber 1998; Tripathi & Modiano 2019). Every unit's index grows without bound, so
no unit is starved and exploration needs no bonus.

The parts: `units` (which units there are, with a table of their statistics), `models` (what is learned of each source,
as `learning` says), `ranking` (which unit is next) and `pacing` (how fast to spend calls).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from poller.planner.explanation import Explanation, Figures, explained
from poller.planner.memory import dumped, read, restore
from poller.planner.models import Models
from poller.planner.pacing import Pacing
from poller.planner.ranking import Ranking, Scores
from poller.planner.rates import mean_rates
from poller.planner.unit import Unit
from poller.planner.units import Units

__all__ = ["Explanation", "Planner", "Unit", "explanations"]


class Planner:
    """Planner of one budget: a deterministic function of its inputs and the seed.

    `started`, `released`, `observe`, `defer` and `excite` ignore a unit that the planner does not know, such
    as one removed while a poll was in flight.
    """

    def __init__(self, units: Iterable[Unit], *, now: float, seed: int = 0) -> None:
        known = list(units)
        self.units = Units(len(known))
        self.models = Models(self.units)
        self._scores = Scores(self.units.table, self.models, seed=seed)
        self._pacing = Pacing(self.units.table, self.models, now=now)
        self._ranking = Ranking(self.units, self._scores, self._pacing)
        for unit in known:
            self.add(unit, now=now)

    def add(self, unit: Unit, *, now: float) -> None:
        """Add a unit, to be polled before all units that have been polled; a known unit gets the new cost, weight and
        limit.
        """
        is_new = unit not in self.units
        slot = self.units.add(unit, self.models.number(unit.source, now))
        if is_new:
            self._scores.fit()
            self._ranking.first_polls.add(slot)

    def remove(self, unit: Unit) -> None:
        """Remove a unit and its statistics."""
        slot = self.units.slot(unit)
        if slot is not None:
            self.models.forget(slot)
            self.units.remove(unit)

    def choose(self, now: float) -> Unit | None:
        """The best unit to poll now, or None while all units are in flight or deferred. Has no effect on the plan."""
        slot = self._ranking.next(now)
        return None if slot is None else self.units.at(slot)

    def next_due(self, now: float, source: str | None = None) -> float | None:
        """The earliest instant at which `choose` returns a unit (of one source); None if that depends on an answer or a
        new unit.
        """
        table = self.units.table
        ready = table.ready[: table.top]
        if source is not None:
            ready = ready[table.source[: table.top] == self.models.known(source)]
        earliest = float(ready.min()) if ready.size else math.inf
        return None if earliest == math.inf else max(earliest, now)

    def started(self, unit: Unit) -> None:
        """Mark a unit as in flight: it is not chosen until it is observed, deferred or released."""
        slot = self.units.slot(unit)
        if slot is not None:
            self.units.table.ready[slot] = math.inf
            self._ranking.started()

    def released(self, unit: Unit) -> None:
        """Return a unit whose poll had no result; it may be chosen again at once."""
        slot = self.units.slot(unit)
        if slot is not None:
            self.units.table.ready[slot] = -math.inf
            self._ranking.released(slot)

    def defer(self, unit: Unit, until: float) -> None:
        """Postpone a unit after a failed poll; its age keeps growing."""
        slot = self.units.slot(unit)
        if slot is not None:
            self.units.table.ready[slot] = until
            self._ranking.deferred()

    def observe(self, unit: Unit, now: float, changed: int) -> None:
        """Learn from a poll that found `changed` objects changed. The first poll of a unit only sets its time."""
        slot = self.units.slot(unit)
        if slot is None:
            return
        self._pacing.answered(now, unit.cost)
        self.models.observe(slot, now, changed, memory=self._pacing.memory(len(self.units)))
        self.units.table.ready[slot] = -math.inf
        self._ranking.observed(slot)
        if self.models.of(slot).refit_due(now):
            self.models.refit(now)
            self._ranking.forget()

    def polled(self, unit: Unit, at: float) -> None:
        """Set when a unit was last polled if what that poll taught is unavailable, as after a crash. An earlier time is
        ignored.
        """
        slot = self.units.slot(unit)
        if slot is not None and not at <= self.units.table.last[slot]:
            self.models.polled(slot, at)
            self._ranking.forget()

    def excite(self, unit: Unit, changed: int) -> None:
        """Expect changes in a child unit because its parent changed `changed` times."""
        slot = self.units.slot(unit)
        if slot is not None:
            self.units.table.minutes[slot] += changed
            self.units.table.hours[slot] += changed

    def pace(self, now: float, left: int, seconds: float) -> float:
        """Calls per second to spend now, given `left` calls for the next `seconds`: more while changes are frequent.

        The pace is proportional to sum sqrt(w c l(t)) (Sia, Cho & Cho 2007), stays between 0.3 and 3 times the even
        pace, and is at least what `max_staleness` requires (at most 3 times the even pace).
        """
        if len(self.units) and self._ranking.is_outdated(now):
            self._ranking.compute(now)
        return self._pacing.pace(now, left, seconds)

    def explain(self, unit: Unit, now: float) -> Explanation:
        """The explanation of one unit. Raises KeyError for a unit that was not added."""
        if unit not in self.units:
            raise KeyError(unit)
        [explanation] = explained(self.units.slots([unit]), self.units.table, _figures(self, now, None))
        return explanation

    def dump(self) -> bytes:
        """What the planner has learned, for `load`: last polls, rates, excitation, rhythm, deferrals."""
        return dumped(self.units, self.models, self._pacing)

    def load(self, saved: bytes, *, moved: float = 0.0) -> None:
        """Restore what `dump` returned, for the units that still exist. Raises ValueError, and changes nothing, for
        other data.

        `moved` is the number of seconds by which the clock has been set since the dump: all saved times are shifted by
        it. Units that were in flight at the dump may be chosen again.
        """
        restore(read(saved, moved=moved), self.units, self.models, self._pacing)
        self._ranking.forget()


def explanations(planner: Planner, now: float, *, calls_per_second: float | None = None) -> list[Explanation]:
    """The explanations of all units of a planner, the next one first."""
    found = explained(planner.units.slots(), planner.units.table, _figures(planner, now, calls_per_second))
    return sorted(found, key=lambda one: one.rank)


def _figures(planner: Planner, now: float, calls_per_second: float | None) -> Figures:
    score, expected = planner._scores.at(now)
    return Figures(
        now=now,
        score=score,
        rate=expected.rate,
        mean=mean_rates(planner.units.table, planner.models),
        calls=calls_per_second or planner._pacing.calls_per_second or 1.0,
    )
