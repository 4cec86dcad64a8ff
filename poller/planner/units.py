"""The units of a planner, and the table that has a slot of statistics for each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from poller.planner.unit import Unit

Floats = NDArray[np.float64]


class Table:
    """Statistics of all units, one column each; slots of removed units are reused."""

    columns = (
        "last",
        "profile_integral",
        "changes",
        "exposure",
        "minutes",
        "hours",
        "ready",
        "weight",
        "cost",
        "limit",
        "place",
        "seen",
    )

    def __init__(self, capacity: int) -> None:
        self.rows = np.zeros((len(self.columns), max(capacity, 16)))
        self.source = np.zeros(max(capacity, 16), np.intp)
        self.top = 0
        self.free: list[int] = []
        self._name()

    def take(self) -> int:
        """Allocate a slot."""
        if self.free:
            return self.free.pop()
        if self.top == self.source.size:
            self.rows = np.concatenate((self.rows, np.zeros_like(self.rows)), axis=1)
            self.source = np.concatenate((self.source, np.zeros_like(self.source)))
            self._name()
        self.top += 1
        return self.top - 1

    def give_back(self, slot: int) -> None:
        """Free a slot: nothing is expected of it, and it is never ready."""
        self.rows[:, slot] = 0.0
        self.ready[slot] = math.inf
        self.limit[slot] = math.inf
        self.free.append(slot)

    def _name(self) -> None:
        self.last, self.profile_integral, self.changes, self.exposure, self.minutes, self.hours = self.rows[:6]
        self.ready, self.weight, self.cost, self.limit, self.place, self.seen = self.rows[6:]


class Units:
    """The units of a planner, each with its slot in the table."""

    def __init__(self, capacity: int) -> None:
        self.table = Table(capacity)
        self.limited = 0  # units that have a `max_staleness`
        self._slots: dict[Unit, int] = {}
        self._at: list[Unit | None] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, unit: object) -> bool:
        return unit in self._slots

    def __iter__(self) -> Iterator[Unit]:
        """All units, in no particular order; they may be removed meanwhile."""
        return iter([unit for unit in self._at if unit is not None])

    @property
    def capacity(self) -> int:
        """The number of units for which memory is allocated."""
        return int(self.table.source.size)

    @property
    def promised(self) -> list[Unit]:
        """The units that have a `max_staleness`."""
        limited = np.flatnonzero(self.table.limit[: self.table.top] < math.inf) if self.limited else ()
        return [unit for slot in limited if (unit := self._at[slot]) is not None]

    def slots(self, units: Iterable[Unit] | None = None) -> list[tuple[int, Unit]]:
        """The slots of these units, or of all, with each unit as it was last added."""
        slots = self._slots.values() if units is None else [self._slots[unit] for unit in units]
        return [(slot, unit) for slot in slots if (unit := self._at[slot]) is not None]

    def slot(self, unit: Unit) -> int | None:
        """The slot of a unit; None for an unknown one."""
        return self._slots.get(unit)

    def at(self, slot: int) -> Unit | None:
        """The unit in a slot."""
        return self._at[slot]

    def add(self, unit: Unit, source: int) -> int:
        """Add a unit of the source with that number, and return its slot; a known unit gets the new settings."""
        slot = self._slots.get(unit)
        if slot is None:
            slot = self._settle(source)
        else:
            self.limited -= bool(self.table.limit[slot] < math.inf)
        self._slots[unit] = slot
        self._at[slot] = unit
        table = self.table
        table.weight[slot] = unit.weight
        table.cost[slot] = unit.cost
        table.limit[slot] = math.inf if unit.max_staleness is None else unit.max_staleness
        self.limited += unit.max_staleness is not None
        return slot

    def remove(self, unit: Unit) -> None:
        """Remove a known unit and its statistics."""
        slot = self._slots.pop(unit)
        self.limited -= bool(self.table.limit[slot] < math.inf)
        self._at[slot] = None
        self.table.give_back(slot)

    def _settle(self, source: int) -> int:
        """A slot for a unit that was never polled."""
        table = self.table
        slot = table.take()
        if slot == len(self._at):
            self._at.append(None)
        table.rows[:, slot] = 0.0
        table.source[slot] = source
        table.last[slot] = math.nan
        table.ready[slot] = -math.inf
        table.place[slot] = self._added
        self._added += 1
        return slot
