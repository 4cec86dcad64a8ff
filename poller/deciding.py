"""Pure: what a poll showed and what is known -> what is to be recorded.

Compared from cheap to dear, and stopped early: the bytes of the answer (in `polling`), the bytes of each object
(`read`), its canonical value, its fields (`decide`). An object whose bytes the unit has shown before is never parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from typing import Any, Literal

import msgspec

from poller.diff import Rules, diff, dump, fingerprint, parse, stored
from poller.events import change_event
from poller.filters import FilterError, ObjectRule
from poller.guards import ShapeShift, shape_shift, unexplained
from poller.sources import Endpoint, PageError
from state.polls import EndpointState, Presence, Snapshot, Suspect
from state.records import Change, FieldChange, Kind, NewEvent

CONTENT = "content"
NO_SHIFT = ShapeShift(fields={}, objects=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What an endpoint's objects mean, compiled once from plugin and configuration."""

    source: str
    namespace: str
    endpoint: Endpoint
    rules: Rules
    identify: Callable[[Mapping[str, Any]], str | None]
    soft: ObjectRule | None = None  # true: the object is as good as deleted
    deletes: bool = True
    baseline: Literal["silent", "emit"] = "silent"
    transform: Callable[[NewEvent], NewEvent | None] = lambda event: event


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An object that this unit has not shown in just these bytes before."""

    object_id: str
    digest: bytes
    object: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an answer shows, held against what its unit showed before."""

    members: dict[bytes, str]  # digest of bytes -> id, of all objects shown, in order
    fresh: tuple[Shown, ...]
    missing: tuple[str, ...]  # shown before, not now
    notes: tuple[str, ...] = ()  # what was set aside, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """When a poll's first request left, and when its last answer had arrived."""

    at: float
    answered_at: float


@dataclass(slots=True, kw_only=True)
class Decision:
    """What one poll changes. `shift`: the page looks like a change of form, not of objects."""

    snapshots: list[Snapshot] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    moved_from: dict[int, list[str]] = field(default_factory=dict)
    events: list[NewEvent] = field(default_factory=list)
    changed: int = 0
    updates: list[tuple[FieldChange, ...]] = field(default_factory=list)  # of each updated object
    notes: list[str] = field(default_factory=list)
    undecided: list[bytes] = field(default_factory=list)  # digests of objects to be looked at again
    shift: ShapeShift | None = None

    @property
    def moves(self) -> bool:
        """Objects moved between units."""
        return bool(self.moved_from)


def digest_of(raw: bytes | msgspec.Raw) -> bytes:
    """16 bytes of an answer or an object as it came (SHA-256, which processors compute faster than others)."""
    return sha256(raw).digest()[:16]


def read(watch: Watch, objects: Iterable[Mapping[str, Any] | msgspec.Raw], before: Mapping[bytes, str]) -> Reading:
    """Tell what is new in an answer. Raises PageError when none of its objects can be told apart.

    Objects without an id, and different ones under one id, are set aside with a note; nothing is concluded
    about what such an answer does not show.
    """
    members: dict[bytes, str] = {}
    fresh: dict[str, Shown] = {}
    nameless = 0
    doubles: set[str] = set()
    for item in objects:
        digest = digest_of(item if isinstance(item, msgspec.Raw) else dump(item))
        if digest in members:
            if watch.endpoint.id != CONTENT:
                continue
            digest = _next_equal(digest, members)  # the set is the identity: the second of two equals is another one
        if (known := before.get(digest)) is not None:
            members[digest] = known
            continue
        shown = _shown(watch, item, digest)
        if shown is None:
            nameless += 1
        elif shown.object_id in fresh and watch.endpoint.id == CONTENT:
            nth = next(n for n in count(2) if f"{shown.object_id}#{n}" not in fresh)
            fresh[f"{shown.object_id}#{nth}"] = again = replace(shown, object_id=f"{shown.object_id}#{nth}")
            members[digest] = again.object_id
        elif shown.object_id in fresh:
            doubles.add(shown.object_id)
        else:
            fresh[shown.object_id] = shown
            members[digest] = shown.object_id
    if nameless and not members:
        raise PageError(
            f"none of the {nameless} objects has an id ({_id_text(watch)})",
            hint='set `id` to the field that names an object, or to "content"',
        )
    return _reading(watch, members, fresh, before, nameless, doubles)


