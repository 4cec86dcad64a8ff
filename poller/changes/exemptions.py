"""What is stored of an endpoint's guards: decisions of operators and other pages, and what waits for one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson
from msgspec import structs

from poller.changes.guards import NO_SHIFT, Quarantined, Shape, ShapeShift
from poller.rendering.counting import counted

MOST_UNSHOWN: Final = 100  # objects whose own URLs answer without them, that are stored


class Misleading(msgspec.Struct, frozen=True, kw_only=True):
    """An own URL that answered 404 or 410 for an object that its list shows."""

    object_id: str
    url: str

    @property
    def text(self) -> str:
        """The message for an operator."""
        return f"{self.object_id} is in the list, but {self.url} says that it is gone: is `item_path` right?"


class Clash(msgspec.Struct, frozen=True):
    """An id that names different objects on two pages."""

    seen_at: float  # when the latest sweep that saw both ended
    missed: int = 0  # sweeps since then that saw one of them at most


def clashes_after(
    known: Mapping[str, Clash], seen: Iterable[str], *, ended_at: float, absent_for: float
) -> dict[str, Clash]:
    """The clashes known after a sweep that saw those of `seen`.

    One of the two objects may be hidden for a while, as any object may: a clash is over only when two sweeps and
    `absent_for` seconds have passed without it. A time in the future comes from a clock that was wrong.
    """
    kept = {
        object_id: Clash(min(clash.seen_at, ended_at), clash.missed + 1)
        for object_id, clash in known.items()
        if clash.missed == 0 or ended_at - clash.seen_at <= absent_for
    }
    return kept | {object_id: Clash(ended_at) for object_id in seen}


class Unlisted(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of objects that left their list and whose own URLs answer."""

    is_reported: bool = False  # that there are such objects
    unshown: Mapping[str, int] = msgspec.field(default_factory=dict)  # those whose answers do not show them: the status

    @property
    def text(self) -> str | None:
        """The objects whose own URLs answer without them, for an operator; None if there are none."""
        if not self.unshown:
            return None
        object_id, status = next(iter(self.unshown.items()))
        others = f" (and {counted(len(self.unshown) - 1, 'more object')} alike)" if len(self.unshown) > 1 else ""
        return f"{object_id}: its own URL answers {status} without the object{others}, so nothing is concluded"


class Exemptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the guards of one endpoint accept, and what they have set aside."""

    shift: ShapeShift = NO_SHIFT
    shift_until: int = 0
    nulled: frozenset[str] = frozenset()  # fields whose change to null was silent: their return is silent as well
    deletions_until: int = 0
    doubts: frozenset[str] = frozenset()  # patterns of doubts that do not make a sweep uncertain
    failing: frozenset[str] = frozenset()  # keys of the lists without which the latest sweep ended
    unread: frozenset[str] = (
        frozenset()
    )  # keys of lists not read when the baseline ended: their first objects are silent
    misleading: Misleading | None = None  # if set, own URLs confirm no deletion
    unlisted: Unlisted = Unlisted()
    clashes: Mapping[str, Clash] = msgspec.field(default_factory=dict)  # by id: never reported as edits
    certain_since: float | None = None  # when the first sweep ended after the latest one that was uncertain
    quarantine: Mapping[str, Quarantined] = msgspec.field(default_factory=dict)  # by unit: pages that are set aside

    def shift_in(self, sweep: int) -> ShapeShift:
        """The schema change that is accepted silently in a sweep."""
        return self.shift if sweep <= self.shift_until else NO_SHIFT

    def allow_deletions(self, sweep: int) -> bool:
        """Whether all missing objects are believed to be deleted in a sweep."""
        return sweep <= self.deletions_until

    def with_unshown(self, object_id: str, status: int) -> Exemptions:
        """The exemptions after an own URL answered without its object."""
        known = self.unlisted.unshown
        if len(known) >= MOST_UNSHOWN and object_id not in known:
            return self
        return structs.replace(self, unlisted=structs.replace(self.unlisted, unshown={**known, object_id: status}))

    def with_shown(self, ids: Collection[str]) -> Exemptions:
        """The exemptions after it became known of these objects whether they are there."""
        known = self.unlisted.unshown
        if known.keys().isdisjoint(ids):
            return self
        left = {one: status for one, status in known.items() if one not in ids}
        return structs.replace(self, unlisted=structs.replace(self.unlisted, unshown=left))

    def dump(self) -> bytes:
        """The exemptions in their stored form."""
        return orjson.dumps(
            {
                "fields": self.shift.fields,
                "objects": self.shift.objects,
                "shift_until": self.shift_until,
                "nulled": sorted(self.nulled),
                "deletions_until": self.deletions_until,
                "doubts": sorted(self.doubts),
                "clashing": {object_id: [one.seen_at, one.missed] for object_id, one in self.clashes.items()},
                "failing": sorted(self.failing),
                "unread": sorted(self.unread),
                "misleading": self.misleading and [self.misleading.object_id, self.misleading.url],
                "said_unlisted": self.unlisted.is_reported,
                "certain_since": self.certain_since,
                "quarantine": {unit: _as_list(one) for unit, one in self.quarantine.items()},
                "unshown": self.unlisted.unshown,
            }
        )

    @classmethod
    def load(cls, raw: bytes | None) -> Exemptions:
        """The stored exemptions."""
        if raw is None:
            return cls()
        data = orjson.loads(raw)
        fields = {path: Shape(shape) for path, shape in data["fields"].items()}
        misled = data.get("misleading")
        return cls(
            shift=ShapeShift(fields=fields, objects=data["objects"]),
            shift_until=data["shift_until"],
            nulled=frozenset(data.get("nulled", ())),
            deletions_until=data["deletions_until"],
            doubts=frozenset(data.get("doubts", ())),
            clashes={object_id: Clash(*values) for object_id, values in data.get("clashing", {}).items()},
            failing=frozenset(data.get("failing", ())),
            unread=frozenset(data.get("unread", ())),
            misleading=None if misled is None else Misleading(object_id=misled[0], url=misled[1]),
            certain_since=data.get("certain_since"),
            quarantine={unit: _quarantined(*values) for unit, values in data.get("quarantine", {}).items()},
            unlisted=Unlisted(is_reported=data.get("said_unlisted", False), unshown=data.get("unshown", {})),
        )


def _as_list(one: Quarantined) -> list[Any]:
    """A quarantined page as JSON-compatible values, for `_quarantined`."""
    return [structs.astuple(one.shift), one.asked_order, one.seen_order]


def _quarantined(shift: tuple[Mapping[str, str], int, bool], asked_order: int, seen_order: int) -> Quarantined:
    fields, objects, is_torn = shift
    shapes = {path: Shape(shape) for path, shape in fields.items()}
    return Quarantined(ShapeShift(fields=shapes, objects=objects, is_torn=is_torn), asked_order, seen_order)
