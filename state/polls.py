"""The records of polling: endpoints, units, snapshots, and what one poll writes.

A poll makes them by the hundred: a struct is made ten times faster than a frozen dataclass, and so is its copy.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

from state.records import NewEvent


class Presence(enum.IntEnum):
    """Whether an object is there, as far as is known."""

    PRESENT = 0
    SUSPECT = 1  # the unit that showed it no longer does: to be confirmed
    DELETED = 2


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The last known state of one object. It belongs to the one unit that showed it last."""

    object_id: str
    version: int
    body: bytes  # JSON of the normalised object without its excluded fields
    unit: int | None  # None: no unit vouches for it
    seen_at: float  # the latest request that is known to have seen this value
    presence: Presence = Presence.PRESENT


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one endpoint."""

    id: int
    source: str
    name: str
    shape: str  # what its objects mean: a change of it is a new baseline
    objects: int = 0  # that are there, as far as is known
    sweep: int = 1  # number of the sweep under way
    sweep_began: float = 0.0
    last_sweep: float | None = None  # when the latest complete sweep ended
    last_sweep_began: float | None = None
    steady_began: float | None = None  # what no sweep has shown by now was certainly not there then
    calm_began: float | None = None  # begin of the latest complete sweep, if nothing moved between units meanwhile
    baseline_before: float | None = (
        None  # objects not seen since then are recorded silently; None: no baseline under way
    )
    tail_asked_at: float | None = None  # when the page that was the last one was last asked for
    since_at: float | None = None  # the latest complete updated-since query was asked then
    held: bytes | None = None  # JSON of what was seen when it was held
    accepted: bytes | None = None  # JSON of schema changes taken silently, and until which sweep


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one unit: what it showed last, and how asking it goes."""

    id: int
    key: str
    position: bytes  # JSON of where it begins
    asked_at: float | None = None  # of the latest good poll; None: never
    answered_at: float | None = None
    digest: bytes | None = None  # of the answer's bytes
    shown: int = 0  # how many objects
    validators: bytes | None = None  # JSON of ETag and Last-Modified
    next: bytes | None = None  # JSON of the position behind it; None: it was the last
    calls: int = 1
    failures: int = 0
    retry_at: float | None = None
    error: str | None = None


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep that this poll completes."""

    ended_at: float
    steady: bool  # nothing moved between units meanwhile
    confirms: bool = True  # False: too odd to prove that anything is gone (an empty list or page)


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """All that one poll writes, in one transaction."""

    endpoint: int
    unit: UnitState | None = None  # as it is now; None: nothing of a unit is written
    members: Mapping[bytes, str] = {}  # of the unit: digest of each object's bytes -> its id, in order
    vouches: bool = True  # False: the unit shows a selection; it owns no objects
    growth: int = 0  # how many more objects are there than before
    snapshots: Sequence[Snapshot] = ()  # new or changed objects; their unit is this unit where it vouches
    claimed: Sequence[str] = ()  # unchanged objects that moved here from another unit, or were suspects
    moved_from: Mapping[int, Sequence[str]] = {}  # the other units' ids that moved here
    missing: Sequence[str] = ()  # members that the unit no longer shows: suspects from now on
    unsure: Sequence[str] = ()  # the answer was too odd to tell how these are: no unit vouches for them any more
    dropped: Sequence[str] = ()  # keys of units that are no more; their objects are suspects
    events: Sequence[NewEvent] = ()
    sweep: Sweep | None = None
    tail_asked_at: float | None = None  # the unit is the last page, and was asked then
    since_at: float | None = None
    new_units: Sequence[tuple[str, bytes]] = ()  # (key, position) of units that appear behind this one

    @property
    def changes_marks(self) -> bool:
        """Something is written of when the endpoint was seen."""
        return (self.sweep, self.tail_asked_at, self.since_at) != (None, None, None)

    @property
    def changes_objects(self) -> bool:
        """Something is written of an object."""
        return bool(self.snapshots or self.claimed or self.missing or self.unsure or self.dropped)


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """An object that went missing, waiting for its deletion to be confirmed."""

    snapshot: Snapshot
    missing_at: float
    missing_sweep: int  # the sweep under way when it went missing
    checks: int  # times its own URL said that it is still there
