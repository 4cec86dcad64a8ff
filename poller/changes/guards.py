"""What keeps one odd answer from becoming a storm of events. Pure: decides, records nothing."""

from __future__ import annotations

import enum
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from poller.documents.diff import DEPTH, Rules, compared, pointer
from state.records import FieldChange

HOUR = 3600.0
AT_LEAST_SHIFTED = 10
AT_LEAST_DELETED = 50
NOISY_POLLS = 5
MOST_STREAKS = 10_000
MOST_REMEMBERED = 100_000


class Shape(enum.StrEnum):
    """What happened to a field where its value is not the point."""

    ADDED = "added"
    REMOVED = "removed"
    NULLED = "nulled"
    RETURNED = "returned"  # after it was nulled everywhere
    REPLACED = "replaced"  # not a field: the objects are others


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeShift:
    """Fields that took another form on most objects of one page, by JSON Pointer."""

    fields: Mapping[str, Shape]
    objects: int  # on which the most common of them did
    is_torn: bool = False  # it seems to have come while a chain was read: not the whole list has it


NO_SHIFT = ShapeShift(fields={}, objects=0)


@dataclass(slots=True)
class Quarantined:
    """A page that is kept aside."""

    shift: ShapeShift
    asked_order: int  # of the request whose answer first looked so
    seen_order: int  # and of the latest


Quarantine = dict[str, Quarantined]  # by unit


def shape_shift(
    pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    shown: int,
    rules: Rules | None = None,
    *,
    at_least: int = AT_LEAST_SHIFTED,
    nulled: Set[str] = frozenset(),
) -> ShapeShift | None:
    """The fields added, removed or nulled on more than half of the objects that a page shows, and on at least 10.

    So are those of `nulled` that have a value again: what a permission hid comes back with it.

    `pairs` are the objects that changed, before and after; `shown` counts all on the page. Fields of nested
    objects count, elements of arrays do not. What `rules` hide is not looked at.
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
    """The fields added, removed or nulled on at least 10 objects that stand together in a list.

    So it looks when the form changes while the pages of a chain are read. `places`: of each pair in the list.
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
    """Whether both show a same field shifted in the same way: then it is a schema change, and no accident of a page."""
    return not one.fields.items().isdisjoint(other.fields.items())


def unexplained(fields: Iterable[FieldChange], shift: ShapeShift) -> tuple[FieldChange, ...]:
    """The changes of an object that a schema change does not account for: they are told as an update."""
    return tuple(field for field in fields if (shape := _shape(field)) is None or shift.fields.get(field.path) != shape)


def is_mass_deletion(known: int, deleted: int) -> bool:
    """Whether more than half of an endpoint's objects, and at least 50, were deleted. `known` counts those left."""
    return deleted >= AT_LEAST_DELETED and deleted * 2 > known + deleted


class Turnover:
    """The objects of one endpoint that were reported as created and as deleted within the last hour, by steady time."""

    def __init__(self) -> None:
        self._deleted: deque[float] = deque(maxlen=MOST_REMEMBERED)
        self._created: deque[float] = deque(maxlen=MOST_REMEMBERED)

    def deleted(self, at: float) -> None:
        """An object was reported as deleted."""
        self._deleted.append(at)

    def created(self, at: float, number: int = 1) -> None:
        """Objects were reported as created."""
        self._created.extend([at] * number)

    def forget(self) -> None:
        """Count from now on: somebody has looked at it."""
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
    """Finds the fields of one endpoint that change at every poll: candidates for `ignore`, named once each.

    Feed it every poll of a unit, also those that saw nothing change. Keeps a count per unit and noisy field,
    at most `MOST_STREAKS` of them.
    """

    def __init__(self, polls: int = NOISY_POLLS) -> None:
        self.candidates: set[str] = set()
        self._polls = polls
        self._streaks: dict[str, dict[str, int]] = {}  # by unit, then field: polls in a row

    def observe(self, unit: str, shown: int, changed: Collection[Iterable[FieldChange]]) -> tuple[str, ...]:
        """Note the changes of each object updated in a poll that showed `shown`; return what is a candidate only now.

        A field counts when it changed on more than half of the objects shown. Indexes of arrays become `*`.
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
        """Drop what is counted for a unit that is gone."""
        self._streaks.pop(unit, None)

    def _size(self) -> int:
        return sum(map(len, self._streaks.values()))


def generalised(path: str) -> str:
    """A pointer in which every number is `*`, so that it can be ignored in every element."""
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
