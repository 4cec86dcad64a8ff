"""Pure: what a poll showed and what is known -> what is to be recorded.

Compared from cheap to dear, and stopped early: the bytes of the answer (in `polling`), the bytes of each object
(`read`), its canonical value, its fields (`decide`). An object whose bytes the unit has shown before is never parsed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

import msgspec

from poller.diff import ParseError, Rules, diff, dump, fingerprint, parse, stored
from poller.events import change_event
from poller.filters import FilterError, ObjectRule
from poller.guards import ShapeShift, shape_shift, unexplained
from poller.sources import Endpoint, PageError
from state.polls import EndpointState, Presence, Snapshot, Suspect
from state.records import Change, FieldChange, Kind, NewEvent

CONTENT = "content"
NO_SHIFT = ShapeShift(fields={}, objects=0)
MOST_OBJECTS = 100_000  # in one answer

_tokens = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL).finditer


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
    max_depth: int = 64  # of an object's own nesting: a deeper one is set aside
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
    unsure: tuple[str, ...] = ()  # how these are cannot be told from this answer
    is_partial: bool = False  # it shows objects that cannot be told apart: nothing is missing for sure
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
    returned: int = 0  # suspects that are shown again, here or elsewhere in the list
    events: list[NewEvent] = field(default_factory=list)
    changed: int = 0
    updates: list[tuple[FieldChange, ...]] = field(default_factory=list)  # of each updated object
    notes: list[str] = field(default_factory=list)
    undecided: list[bytes] = field(default_factory=list)  # digests of objects to be looked at again
    shift: ShapeShift | None = None

    @property
    def moves(self) -> bool:
        """Objects moved between units."""
        return bool(self.moved_from or self.returned)


def digest_of(raw: bytes | msgspec.Raw) -> bytes:
    """16 bytes of an answer or an object as it came (SHA-256, which processors compute faster than others)."""
    return sha256(raw).digest()[:16]


@dataclass(slots=True, kw_only=True)
class _Sorting:
    """The objects of an answer while they are told apart."""

    members: dict[bytes, str] = field(default_factory=dict)
    fresh: dict[str, Shown] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)  # ids so far, of a list whose objects are their content
    doubles: set[str] = field(default_factory=set)
    aside: Counter[str] = field(default_factory=Counter)  # why, and how many


def read(watch: Watch, objects: Iterable[Mapping[str, Any] | msgspec.Raw], before: Mapping[bytes, str]) -> Reading:
    """Tell what is new in an answer. Raises PageError when none of its objects can be used, or there are too many.

    Objects that cannot be used (without an id, nested too deeply) and different ones under one id are set aside with
    a note; nothing is concluded about what such an answer does not show.
    """
    sorting = _Sorting()
    is_content = watch.endpoint.id == CONTENT
    for number, item in enumerate(objects):
        if number == MOST_OBJECTS:
            raise PageError(f"more than {MOST_OBJECTS:,} objects in one answer", hint="ask for smaller pages")
        raw = bytes(item) if isinstance(item, msgspec.Raw) else dump(item)
        digest = digest_of(raw)
        if digest in sorting.members:
            if not is_content:
                continue
            digest = _next_equal(
                digest, sorting.members
            )  # the set is the identity: the second of two equals is another
        if (known := before.get(digest)) is not None:
            sorting.members[digest] = known
            if is_content:
                sorting.names.add(known)
        else:
            _sort(watch, item, raw, digest, sorting)
    if sorting.aside and not sorting.members and not sorting.doubles:
        raise PageError(
            f"none of its objects can be used: {_told_aside(sorting)}",
            hint='set `id` to the field that names an object, or to "content"',
        )
    return _reading(sorting, before)


def _sort(
    watch: Watch,
    item: Mapping[str, Any] | msgspec.Raw,
    raw: bytes,
    digest: bytes,
    sorting: _Sorting,
) -> None:
    """Tell an object that the unit has not shown in these bytes from the others."""
    if is_too_deep(raw, watch.max_depth):
        sorting.aside[f"nested deeper than max_depth = {watch.max_depth}"] += 1
        return
    shown = _shown(watch, item, digest)
    if shown is None:
        sorting.aside[f"without an id ({_id_text(watch)})"] += 1
        return
    if watch.endpoint.id == CONTENT:
        shown = _another(shown, sorting.names)
    elif shown.object_id in sorting.fresh:
        sorting.doubles.add(shown.object_id)
        return
    sorting.fresh[shown.object_id] = shown
    sorting.members[digest] = shown.object_id


def _another(shown: Shown, taken: set[str]) -> Shown:
    """The second of two equal objects has an id of its own."""
    name, nth = shown.object_id, 1
    while name in taken:
        nth += 1
        name = f"{shown.object_id}#{nth}"
    taken.add(name)
    return shown if nth == 1 else replace(shown, object_id=name)


def is_too_deep(raw: bytes, most: int) -> bool:
    """Whether an object in JSON is nested deeper than that. Walked only where it has enough brackets for it."""
    if raw.count(b"{") + raw.count(b"[") <= most:
        return False
    depth = 0
    for token in _tokens(raw):
        sign = raw[token.start()]
        if sign in b"[{":
            depth += 1
            if depth > most:
                return True
        elif sign in b"]}":
            depth -= 1
    return False


def _reading(sorting: _Sorting, before: Mapping[bytes, str]) -> Reading:
    members, doubles = sorting.members, sorting.doubles
    doubles |= sorting.fresh.keys() & {object_id for digest, object_id in members.items() if digest in before}
    notes = []
    if sorting.aside:
        notes.append(f"{_told_aside(sorting)} set aside")
    if doubles:
        some = ", ".join(sorted(doubles)[:3])
        notes.append(f"{len(doubles)} ids shown more than once with different content set aside ({some})")
        members = {digest: object_id for digest, object_id in members.items() if object_id not in doubles}
    shown = {*members.values(), *doubles}
    gone = tuple(object_id for object_id in before.values() if object_id not in shown)
    return Reading(
        members=members,
        fresh=tuple(item for object_id, item in sorting.fresh.items() if object_id not in doubles),
        missing=() if sorting.aside else gone,
        unsure=(*sorted(doubles), *(gone if sorting.aside else ())),
        is_partial=bool(sorting.aside),
        notes=tuple(notes),
    )


def _told_aside(sorting: _Sorting) -> str:
    return ", ".join(f"{number} objects {why}" for why, number in sorting.aside.items())


def _shown(watch: Watch, item: Mapping[str, Any] | msgspec.Raw, digest: bytes) -> Shown | None:
    try:
        value = parse(item) if isinstance(item, msgspec.Raw) else item
    except ParseError:  # a number that nothing can hold
        return None
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
    decision.returned += old.presence is Presence.SUSPECT
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