def _reading(
    watch: Watch,
    members: dict[bytes, str],
    fresh: dict[str, Shown],
    before: Mapping[bytes, str],
    nameless: int,
    doubles: set[str],
) -> Reading:
    unchanged = [object_id for digest, object_id in members.items() if digest in before]
    doubles |= fresh.keys() & set(unchanged)
    notes = []
    if nameless:
        notes.append(f"{nameless} objects without an id ({_id_text(watch)}) set aside")
    if doubles:
        some = ", ".join(sorted(doubles)[:3])
        notes.append(f"{len(doubles)} ids shown more than once with different content set aside ({some})")
        members = {d: i for d, i in members.items() if i not in doubles or d in before}
        members |= {d: i for d, i in before.items() if i in doubles}
    shown = set(members.values()) | doubles
    return Reading(
        members=members,
        fresh=tuple(item for object_id, item in fresh.items() if object_id not in doubles),
        missing=() if nameless else tuple(i for i in before.values() if i not in shown),
        notes=tuple(notes),
    )


def _shown(watch: Watch, item: Mapping[str, Any] | msgspec.Raw, digest: bytes) -> Shown | None:
    value = parse(item) if isinstance(item, msgspec.Raw) else item
    if not isinstance(value, Mapping):
        return None
    normalise = watch.endpoint.normalise
    obj = normalise(dict(value)) if normalise else dict(value)
    obj = stored(obj, watch.rules)
    object_id = watch.identify(value) if not normalise else watch.identify(obj) or watch.identify(value)
    return None if object_id is None else Shown(object_id=object_id, digest=digest, object=obj)


def _next_equal(digest: bytes, members: Mapping[bytes, str]) -> bytes:
    while digest in members:
        digest = digest_of(digest)
    return digest


