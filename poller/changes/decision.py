"""What one poll changes, and what surrounds it when that is decided."""

from __future__ import annotations

from collections.abc import Mapping, Set

import msgspec

from poller.changes.comparison import RequestTimes
from poller.changes.guards import NO_SHIFT, ShapeShift
from state.polls import EndpointState, Snapshot
from state.records import FieldChange, NewEvent


class Undecided(msgspec.Struct, kw_only=True):
    """What is left for a later answer to decide."""

    digests: dict[bytes, bool] = {}  # of objects to be looked at again: ours?
    clashes: list[str] = []  # ids that another unit has shown with other content


class Decision(msgspec.Struct, kw_only=True):
    """What one poll changes. `shift`: the page looks like a change of form, not of objects."""

    snapshots: list[Snapshot] = []
    moved_here: list[str] = []
    moved_from: dict[int, list[str]] = {}
    relisted: list[str] = []  # ids that were deleted, and not by `deleted_when`
    returned: int = 0  # suspects that are shown again, here or elsewhere in the list
    events: list[NewEvent] = []
    changed: int = 0
    created: int = 0  # objects reported as created
    updates: list[tuple[FieldChange, ...]] = []  # of each updated object
    notes: list[str] = []
    undecided: Undecided = msgspec.field(default_factory=Undecided)
    shift: ShapeShift | None = None

    @property
    def moves(self) -> bool:
        """Objects moved between units."""
        return bool(self.moved_from or self.returned)


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What is known around one poll."""

    state: EndpointState
    unit: int | None  # None: the unit shows a selection and vouches for nothing
    asked: RequestTimes
    absent_since: float | None = None  # a new object was certainly not there then
    appended: frozenset[str] = frozenset()  # of the new objects those at the very end of a list in order of ids
    tail_since: float | None = None  # those were certainly not there then
    accepted: ShapeShift = NO_SHIFT  # a schema change that is taken silently
    nulled: Set[str] = frozenset()  # fields that turned null silently
    recent: Mapping[str, int] = {}  # objects changed by other answers: the order of each answer's arrival
    is_chain: bool = False  # the answers of several requests, one after the other
    clashing: Set[str] = frozenset()  # ids that belong to other units, whatever this one shows under them
