"""The records of polling: endpoints, units, snapshots, and what one poll writes.

A poll makes them by the hundred: a struct is made ten times faster than a frozen dataclass, and so is its copy.

Times are Unix seconds of the wall clock, and are there for events and for people. What came before what is told by
numbers alone: an `..._order` counts the requests and answers of one endpoint and only rises, whatever the clock does.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence, Set

import msgspec
from msgspec import UNSET, UnsetType

from state.notices import Notice
from state.records import NewEvent


class Presence(enum.IntEnum):
    """Whether an object is there, as far as is known."""

    PRESENT = 0
    SUSPECT = 1  # the unit that showed it no longer does: to be confirmed
    DELETED = 2


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last known state of one object. It belongs to the one unit that showed it last."""

    object_id: str
    version: int
    body: bytes  # JSON of the normalised object without its excluded fields
    unit: int | None  # None: no unit vouches for it
    seen_at: float  # the latest request that is known to have seen this value
    presence: Presence = Presence.PRESENT
    seen_sweep: int = 0  # number of the sweep under way when it was written last


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one endpoint."""

    id: int
    source: str
    name: str
    shape: str  # what its objects mean: a change of it is a new baseline
    revision: int = 0  # counts what was recorded: a recording based on another one is refused
    objects: int = 0  # that are there, as far as is known
    sweep: int = 1  # number of the sweep under way
    sweep_began: float = 0.0
    sweep_order: int = 0  # requests with a lower order left before the sweep under way began
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
    uncertain: bytes | None = None  # JSON of what contradicts itself in the latest complete sweep; None: nothing


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one unit: what it showed last, and how asking it goes."""

    id: int
    key: str
    position: bytes  # JSON of where it begins
    asked_at: float | None = None  # of the latest good poll; None: never
    answered_at: float | None = None
    asked_order: int = 0
    digest: bytes | None = None  # of the answer's bytes
    shown: int = 0  # how many objects
    validators: bytes | None = None  # JSON of ETag and Last-Modified
    next: bytes | None = None  # JSON of the position behind it; None: it was the last
    calls: int = 1
    failures: int = 0
    retry_at: float | None = None
    error: str | None = None
    claims: bytes | None = None  # JSON of what its latest answer says about the whole list


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep that ends, and with it the next one begins."""

    ended_at: float
    ended_order: int
    steady: bool  # nothing moved between units meanwhile
    confirms: bool = True  # False: too odd to prove that anything is gone (an empty list or page)
    uncertain: bytes | None = None  # JSON of what contradicts itself
    ends_baseline: bool = True
    unseen: Sequence[str] = ()  # how the ids begin of objects about which it says nothing


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """An object that went missing, waiting for its deletion to be confirmed."""

    snapshot: Snapshot
    missing_at: float
    missing_sweep: int  # the sweep under way when it went missing
    checks: int  # times its own URL said that it is still there
    denied_at: float | None = None  # when its own URL said first that it is gone, since it went missing


# What is read before a decision.


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as the configuration names it."""

    source: str
    name: str
    shape: str
    units: Sequence[tuple[str, bytes]] = ()  # (key, position) of those that every list of this kind has


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint with its units as they are kept."""

    state: EndpointState
    units: Sequence[UnitState]
    has_suspects: bool = False  # objects wait for their deletion to be confirmed
    is_reshaped: bool = False  # its objects mean something else than before: a new baseline begins
    deletions: Sequence[float] = ()  # how many seconds ago each deletion of the last hour was recorded
    creations: Sequence[float] = ()  # and each creation


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer of one unit is compared with."""

    unit: int
    digests: Set[bytes] = frozenset()  # of the objects it shows: members with another one may have changed
    ids: Sequence[str] = ()  # objects that may be known, also to other units
    with_members: bool = True  # False: the unit is known to have shown nothing


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the state knows of one unit's objects."""

    members: Mapping[bytes, str] = {}  # what the unit showed last: digest of each object's bytes -> its id, in order
    snapshots: Mapping[str, Snapshot] = {}  # of members that are not among the digests, and of the ids, by id


# What is written after it.


