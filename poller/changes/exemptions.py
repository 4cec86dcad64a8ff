"""Decisions of operators and other pages about an endpoint, and until which sweep they hold. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from poller.changes.guards import NO_SHIFT, Shape, ShapeShift


@dataclass(frozen=True, slots=True, kw_only=True)
class Misleading:
    """An own URL that answered 404 or 410 for an object that its list shows."""

    object_id: str
    url: str

    @property
    def text(self) -> str:
        """The message for an operator."""
        return f"{self.object_id} is in the list, but {self.url} says that it is gone: is `item_path` right?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemptions:
    """What the guards of one endpoint accept."""

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
    said_unlisted: bool = False  # it was reported that objects left the list and answer under their own URL
    clashes: frozenset[str] = frozenset()  # ids that name different objects on two pages: never reported as edits

    def shift_in(self, sweep: int) -> ShapeShift:
        """The schema change that is accepted silently in a sweep."""
        return self.shift if sweep <= self.shift_until else NO_SHIFT

    def allow_deletions(self, sweep: int) -> bool:
        """Whether all missing objects are believed to be deleted in a sweep."""
        return sweep <= self.deletions_until

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
                "clashes": sorted(self.clashes),
                "failing": sorted(self.failing),
                "unread": sorted(self.unread),
                "misleading": self.misleading and [self.misleading.object_id, self.misleading.url],
                "said_unlisted": self.said_unlisted,
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
            clashes=frozenset(data.get("clashes", ())),
            failing=frozenset(data.get("failing", ())),
            unread=frozenset(data.get("unread", ())),
            misleading=None if misled is None else Misleading(object_id=misled[0], url=misled[1]),
            said_unlisted=data.get("said_unlisted", False),
        )
