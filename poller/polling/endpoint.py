"""The life of one endpoint while it is watched: its units, its sweeps, and what it holds back."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
from msgspec import structs

from poller.changes.decide import NO_SHIFT
from poller.changes.guards import NoiseDetector, Shape, ShapeShift
from poller.changes.page import Watch
from poller.sources.protocol import Position
from state.polls import EndpointState, Sweep, UnitState

SINCE = "since"
NEWEST = "newest"
CHILD = "parent="
MOST_RECENT = 10_000


@dataclass(slots=True)
class Doubt:
    """Too much is missing at once: what every unit shows is counted before any of it is believed.

    `seen` counts the known objects that each unit shows since then. Held once a whole round has confirmed it.
    """

    began: float
    seen: dict[str, int] = field(default_factory=dict)
    last: int | None = None  # place of the page that says it is the last
    deleted: int = 0  # objects whose deletion was told before the rest was held
    judged_at: float = 0.0  # when what every unit showed was counted last
    by_hand: bool = False  # held on command: nothing that is shown ends it

    @classmethod
    def load(cls, held: bytes | None, began: float) -> Doubt | None:
        """What was kept of a hold."""
        if held is None:
            return None
        detail = orjson.loads(held)
        return cls(began, deleted=detail.get("deleted", 0), by_hand=detail.get("by_hand", False))


@dataclass(slots=True)
class Aside:
    """A page kept aside: it looks like a change of form."""

    shift: ShapeShift
    asked_at: float  # when it first looked so
    seen_at: float  # when it last did


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What an operator or other pages have decided, until which sweep."""

    shift: ShapeShift = NO_SHIFT
    shift_until: int = 0
    nulled: frozenset[str] = frozenset()  # fields that turned null silently: they may come back as silently
    deletions_until: int = 0

    def dump(self) -> bytes:
        """As it is kept."""
        return orjson.dumps(
            {
                "fields": self.shift.fields,
                "objects": self.shift.objects,
                "shift_until": self.shift_until,
                "nulled": sorted(self.nulled),
                "deletions_until": self.deletions_until,
            }
        )

    @classmethod
    def load(cls, raw: bytes | None) -> Trust:
        """What was kept."""
        if raw is None:
            return cls()
        data = orjson.loads(raw)
        fields = {path: Shape(shape) for path, shape in data["fields"].items()}
        return cls(
            shift=ShapeShift(fields=fields, objects=data["objects"]),
            shift_until=data["shift_until"],
            nulled=frozenset(data.get("nulled", ())),
            deletions_until=data["deletions_until"],
        )


def key_of(at: Position) -> str:
    """The key of the unit that begins at this position."""
    if at.since is not None:
        return SINCE
    if at.page is not None:
        return f"page={at.page}"
    if at.offset is not None:
        return f"offset={at.offset}"
    return "list"


def child_key(parent_id: str) -> str:
    """The key of the unit that is one parent's list."""
    return f"{CHILD}{parent_id}"


def dump_position(at: Position) -> bytes:
    """A position as it is kept (a parent is known by the unit's key)."""
    return msgspec.json.encode({k: v for k in ("page", "offset", "cursor") if (v := getattr(at, k)) is not None})


def load_position(raw: bytes) -> Position:
    """A position that was kept."""
    return Position(**orjson.loads(raw))


