"""Guards against many events from one odd answer. Pure: they decide, and record nothing."""

from __future__ import annotations

import enum
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import msgspec

from poller.documents.diff import DEPTH, Rules, compared, pointer
from state.records import FieldChange

HOUR = 3600.0
AT_LEAST_SHIFTED = 10
AT_LEAST_DELETED = 50
NOISY_POLLS = 5
MOST_STREAKS = 10_000
MOST_REMEMBERED = 100_000


class Shape(enum.StrEnum):
    """How the form of a field changed, regardless of its value."""

    ADDED = "added"
    REMOVED = "removed"
    NULLED = "nulled"
    RETURNED = "returned"  # present again after it was null everywhere
    REPLACED = "replaced"  # not a field: the objects were replaced


class ShapeShift(msgspec.Struct, frozen=True, kw_only=True):
    """Fields, by JSON Pointer, whose form changed on most objects of one page."""

    fields: Mapping[str, Shape]
    objects: int  # objects on which the most common change occurred
    is_torn: bool = False  # it seems to have begun while a chain was read, so only part of the list has it


NO_SHIFT = ShapeShift(fields={}, objects=0)


class Quarantined(msgspec.Struct, frozen=True):
    """A page that is set aside."""

    shift: ShapeShift
    asked_order: int  # order of the request whose answer first looked like this
    seen_order: int  # order of the latest such request


Quarantine = dict[str, Quarantined]  # quarantined pages by unit


def shape_shift(
    pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    shown: int,
    rules: Rules | None = None,
    *,
    at_least: int = AT_LEAST_SHIFTED,
    nulled: Set[str] = frozenset(),
) -> ShapeShift | None:
    """The fields added, removed or nulled on more than half of the objects that a page shows, and on at least 10.

    Fields of `nulled` that have a value again count as well, because a permission that hid them also restores them.

    `pairs` are the changed objects, before and after; `shown` counts all objects on the page. Fields of nested objects
    count, elements of arrays do not. Fields that `rules` hide are left out.
    """
    rules = rules or Rules()
    seen = Counter(
        shift
        for before, after in pairs
        for shift in _shifts(compared(before, rules), compared(after, rules), ())
        if shift[1] is not Shape.RETURNED or shift[0] in nulled
    )
    common = {shift: count for shift, count in seen.items() if count >= at_least and count * 2 > shown}
    return ShapeShift(fields=dict(sorted(common)), objects=max(common.values())) if common else None


def torn_shift(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    places: Sequence[int],
    rules: Rules,
    *,
    nulled: Set[str] = frozenset(),
) -> ShapeShift | None:
    """The fields added, removed or nulled on at least 10 objects that are adjacent in a list.

    This happens if the form changes while the pages of a chain are read. `places` are the positions of the pairs in the
    list.
    """
    found: dict[tuple[str, Shape], list[int]] = {}
    for (before, after), place in zip(pairs, places, strict=True):
        for shift in _shifts(compared(before, rules), compared(after, rules), ()):
            if shift[1] is not Shape.RETURNED or shift[0] in nulled:
                found.setdefault(shift, []).append(place)
    torn = {
        shift: len(at)
        for shift, at in found.items()
        if len(at) >= AT_LEAST_SHIFTED and len(at) * 2 > max(at) - min(at) + 1
    }
    return ShapeShift(fields=dict(sorted(torn)), objects=max(torn.values()), is_torn=True) if torn else None


def agree(one: ShapeShift, other: ShapeShift) -> bool:
    """Whether both have a field shifted in the same way, which means a schema change rather than an accident of one
    page.
    """
    return not one.fields.items().isdisjoint(other.fields.items())


def unexplained(fields: Iterable[FieldChange], shift: ShapeShift) -> tuple[FieldChange, ...]:
    """The changes of an object that a schema change does not explain; they are reported as an update."""
    return tuple(field for field in fields if (shape := _shape(field)) is None or shift.fields.get(field.path) != shape)