class UnitTimes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A poll of a unit that showed just what it showed before."""

    unit: int
    asked_at: float
    answered_at: float
    asked_order: int


class PollRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll changes."""

    unit: UnitState | None = None  # as it is now; None: the objects were not seen through a unit
    members: Mapping[bytes, str] = {}  # of the unit: digest of each object's bytes -> its id, in order
    owns_objects: bool = True  # False: the unit shows a selection and vouches for nothing
    growth: int = 0  # how many more objects are there than before
    snapshots: Sequence[Snapshot] = ()  # new or changed objects
    are_new: bool = False  # the snapshots are of objects that were never known, alike but for id and body
    moved_here: Sequence[str] = ()  # unchanged objects that moved here from another unit, or were suspects
    moved_from: Mapping[int, Sequence[str]] = {}  # the other units' ids that moved here
    missing: Sequence[str] = ()  # members that the unit no longer shows: suspects from now on
    unsure: Sequence[str] = ()  # the answer was too odd to tell how these are: no unit vouches for them any more
    events: Sequence[NewEvent] = ()

    @property
    def stays_within_unit(self) -> bool:
        """It concerns objects of this unit alone, and none of them is missing."""
        return not (self.moved_here or self.moved_from or self.missing or self.unsure)


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """What the own URL of a suspect says. Unless that is that it is gone, it is no suspect any more, and is asked again
    some sweeps later.
    """

    object_id: str
    checks: int  # how often its own URL has said that it is there
    is_unlisted: bool = False  # it answers, and no complete sweep since its first answer has shown it
    is_denied: bool = False  # it says for the first time that the object is gone: a suspect all the same


class FailedPoll(msgspec.Struct, frozen=True, kw_only=True):
    """A unit that could not be polled."""

    unit: int
    failures: int  # in a row
    retry_at: float
    error: str


class Marks(msgspec.Struct, kw_only=True):
    """What a recording changes of its endpoint beside the revision and the number of objects. UNSET: left as it is."""

    rebaseline: tuple[float, int] | None = None  # a new baseline begins: its time and order
    begin_sweep: tuple[float, int] | None = None  # the sweep under way begins anew: its time and order
    ended: Sweep | None = None
    tail_asked_at: float | None = None  # the page that is the last one was asked then
    since_at: float | None = None  # the updated-since query was asked then
    held: bytes | UnsetType | None = UNSET
    accepted: bytes | UnsetType | None = UNSET

    @property
    def is_set(self) -> bool:
        """Whether anything is changed."""
        return self != NO_MARKS


NO_MARKS = Marks()


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """All that is written of one endpoint at once, in one transaction."""

    endpoint: int
    base: int  # the endpoint's revision that this was decided on
    sweep: int  # the sweep under way
    at: float  # since when what is dropped has been missing, and what is denied was denied
    unchanged: Sequence[UnitTimes] = ()  # written first: what follows is counted from them
    polls: Sequence[PollRecord] = ()
    failures: Sequence[FailedPoll] = ()
    dropped: Sequence[str] = ()  # keys of units that are no more; their objects are suspects
    new_units: Sequence[tuple[str, bytes]] = ()  # (key, position)
    answering: Sequence[Answering] = ()
    marks: Marks = msgspec.field(default_factory=Marks)
    notices: Sequence[Notice] = ()

    @property
    def is_silent(self) -> bool:
        """Whether nobody is told of it: polls that have changed something silently, and complete no sweep."""
        marks = self.marks
        decided = marks.rebaseline or marks.held is not UNSET or marks.accepted is not UNSET
        told = self.notices or self.failures or self.answering or marks.ended or marks.begin_sweep or decided
        return not (told or any(poll.events for poll in self.polls))

    @property
    def growth(self) -> int:
        """How many more objects are there than before."""
        return sum(poll.growth for poll in self.polls)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What writing has made."""

    events: Sequence[Sequence[int]] = ()  # their numbers in the log, of each poll
    notices: Sequence[int] = ()  # and of the notices
    units: Sequence[UnitState] = ()  # the new ones
    state: EndpointState | None = None  # as it is now; None: only its revision and its number of objects changed
    is_silent: bool = False  # nobody is told of it: it may be committed with what comes next
