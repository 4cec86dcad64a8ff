"""Records of polling: endpoints, units, snapshots, and what one poll writes.

A poll creates hundreds of them. A struct is created and copied ten times faster than a frozen dataclass.

Times are Unix seconds of the wall clock, for events and for people. The order of requests and answers is given by
numbers only: an `..._order` counts those of one endpoint and only rises, whatever the clock does.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from state.members import NO_MEMBERS, Members
from state.notices import Notice
from state.records import NewEvent


class Presence(enum.IntEnum):
    """Whether an object exists, as far as is known."""

    PRESENT = 0
    SUSPECT = 1  # the unit that showed it no longer does; its deletion is to be confirmed
    DELETED = 2


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last known state of one object. It belongs to the unit that showed it last."""

    object_id: str
    version: int
    body: bytes  # JSON of the normalised object without its excluded fields
    unit: int | None  # None: no unit shows it
    seen_at: float  # time of the latest request whose answer showed this value
    presence: Presence = Presence.PRESENT
    seen_sweep: int = 0  # number of the sweep in which it was last written


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """The stored state of one endpoint."""

    id: int
    source: str
    name: str
    shape: str  # identifies the meaning of its objects: a change begins a new baseline
    revision: int = 0  # counts recordings: a recording based on an older revision is refused
    objects: int = 0  # objects that exist, as far as is known
    sweep: int = 1  # number of the sweep under way
    sweep_began: float = 0.0
    sweep_order: int = 0  # requests with a lower order were sent before the current sweep began
    last_sweep: float | None = None  # when the latest complete sweep ended
    last_sweep_began: float | None = None
    steady_began: float | None = None  # objects that no sweep has shown did certainly not exist then
    calm_began: float | None = None  # begin of the latest complete sweep, if no object moved between units during it
    baseline_before: float | None = (
        None  # objects not seen since then are recorded without events; None: no baseline is under way
    )
    tail_asked_at: float | None = None  # when the last page was last requested
    since_at: float | None = None  # when the latest complete updated-since query was made, by the server's clock
    held: bytes | None = None  # JSON: why and when it was held
    accepted: bytes | None = None  # JSON of the exemptions
    uncertain: bytes | None = None  # JSON of the contradictions in the latest complete sweep; None: none


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    """The stored state of one unit: what it showed last, and its failures."""

    id: int
    key: str
    position: bytes  # JSON of the position at which it begins
    asked_at: float | None = None  # time of the latest successful poll; None: never
    answered_at: float | None = None
    asked_order: int = 0
    digest: bytes | None = None  # of the answer's bytes
    shown: int = 0  # how many objects
    validators: bytes | None = None  # JSON of ETag and Last-Modified
    next: bytes | None = None  # JSON of the position after it; None: it was the last
    calls: int = 1
    failures: int = 0
    retry_at: float | None = None
    error: str | None = None
    claims: bytes | None = None  # JSON of what its latest answer says about the whole list


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep that ends; the next one begins at the same time."""

    ended_at: float
    ended_order: int
    began: float | None = None  # the time that it shows, if copies in caches are older than its beginning
    steady: bool  # no object moved between units during it
    confirms: bool = True  # False: it cannot prove that objects are gone (an empty list or page)
    uncertain: bytes | None = None  # JSON of its contradictions
    ends_baseline: bool = True
    unseen: Sequence[str] = ()  # prefixes of ids of objects about which it says nothing


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """An object that went missing and waits for confirmation of its deletion."""

    snapshot: Snapshot
    missing_at: float
    missing_sweep: int  # the sweep under way when it went missing
    checks: int  # how many times its own URL has shown it
    denied_at: float | None = None  # when its own URL said first that it is gone, since it went missing


# What is read before a decision.


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as configured."""

    source: str
    name: str
    shape: str
    units: Sequence[tuple[str, bytes]] = ()  # (key, position) of the units that every list of this kind has


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint with its stored units."""

    state: EndpointState
    units: Sequence[UnitState]
    has_suspects: bool = False  # objects wait for their deletion to be confirmed
    is_reshaped: bool = False  # its objects have another meaning than before, so a new baseline begins
    deletions: Sequence[float] = ()  # how many seconds ago each deletion of the last hour was recorded
    creations: Sequence[float] = ()  # and each creation


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to read for comparing an answer of one unit."""

    unit: int
    digests: Collection[bytes] = ()  # digests of the shown objects: members with other digests may have changed
    ids: Sequence[str] = ()  # ids of objects that may be known, including in other units
    with_members: bool = True  # False: the unit is known to have shown nothing


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the state knows of one unit's objects."""

    members: Members = NO_MEMBERS  # what the unit showed last
    snapshots: Mapping[str, Snapshot] = {}  # by id: snapshots of members that are not among the digests, and of the ids