def _id_text(watch: Watch) -> str:
    spec = watch.endpoint.id
    return f"`{spec}`" if isinstance(spec, str) else ", ".join(f"`{part}`" for part in spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is known around one poll."""

    state: EndpointState
    unit: int | None  # None: the unit shows a selection and vouches for nothing
    asked: Asked
    absent_since: float | None = None  # a new object was certainly not there then
    appended: frozenset[str] = frozenset()  # of the new objects those at the very end of a list in order of ids
    tail_since: float | None = None  # those were certainly not there then
    accepted: ShapeShift = NO_SHIFT  # a schema change that is taken silently
    recent: Mapping[str, float] = field(default_factory=dict)  # when objects were last changed by another answer


def decide(watch: Watch, reading: Reading, known: Mapping[str, Snapshot], context: Context) -> Decision:
    """Judge every object that the unit has not shown like this before."""
    decision = Decision()
    pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    for shown in reading.fresh:
        old = known.get(shown.object_id)
        if old is None:
            _first_seen(watch, shown, context, decision)
        else:
            pair = _seen_again(watch, shown, old, context, decision)
            if pair is not None:
                pairs.append(pair)
    shift = shape_shift(pairs, len(reading.members), watch.rules) if pairs else None
    if shift is not None and not shift.fields.items() <= context.accepted.fields.items():
        decision.shift = shift
    return decision


def _first_seen(watch: Watch, shown: Shown, context: Context, decision: Decision) -> None:
    baseline = context.state.baseline_before is not None
    if _is_soft(watch, shown, decision):
        decision.snapshots.append(_snapshot(watch, shown, context, version=0, presence=Presence.DELETED))
        return
    if baseline and watch.baseline == "silent":
        decision.snapshots.append(_snapshot(watch, shown, context, version=0))
        return
    change = Change(
        kind=Kind.CREATED,
        object_id=shown.object_id,
        version=1,
        object=shown.object,
        observed_after=None if baseline else _absent_since(shown.object_id, context),
        observed_at=context.asked.answered_at,
    )
    _tell(watch, decision, _snapshot(watch, shown, context, version=1), change, dropped=0)


def _absent_since(object_id: str, context: Context) -> float | None:
    known = [context.absent_since, context.tail_since if object_id in context.appended else None]
    return max((at for at in known if at is not None), default=None)


def _seen_again(
    watch: Watch, shown: Shown, old: Snapshot, context: Context, decision: Decision
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Judge an object that is known. Returns it before and after where it was updated."""
    before_baseline = context.state.baseline_before is not None and old.seen_at < context.state.baseline_before
    soft = _is_soft(watch, shown, decision)
    moved = old.unit is not None and old.unit != context.unit
    new = _snapshot(watch, shown, context, version=old.version, presence=Presence.DELETED if soft else Presence.PRESENT)
    same = new.digest == old.digest
    told_since = context.recent.get(shown.object_id, 0.0) > context.asked.at
    if told_since and (not same or old.presence is Presence.DELETED):
        # Both answers were under way at once: which one is the older cannot be told, the next one will tell.
        decision.undecided.append(shown.digest)
        return None
    if before_baseline or (soft and old.presence is Presence.DELETED):
        if not same or before_baseline or old.unit != context.unit:
            _move(decision, shown.object_id, old, moved)
            decision.snapshots.append(new)
        return None
    told = None
    if soft:
        told = Kind.DELETED
    elif old.presence is Presence.DELETED:
        told = Kind.CREATED
    elif same:
        if moved or old.unit is None or old.presence is Presence.SUSPECT:
            if context.unit is not None:
                _move(decision, shown.object_id, old, moved)
            decision.claimed.append(shown.object_id)
        return None
    _move(decision, shown.object_id, old, moved)
    if told is not None:
        _tell(
            watch,
            decision,
            replace(new, version=old.version + 1),
            _change(told, shown, old, context),
            dropped=old.version,
        )
        return None
    return _updated(watch, shown, old, new, context, decision)


def _is_soft(watch: Watch, shown: Shown, decision: Decision) -> bool:
    if watch.soft is None:
        return False
    try:
        return watch.soft.holds(shown.object)
    except FilterError as error:
        decision.notes.append(f"deleted_when: {error}")
        return False


def _updated(
    watch: Watch, shown: Shown, old: Snapshot, new: Snapshot, context: Context, decision: Decision
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    before = parse(old.body)
    difference = diff(before, shown.object, watch.rules)
    fields = unexplained(difference.fields, context.accepted)
    if fields:
        decision.updates.append(fields)
        change = replace(_change(Kind.UPDATED, shown, old, context), fields=fields, truncated=difference.truncated)
        _tell(watch, decision, replace(new, version=old.version + 1), change, dropped=old.version)
    else:
        decision.snapshots.append(new)
    return before, shown.object


def _change(kind: Kind, shown: Shown, old: Snapshot, context: Context) -> Change:
    return Change(
        kind=kind,
        object_id=shown.object_id,
        version=old.version + 1,
        object=shown.object,
        observed_after=old.seen_at,
        observed_at=context.asked.answered_at,
    )


def _move(decision: Decision, object_id: str, old: Snapshot, moved: bool) -> None:
    if moved and old.unit is not None:
        decision.moved_from.setdefault(old.unit, []).append(object_id)


def _snapshot(
    watch: Watch, shown: Shown, context: Context, *, version: int, presence: Presence = Presence.PRESENT
) -> Snapshot:
    return Snapshot(
        object_id=shown.object_id,
        version=version,
        digest=fingerprint(shown.object, watch.rules),
        body=dump(shown.object),
        unit=context.unit,
        seen_at=context.asked.at,
        presence=presence,
    )


def _tell(
    watch: Watch,
    decision: Decision,
    snapshot: Snapshot,
    change: Change,
    *,
    dropped: int,
) -> None:
    """Record a change with its event. One that a plugin drops uses up no version: the snapshot keeps `dropped`."""
    event = watch.transform(
        change_event(change, source=watch.source, namespace=watch.namespace, endpoint=watch.endpoint.name)
    )
    decision.changed += 1
    if event is None:
        decision.snapshots.append(replace(snapshot, version=dropped))
    else:
        decision.snapshots.append(snapshot)
        decision.events.append(event)


def delete(watch: Watch, suspect: Suspect, asked: Asked) -> Decision:
    """Tell a confirmed deletion: the object as it was last known."""
    old, decision = suspect.snapshot, Decision()
    change = Change(
        kind=Kind.DELETED,
        object_id=old.object_id,
        version=old.version + 1,
        object=parse(old.body),
        observed_after=old.seen_at,
        observed_at=asked.answered_at,
    )
    gone = replace(old, version=old.version + 1, presence=Presence.DELETED, unit=None, seen_at=asked.at)
    _tell(watch, decision, gone, change, dropped=old.version)
    return decision