def is_mass_deletion(known: int, deleted: int) -> bool:
    """Whether more than half of an endpoint's objects, and at least 50, were deleted. `known` counts the remaining
    ones.
    """
    return deleted >= AT_LEAST_DELETED and deleted * 2 > known + deleted


class Turnover:
    """How many objects of one endpoint were reported as created and as deleted within the last hour, by steady time."""

    def __init__(self) -> None:
        self._deleted: deque[float] = deque(maxlen=MOST_REMEMBERED)
        self._created: deque[float] = deque(maxlen=MOST_REMEMBERED)

    def deleted(self, at: float) -> None:
        """Count an object that was reported as deleted."""
        self._deleted.append(at)

    def created(self, at: float, number: int = 1) -> None:
        """Count objects that were reported as created."""
        self._created.extend([at] * number)

    def forget(self) -> None:
        """Start counting again, because an operator has decided."""
        self._deleted.clear()
        self._created.clear()

    def deletions(self, now: float) -> int:
        """How many were deleted within the last hour."""
        return _within_an_hour(self._deleted, now)

    def net_deletions(self, now: float) -> int:
        """How many more were deleted than created within the last hour."""
        return max(0, self.deletions(now) - _within_an_hour(self._created, now))


def _within_an_hour(times: deque[float], now: float) -> int:
    while times and times[0] <= now - HOUR:
        times.popleft()
    return len(times)


class NoiseDetector:
    """Finds the fields of one endpoint that change at every poll. Each is named once as a candidate for `ignore`.

    Call it for every poll of a unit, including unchanged ones. It keeps a count per unit and noisy field, at most
    `MOST_STREAKS` of them.
    """

    def __init__(self, polls: int = NOISY_POLLS) -> None:
        self.candidates: set[str] = set()
        self._polls = polls
        self._streaks: dict[str, dict[str, int]] = {}  # by unit, then field: consecutive polls

    def observe(self, unit: str, shown: int, changed: Collection[Iterable[FieldChange]]) -> tuple[str, ...]:
        """Count the changes of each object updated in a poll that showed `shown` objects; return new candidates.

        A field counts if it changed on more than half of the objects shown. Array indexes become `*`.
        """
        before = self._streaks.pop(unit, {})
        if len(changed) * 2 <= shown:
            return ()
        seen = Counter(path for fields in changed for path in {generalised(field.path) for field in fields})
        noisy = [path for path, count in seen.items() if count * 2 > shown and path not in self.candidates]
        found = sorted(path for path in noisy if before.get(path, 0) + 1 >= self._polls)
        self.candidates.update(found)
        if len(noisy) > len(found) and self._size() + len(noisy) <= MOST_STREAKS:
            self._streaks[unit] = {path: before.get(path, 0) + 1 for path in noisy if path not in self.candidates}
        return tuple(found)

    def forget(self, unit: str) -> None:
        """Drop the counts of a unit that no longer exists."""
        self._streaks.pop(unit, None)

    def _size(self) -> int:
        return sum(map(len, self._streaks.values()))


def generalised(path: str) -> str:
    """A pointer with every number replaced by `*`, so that it can be ignored in every element."""
    return re.sub(r"/\d+(?=/|$)", "/*", path)


def _shifts(before: Mapping[str, Any], after: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Shape]]:
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if key not in before:
            yield pointer((*path, key)), Shape.ADDED
        elif key not in after:
            yield pointer((*path, key)), Shape.REMOVED
        elif new is None and old is not None:
            yield pointer((*path, key)), Shape.NULLED
        elif old is None and new is not None:
            yield pointer((*path, key)), Shape.RETURNED
        elif isinstance(old, dict) and isinstance(new, dict) and len(path) < DEPTH:
            yield from _shifts(old, new, (*path, key))


def _shape(field: FieldChange) -> Shape | None:
    if field.had_before != field.has_after:
        return Shape.ADDED if field.has_after else Shape.REMOVED
    if field.has_after and field.after is None:
        return Shape.NULLED
    return Shape.RETURNED if field.had_before and field.before is None else None
