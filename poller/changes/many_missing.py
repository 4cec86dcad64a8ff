"""Recount: so many objects are missing that every unit is polled and counted again before any deletion is believed.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import orjson

from poller.changes.guards import AT_LEAST_DELETED
from state.polls import Presence, Snapshot


class Recount(msgspec.Struct):
    """A count of the known objects that each unit shows. The endpoint is held if a whole round confirms the loss."""

    began: float
    seen: dict[str, int] = msgspec.field(default_factory=dict)  # known objects shown, by unit
    last: int | None = None  # position of the page that says it is the last
    deleted: int = 0  # objects whose deletion was reported before the rest was held
    judged_order: int = 0  # order of the answer that completed the latest round
    by_hand: bool = False  # held on command: no answer ends it

    @classmethod
    def load(cls, held: bytes | None, began: float) -> Recount | None:
        """The recount of a stored hold; None if the endpoint is not held."""
        if held is None:
            return None
        detail = orjson.loads(held)
        return cls(began, deleted=detail.get("deleted", 0), by_hand=detail.get("by_hand", False))

    def count(self, key: str, snapshots: Iterable[Snapshot], *, place: int, is_last: bool) -> None:
        """Count the known objects that a unit shows. `is_last`: it is the page that says that it is the last."""
        self.seen[key] = sum(1 for snapshot in snapshots if self._counts(snapshot))
        if is_last:
            self.last = place
        elif self.last is not None and place >= self.last:
            self.last = None

    def is_counted(self, key: str, *, fails: bool, place: int) -> bool:
        """Whether a unit was counted, or comes after the end of the list and fails for that reason."""
        return key in self.seen or (fails and self.last is not None and place > self.last)

    def finish_round(self, objects: int, order: int) -> tuple[int, int]:
        """Finish a round in which every unit was counted. Returns how many objects are gone, and of how many."""
        known = objects + self.deleted
        gone = known - sum(self.seen.values())
        self.seen.clear()
        self.judged_order = order
        return gone, known

    def _counts(self, snapshot: Snapshot) -> bool:
        """Whether a shown object was known before, including those that were reported as deleted."""
        if snapshot.presence is not Presence.DELETED:
            return True
        return bool(self.deleted) and snapshot.unit is None


def is_most(gone: int, objects: int) -> bool:
    """Whether so many of the known objects are gone that no deletion is believed before a recount."""
    return gone >= AT_LEAST_DELETED and gone * 2 > objects
