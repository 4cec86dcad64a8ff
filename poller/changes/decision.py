"""Values: the decision on one poll, and its context."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

import msgspec

from poller.changes.comparison import RequestTimes
from poller.changes.guards import NO_SHIFT, ShapeShift
from state.polls import EndpointState, Snapshot
from state.records import FieldChange, NewEvent


class Undecided(msgspec.Struct, kw_only=True):
    """What a later answer will decide."""

    digests: dict[bytes, bool] = {}  # digests of objects to be compared again; True: they belong to this unit
    clashes: list[str] = []  # ids that another unit has shown with other content
    moved: list[str] = []  # ids that another unit showed with other content, and may show no longer


class Decision(msgspec.Struct, kw_only=True):
    """What one poll changes. `shift`: the page looks like a change of form rather than of objects."""

    snapshots: list[Snapshot] = []
    moved_here: list[str] = []
    moved_from: dict[int, list[str]] = {}
    relisted: list[str] = []  # ids that were deleted, but not by `deleted_when`
    returned: int = 0  # suspects that were shown again, here or elsewhere in the list
    events: list[NewEvent] = []
    changed: int = 0
    created: int = 0  # objects reported as created
    updates: list[tuple[FieldChange, ...]] = []  # changed fields of each updated object
    notes: list[str] = []
    undecided: Undecided = msgspec.field(default_factory=Undecided)
    shift: ShapeShift | None = None

    @property
    def moves(self) -> bool:
        """Whether objects moved between units."""
        return bool(self.moved_from or self.returned)


class LatestChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Which objects changed lately. Times are Unix seconds."""

    since: float = 0.0  # earlier changes are forgotten
    at: Mapping[str, float] = {}  # when the answers arrived that showed the others


NO_CHANGES: Final = LatestChanges()


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What is known around one poll."""

    state: EndpointState
    unit: int | None  # None: the unit shows a selection and owns no objects
    asked: RequestTimes
    absent_since: float | None = None  # time at which a new object certainly did not exist yet
    appended: frozenset[str] = frozenset()  # new objects at the very end of a list in order of ids
    tail_since: float | None = None  # time at which those certainly did not exist yet
    accepted: ShapeShift = NO_SHIFT  # a schema change that is recorded without events
    nulled: Set[str] = frozenset()  # fields whose change to null was recorded without events
    changed: LatestChanges = NO_CHANGES  # given for an answer from a cache
    recent: Mapping[str, int] = {}  # objects changed by other answers, with the order in which those arrived
    is_chain: bool = False  # the answers of several requests, one after the other
    clashing: Mapping[str, bool] = {}  # ids that belong to other units; False: those may have lost the object by now
