"""The units of one endpoint in memory, in their order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

from msgspec import structs

from poller.changes.certainty import claims_of
from poller.polling.unit_keys import CHILD, is_swept, place_of
from state.polls import UnitState

PLACE: Final = itemgetter(0)


class Units(dict[str, UnitState]):
    """The units of one endpoint, by key. The pages of a list are known in their order: a list may have thousands."""

    def __init__(self, units: Iterable[UnitState]) -> None:
        super().__init__((unit.key, unit) for unit in units)
        self._keys = {unit.id: unit.key for unit in self.values()}
        self._pages = sorted((place_of(unit.position), key) for key, unit in self.items() if _is_page(key))

    def put(self, unit: UnitState) -> None:
        """Add a unit, or replace it after a poll."""
        if unit.key not in self and _is_page(unit.key):
            insort(self._pages, (place_of(unit.position), unit.key))
        self[unit.key] = unit
        self._keys[unit.id] = unit.key

    def drop(self, key: str) -> UnitState | None:
        """Remove a unit, and return it if it was known."""
        unit = self.pop(key, None)
        if unit is not None:
            self._keys.pop(unit.id, None)
            if _is_page(key):
                page = place_of(unit.position), key
                del self._pages[bisect_left(self._pages, page)]
        return unit

    def clear(self) -> None:
        """Remove all units."""
        super().clear()
        self._keys.clear()
        self._pages.clear()

    def by_id(self, unit_id: int) -> UnitState | None:
        """The unit with this id, or None."""
        return self.get(self._keys.get(unit_id, ""))

    def swept(self) -> dict[str, UnitState]:
        """The units that are part of sweeps, by key."""
        return {key: unit for key, unit in self.items() if is_swept(key)}

    def only_one(self) -> UnitState | None:
        """The unit that is the whole list, if there is one."""
        if len(self) > 3:  # at most a list and the two kinds of selections
            return None
        swept = [*self.swept().values()]
        return swept[0] if len(swept) == 1 else None

    def after(self, key: str) -> list[UnitState]:
        """Keys of the pages after this one, which says that it is the last."""
        at = bisect_right(self._pages, place_of(self[key].position), key=PLACE)
        return [self[other] for _, other in self._pages[at:]]

    def amid(self, key: str, end: int) -> list[str]:
        """Keys of the pages that begin after this one, and before the place `end`."""
        at = bisect_right(self._pages, place_of(self[key].position), key=PLACE)
        return [other for _, other in self._pages[at : bisect_left(self._pages, end, key=PLACE)]]

    def before(self, key: str) -> UnitState | None:
        """The previous page; None for the first."""
        at = bisect_left(self._pages, place_of(self[key].position), key=PLACE)
        return self[self._pages[at - 1][1]] if at else None

    def goes_on(self, key: str) -> bool:
        """Whether an earlier page says that it is the last, and is not: this one shows objects."""
        at = bisect_left(self._pages, place_of(self[key].position), key=PLACE)
        return any(unit.shown and claims_of(unit).is_last for _, other in self._pages[:at] if (unit := self[other]))

    def is_after(self, key: str, other: str) -> bool:
        """Whether both are pages, and this one comes after the other."""
        return _is_page(other) and place_of(self[other].position) < place_of(self[key].position)

    def failing(self) -> list[UnitState]:
        """Units whose latest poll failed."""
        return [unit for unit in self.values() if unit.failures]

    def invalidate(self, unit_ids: Iterable[int]) -> None:
        """Compare these units completely at their next poll, because another unit has shown some of their objects."""
        for unit_id in unit_ids:
            if (unit := self.by_id(unit_id)) is not None:
                self[unit.key] = structs.replace(unit, digest=None, validators=None)

    def invalidate_ends(self) -> None:
        """Compare pages completely at their next poll that say that they are the last, and after which pages are known
        that show nothing: these are to be dropped.
        """
        for _, key in reversed(self._pages):
            unit = self[key]
            if unit.next is not None and claims_of(unit).is_last:
                self.invalidate([unit.id])
            if unit.shown:
                return


def _is_page(key: str) -> bool:
    """Whether the unit is one page of a list. A list per parent has no place among the others."""
    return is_swept(key) and not key.startswith(CHILD)