# What is written after a decision.


class UnitTimes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An unchanged poll of a unit."""

    unit: int
    asked_at: float
    answered_at: float
    asked_order: int


class PollRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The changes of one poll."""

    unit: UnitState | None = None  # the new unit; None: the objects were not seen through a unit
    members: Mapping[bytes, str] = {}  # of the unit: digest of each object's bytes -> its id, in order
    owns_objects: bool = True  # False: the unit shows a selection and owns no objects
    growth: int = 0  # by how many objects the endpoint grows
    snapshots: Sequence[Snapshot] = ()  # new or changed objects
    are_new: bool = False  # the snapshots are of unknown objects that differ only in id and body
    moved_here: Sequence[str] = ()  # unchanged objects that moved here from another unit, or were suspects
    moved_from: Mapping[int, Sequence[str]] = {}  # the other units' ids that moved here
    missing: Sequence[str] = ()  # members that the unit no longer shows, which become suspects
    unsure: Sequence[str] = ()  # ids whose state the answer does not tell: no unit shows them any more
    events: Sequence[NewEvent] = ()

    @property
    def stays_within_unit(self) -> bool:
        """Whether it concerns only objects of this unit, and none of them is missing."""
        return not (self.moved_here or self.moved_from or self.missing or self.unsure)


class Answering(msgspec.Struct, frozen=True, kw_only=True):
    """A suspect whose own URL did not confirm the deletion: it is no longer a suspect, and is requested again some
    sweeps later.
    """

    object_id: str
    checks: int  # how often its own URL has said that it is there
    is_unlisted: bool = False  # no complete sweep since its first answer has shown it
    is_denied: bool = False  # it says for the first time that the object is gone: a suspect all the same


class FailedPoll(msgspec.Struct, frozen=True, kw_only=True):
    """A unit that could not be polled."""

    unit: int
    failures: int  # in a row
    retry_at: float
    error: str


class Marks(msgspec.Struct, kw_only=True):
    """The changes of an endpoint besides its revision and its number of objects. UNSET: unchanged."""

    rebaseline: tuple[float, int] | None = None  # a new baseline begins: its time and order
    begin_sweep: tuple[float, int] | None = None  # the sweep under way begins anew: its time and order
    ended: Sweep | None = None
    tail_asked_at: float | UnsetType | None = UNSET  # when the last page was requested; None: not known any more
    since_at: float | None = None  # when the updated-since query was made, by the server's clock
    held: bytes | UnsetType | None = UNSET
    accepted: bytes | UnsetType | None = UNSET

    @property
    def is_set(self) -> bool:
        """Whether anything changes."""
        return self != NO_MARKS


NO_MARKS = Marks()


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is written of one endpoint in one transaction."""

    endpoint: int
    base: int  # the endpoint's revision on which the decision is based
    sweep: int  # the sweep under way
    at: float  # since when what is dropped has been missing, and what is denied was denied
    unchanged: Sequence[UnitTimes] = ()  # written first, because the rest builds on them
    polls: Sequence[PollRecord] = ()
    failures: Sequence[FailedPoll] = ()
    dropped: Sequence[str] = ()  # keys of removed units, whose objects become suspects
    new_units: Sequence[tuple[str, bytes]] = ()  # (key, position)
    answering: Sequence[Answering] = ()
    marks: Marks = msgspec.field(default_factory=Marks)
    notices: Sequence[Notice] = ()

    @property
    def is_silent(self) -> bool:
        """Whether nobody is informed of it: polls without events that complete no sweep."""
        marks = self.marks
        decided = marks.rebaseline or marks.held is not UNSET or marks.accepted is not UNSET
        told = self.notices or self.failures or self.answering or marks.ended or marks.begin_sweep or decided
        return not (told or any(poll.events for poll in self.polls))

    @property
    def growth(self) -> int:
        """By how many objects the endpoint grows."""
        return sum(poll.growth for poll in self.polls)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The result of writing a recording."""

    events: Sequence[Sequence[int]] = ()  # numbers of events in the log, for each poll
    notices: Sequence[int] = ()  # numbers of notices in the log
    units: Sequence[UnitState] = ()  # the new ones
    state: EndpointState | None = None  # the new state; None: only the revision and the number of objects changed
    is_silent: bool = False  # nobody is informed of it, so it may be committed together with the next step