def place_of(at: Position) -> int:
    """The order of pages in their list."""
    return at.page if at.page is not None else at.offset or 0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll means to the sweep under way."""

    key: str
    asked_at: float
    answered_at: float
    added: Sequence[str] = ()  # keys of units that appear behind it
    dropped: Sequence[str] = ()  # keys of units that are no more
    steady: bool = True  # nothing moved to or from other units
    confirms: bool = True  # not too odd to prove that anything is gone
    nonempty: bool = True  # it showed objects


class Watching:
    """One endpoint: what it means, what is known of it, and how its current sweep goes."""

    def __init__(self, watch: Watch, state: EndpointState, units: Iterable[UnitState]) -> None:
        self.watch = watch
        self.state = state
        self.units: dict[str, UnitState] = {unit.key: unit for unit in units}
        self.keys: dict[int, str] = {unit.id: unit.key for unit in self.units.values()}
        self.trust = Trust.load(state.accepted)
        self.doubt = Doubt.load(state.held, state.sweep_began)
        self.aside: dict[str, Aside] = {}
        self.noise = NoiseDetector()
        self.deletions: deque[float] = deque(maxlen=100_000)
        self.recent: dict[str, float] = {}  # objects changed since an answer that is still to come was asked for
        self._asked: dict[str, float] = {}  # when what is under way was asked for
        self.notes: dict[str, str] = {}  # by unit: what its latest answer had that was set aside
        self.begin_sweep()
        if any(unit.asked_at is not None and unit.asked_at >= state.sweep_began for unit in self.units.values()):
            # What moved, or was empty, in this sweep before the restart is not known any more.
            self.steady = self.confirms = False

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.watch.endpoint.name

    @property
    def label(self) -> str:
        """Source and endpoint, as messages name them."""
        return f"{self.state.source}/{self.name}"

    @property
    def is_child(self) -> bool:
        """A list per parent object."""
        return self.watch.endpoint.parent is not None

    @property
    def in_baseline(self) -> bool:
        """Its first complete sweep is still under way."""
        return self.state.baseline_before is not None

    @property
    def shift(self) -> ShapeShift:
        """The schema change that is taken silently now."""
        return self.trust.shift if self.state.sweep <= self.trust.shift_until else NO_SHIFT

    @property
    def trusts_deletions(self) -> bool:
        """However much is missing, it is believed now."""
        return self.state.sweep <= self.trust.deletions_until

    def begin_sweep(self) -> None:
        """Every unit is to be polled once more."""
        began = self.state.sweep_began
        self.pending = {key for key, unit in self.units.items() if self.sweeps(key) and (unit.asked_at or -1.0) < began}
        self.steady = True  # nothing moved between units
        self.confirms = True  # nothing was too odd to prove that anything is gone
        self.nonempty = False

    def renew(self, state: EndpointState) -> None:
        """Forget all but what the endpoint means: a new baseline begins."""
        self.state = state
        self.units.clear()
        self.keys.clear()
        self.aside.clear()
        self.deletions.clear()
        self.doubt = None
        self.trust = Trust()
        self.begin_sweep()

    @property
    def only_unit(self) -> UnitState | None:
        """The unit that is the whole list, where one is."""
        if len(self.units) > 3:  # a list, and at most the two kinds of selections
            return None
        swept = [unit for key, unit in self.units.items() if self.sweeps(key)]
        return swept[0] if len(swept) == 1 else None

    # The store's thread changes these while the event loop looks: it looks at copies, which are made in one go.

    def outstanding(self) -> tuple[str, ...]:
        """Keys of the units that the sweep still waits for."""
        return tuple(self.pending)

    def failing(self) -> list[UnitState]:
        """Units whose latest poll failed."""
        return [unit for unit in list(self.units.values()) if unit.failures]

    def waits_for_others(self, key: str) -> bool:
        """Whether asking this unit again tells nothing before others were asked: it is counted, or aside."""
        if self.doubt is not None and key in self.doubt.seen:
            return True
        aside = self.aside.get(key)
        return aside is not None and bool(self._not_asked_since(aside.seen_at))

    def awaited(self) -> list[str]:
        """Keys of the units that pages aside wait for."""
        since = max((aside.seen_at for aside in list(self.aside.values())), default=None)
        return [] if since is None else self._not_asked_since(since)

    def _not_asked_since(self, at: float) -> list[str]:
        """Keys of units that are not aside."""
        return [
            key
            for key, unit in list(self.units.items())
            if self.sweeps(key) and key not in self.aside and (unit.asked_at or 0.0) <= at
        ]

    @staticmethod
    def sweeps(key: str) -> bool:
        """Whether the unit is a part of sweeps; the others show a selection."""
        return key not in (SINCE, NEWEST)

    def put(self, unit: UnitState) -> None:
        """Know a unit, new or as it is after a poll."""
        if unit.key not in self.units and self.sweeps(unit.key):
            self.pending.add(unit.key)
        self.units[unit.key] = unit
        self.keys[unit.id] = unit.key

    def forget(self, key: str) -> None:
        """A unit is no more."""
        unit = self.units.pop(key, None)
        if unit is not None:
            self.keys.pop(unit.id, None)
        self.pending.discard(key)
        self.aside.pop(key, None)
        self.notes.pop(key, None)
        self.noise.forget(key)

    def robbed(self, unit_ids: Iterable[int]) -> None:
        """Objects of these units were shown by another one: what they show next is compared whole."""
        for unit_id in unit_ids:
            if (key := self.keys.get(unit_id)) in self.units:
                self.units[key] = structs.replace(self.units[key], digest=None, validators=None)

    def beyond(self, key: str) -> list[str]:
        """Units of pages behind this one, which says that it is the last."""
        place = place_of(load_position(self.units[key].position))
        return [
            other
            for other, unit in self.units.items()
            if self.sweeps(other) and place_of(load_position(unit.position)) > place
        ]

    def sweep_ends(self, seen: Seen, *, waits: bool) -> Sweep | None:
        """The sweep that this poll completes, if it does. `waits`: more units are to come, of parents not known yet."""
        if waits or not self.sweeps(seen.key) or seen.added or len(self.pending) > len(self._done(seen)):
            return None
        confirms = self.confirms and seen.confirms and (self.nonempty or seen.nonempty)
        return Sweep(ended_at=seen.answered_at, steady=self.steady and seen.steady, confirms=confirms)

    def see(self, seen: Seen) -> None:
        """Take a poll into the sweep under way."""
        self.pending -= self._done(seen)
        if self.sweeps(seen.key):
            self.steady &= seen.steady
            self.confirms &= seen.confirms
            self.nonempty |= seen.nonempty

    def _done(self, seen: Seen) -> set[str]:
        """What the sweep no longer waits for."""
        done = {seen.key, *seen.dropped} if seen.asked_at >= self.state.sweep_began else set(seen.dropped)
        return done & self.pending

    @contextlib.contextmanager
    def asking(self, what: str, at: float) -> Iterator[None]:
        """An answer is under way, from when it was asked for until it is settled."""
        self._asked[what] = at
        try:
            yield
        finally:
            self._asked.pop(what, None)

    def remember(self, ids: Iterable[str], answered_at: float) -> None:
        """These objects were changed by an answer that arrived then: others that are under way may be older."""
        others = len(self._asked) > 1
        if others:
            self.recent.update(dict.fromkeys(ids, answered_at))
        if self.recent and (not others or len(self.recent) > MOST_RECENT):
            oldest = min(list(self._asked.values()), default=answered_at)
            self.recent = {i: at for i, at in self.recent.items() if at > oldest}

    def status(self) -> dict[str, Any]:
        """What an operator must see of it."""
        shown: dict[str, Any] = {}
        if self.doubt is not None and self.state.held is None:
            shown["in_doubt_since"] = self.doubt.began
        if self.aside:
            shown["aside"] = {key: dict(aside.shift.fields) for key, aside in self.aside.items()}
        if self.notes:
            shown["notes"] = dict(list(self.notes.items())[:10])
        if self.noise.candidates:
            shown["ignore_candidates"] = sorted(self.noise.candidates)
        return shown


def merged(notes: Mapping[str, str]) -> str:
    """Notes of several units as one text."""
    return "; ".join(dict.fromkeys(notes.values()))
