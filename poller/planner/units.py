"""The units of a planner, and the table that has a slot of statistics for each of them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from typing import Final

from poller.planner.unit import Unit

COLUMNS: Final = (
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


class Table:
    """Statistics of all units, one column each; slots of removed units are reused.

    The columns are arrays of the standard library: reading or writing one number of them is several times quicker than
    with numpy, whose import a short command can do without. What is computed over all units looks at them by
    `vectors`.
    """

    last: array[float]
    profile_integral: array[float]
    changes: array[float]
    exposure: array[float]
    minutes: array[float]
    hours: array[float]
    ready: array[float]
    weight: array[float]
    cost: array[float]
    limit: array[float]
    place: array[float]
    seen: array[float]

    def __init__(self, capacity: int) -> None:
        self.capacity = max(capacity, 16)
        for name in COLUMNS:
            setattr(self, name, array("d", bytes(8 * self.capacity)))
        self.source = array("q", bytes(8 * self.capacity))  # number of each unit's source
        self.top = 0
        self.free: list[int] = []

    def take(self) -> int:
        """Allocate a slot."""
        if self.free:
            return self.free.pop()
        if self.top == self.capacity:
            for name in (*COLUMNS, "source"):  # new arrays, because one that is looked at cannot grow
                column = getattr(self, name)
                setattr(self, name, column + array(column.typecode, bytes(8 * self.capacity)))
            self.capacity *= 2
        self.top += 1
        return self.top - 1

    def clear(self, slot: int) -> None:
        """Set every figure of a slot to zero."""
        for name in COLUMNS:
            getattr(self, name)[slot] = 0.0

    def give_back(self, slot: int) -> None:
        """Free a slot: nothing is expected of it, and it is never ready."""
        self.clear(slot)
        self.ready[slot] = math.inf
        self.limit[slot] = math.inf
        self.free.append(slot)


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
        return self.table.capacity

    @property
    def promised(self) -> list[Unit]:
        """The units that have a `max_staleness`."""
        limited = self.table.limit if self.limited else ()
        return [unit for unit, limit in zip(self._at, limited, strict=False) if unit is not None and limit < math.inf]

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
            self.limited -= self.table.limit[slot] < math.inf
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
        self.limited -= self.table.limit[slot] < math.inf
        self._at[slot] = None
        self.table.give_back(slot)

    def _settle(self, source: int) -> int:
        """A slot for a unit that was never polled."""
        table = self.table
        slot = table.take()
        if slot == len(self._at):
            self._at.append(None)
        table.clear(slot)
        table.source[slot] = source
        table.last[slot] = math.nan
        table.ready[slot] = -math.inf
        table.place[slot] = self._added
        self._added += 1
        return slot
