"""Pure: what an operator or other pages have decided about an endpoint, and until which sweep it holds."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from poller.changes.guards import NO_SHIFT, Shape, ShapeShift


@dataclass(frozen=True, slots=True, kw_only=True)
class Misleading:
    """An own URL that said 404 or 410 of an object that its list shows."""

    object_id: str
    url: str

    @property
    def text(self) -> str:
        """What an operator is told."""
        return f"{self.object_id} is in the list, but {self.url} says that it is gone: is `item_path` right?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemptions:
    """What the guards of one endpoint let pass."""

    shift: ShapeShift = NO_SHIFT
    shift_until: int = 0
    nulled: frozenset[str] = frozenset()  # fields that turned null silently: they may come back as silently
    deletions_until: int = 0
    doubts: frozenset[str] = frozenset()  # patterns of what does not make a sweep uncertain
    failing: frozenset[str] = frozenset()  # keys of the lists without which the latest sweep ended
    unread: frozenset[str] = frozenset()  # of those never seen when the baseline ended: what they show first is silent
    misleading: Misleading | None = None  # while there is one, no own URL confirms a deletion
    said_unlisted: bool = False  # that objects left the list and answer under their own URL has been reported
    clashes: frozenset[str] = frozenset()  # ids under which two pages show different objects: never reported as edits

    def shift_in(self, sweep: int) -> ShapeShift:
        """The schema change that is taken silently in a sweep."""
        return self.shift if sweep <= self.shift_until else NO_SHIFT

    def allow_deletions(self, sweep: int) -> bool:
        """Whether whatever is missing is believed in a sweep."""
        return sweep <= self.deletions_until

    def dump(self) -> bytes:
        """The exemptions as they are kept."""
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
        """The exemptions that were kept."""
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
