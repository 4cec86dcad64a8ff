"""The models of all sources of a planner, and what they learn from polls of its units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from poller.planner.learning import HOURS, KERNEL_SPANS, PRIOR, QUIET, SourceModel

if TYPE_CHECKING:
    from poller.planner.unit import Unit
    from poller.planner.units import Table, Units


class Models:
    """A model for each source; the units' own statistics are in the table."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._table = units.table
        self._numbers: dict[str, int] = {}
        self._models: list[SourceModel] = []

    def __iter__(self) -> Iterator[SourceModel]:
        """The models in the order of their numbers."""
        return iter(self._models)

    def number(self, source: str, now: float) -> int:
        """The number of a source; a new one gets a model."""
        if source not in self._numbers:
            self._numbers[source] = len(self._models)
            self._models.append(SourceModel(now))
        return self._numbers[source]

    def known(self, source: str) -> int:
        """The number of a source; -1 for an unknown one."""
        return self._numbers.get(source, -1)

    def rhythm(self, source: str) -> list[float]:
        """The learned hour-of-week profile with mean 1, starting at Thursday midnight UTC like the Unix epoch."""
        at = self._numbers.get(source)
        return [1.0] * HOURS if at is None else self._models[at].rhythm.levels.tolist()

    def of(self, slot: int) -> SourceModel:
        """The model of a unit's source."""
        return self._models[int(self._table.source[slot])]

    def observe(self, slot: int, now: float, changed: int, *, memory: float) -> None:
        """Learn from a poll; what was seen before is discounted with the time constant `memory`, in seconds."""
        if now > self._table.last[slot]:
            _learn(self._table, self.of(slot), slot, now, changed, memory)
        self.polled(slot, now)

    def polled(self, slot: int, at: float) -> None:
        """Set when a unit was last polled."""
        self._table.last[slot] = at
        self._table.profile_integral[slot] = self.of(slot).rhythm.integral(at)

    def inherit(self, new: Unit, old: Unit, *, keep: float = 0.3) -> None:
        """Copy the rate of the old last page to the new one; the old one keeps the share `keep` of it."""
        table, heir, giver = self._table, self._units.slot(new), self._units.slot(old)
        if heir is None or giver is None:
            return
        for column in (table.changes, table.seen, table.minutes, table.hours):
            column[heir] = column[giver]
            column[giver] *= keep
        table.exposure[heir] = table.exposure[giver]
        self._recount(table.source[heir])

    def forget(self, slot: int) -> None:
        """Subtract a unit's statistics from the sums of its source."""
        model = self.of(slot)
        model.changes -= float(self._table.changes[slot])
        model.seen -= float(self._table.seen[slot])
        model.exposure -= float(self._table.exposure[slot])

    def refit(self, now: float) -> None:
        """Refit every model."""
        for source, model in enumerate(self._models):
            model.refit(now)
            self._recount(source)
        self._restate_integrals()

    def dump(self) -> dict[str, Any]:
        """The models as JSON-compatible values, by source."""
        return {name: self._models[at].dump() for name, at in sorted(self._numbers.items())}

    def load(self, models: Mapping[str, SourceModel]) -> None:
        """Adopt loaded models, once the loaded statistics are in the table."""
        for name, model in models.items():
            self._models[self.number(name, 0.0)] = model
        for source in range(len(self._models)):
            self._recount(source)
        self._restate_integrals()

    def _restate_integrals(self) -> None:
        """Recompute each unit's integral up to its last poll, because the profile has changed."""
        table = self._table
        for source, model in enumerate(self._models):
            of_source = np.flatnonzero(table.source[: table.top] == source)
            table.profile_integral[of_source] = model.rhythm.integrals(table.last[of_source])

    def _recount(self, source: int) -> None:
        """Recompute a source's sums, because differences accumulate rounding errors."""
        table, model = self._table, self._models[source]
        of_source = table.source[: table.top] == source
        model.changes = float(table.changes[: table.top][of_source].sum())
        model.seen = float(table.seen[: table.top][of_source].sum())
        model.exposure = float(table.exposure[: table.top][of_source].sum())


def _learn(table: Table, model: SourceModel, slot: int, now: float, changed: int, memory: float) -> None:
    last = float(table.last[slot])
    tau = now - last
    changes, seen, exposure = float(table.changes[slot]), float(table.seen[slot]), float(table.exposure[slot])
    rate = (PRIOR + changes) / (PRIOR / model.pooled + exposure)
    passed = model.rhythm.integral(now) - float(table.profile_integral[slot])
    fades = math.exp(-tau / KERNEL_SPANS[0]), math.exp(-tau / KERNEL_SPANS[1])
    held = float(table.minutes[slot]), float(table.hours[slot])
    exposed = held[0] * (1 - fades[0]), held[1] * (1 - fades[1])
    counted, own = model.split(changed, rate * passed, exposed)
    for column, kept, fade, span in zip((table.minutes, table.hours), held, fades, KERNEL_SPANS, strict=True):
        excited = kept * fade + counted * span / tau * (1 - fade)
        column[slot] = excited if excited > QUIET else 0.0
    remembered = math.exp(-tau / memory)
    table.changes[slot] = changes * remembered + own
    table.seen[slot] = seen * remembered + counted
    table.exposure[slot] = exposure * remembered + passed
    model.changes += float(table.changes[slot]) - changes
    model.seen += float(table.seen[slot]) - seen
    model.exposure += float(table.exposure[slot]) - exposure
    model.rhythm.learn(last, now, own, rate)
