"""Decides what to record from a poll and what is known. Pure.

These are the last two steps of the comparison: an object's canonical value, then its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from poller.changes.comparison import PageComparison, RequestTimes, ShownObject
from poller.changes.decision import Context, Decision
from poller.changes.endpoint_rules import EndpointRules
from poller.changes.guards import AT_LEAST_SHIFTED, shape_shift, torn_shift, unexplained
from poller.documents.diff import Difference, diff, dump, parse
from poller.events.events import change_event
from poller.events.filters import FilterError
from state.polls import Presence, Snapshot, Suspect
from state.records import Change, FieldChange, Kind

SAME = Difference()

Pair = tuple[Mapping[str, Any], Mapping[str, Any]]  # an object before and after


def decide(
    rules: EndpointRules, comparison: PageComparison, known: Mapping[str, Snapshot], context: Context
) -> Decision:
    """Judge every object that the unit has not shown in this form before."""
    decision = Decision()
    if not known and rules.deletion.soft is None and _is_silent(rules, context):  # a first sweep, page by page
        unit, at = context.unit, context.asked.at
        decision.snapshots = [
            Snapshot(object_id=shown.object_id, version=0, body=shown.body, unit=unit, seen_at=at)
            for shown in comparison.fresh
        ]
        return decision
    pairs: list[Pair] = []
    ids: list[str] = []
    for shown in comparison.fresh:
        old = known.get(shown.object_id)
        if old is None:
            _first_seen(rules, shown, context, decision)
        else:
            pair = _seen_again(rules, shown, old, context, decision)
            if pair is not None:
                pairs.append(pair)
                ids.append(shown.object_id)
    shift = (
        shape_shift(pairs, len(comparison.members), rules.fields, nulled=context.nulled)
        if len(pairs) >= AT_LEAST_SHIFTED
        else None
    )
    if shift is not None and not shift.fields.items() <= context.accepted.fields.items():
        decision.shift = shift
    if shift is None and context.is_chain and len(pairs) >= AT_LEAST_SHIFTED:
        places = {object_id: place for place, object_id in enumerate(comparison.members.values())}
        decision.shift = torn_shift(pairs, [places[one] for one in ids], rules.fields, nulled=context.nulled)
    return decision


def _first_seen(rules: EndpointRules, shown: ShownObject, context: Context, decision: Decision) -> None:
    if _is_soft(rules, shown, decision):
        decision.snapshots.append(_snapshot(shown, context, version=0, presence=Presence.DELETED))
        return
    if _is_silent(rules, context):
        decision.snapshots.append(_snapshot(shown, context, version=0))
        return
    change = Change(
        kind=Kind.CREATED,
        object_id=shown.object_id,
        version=1,
        object=shown.parsed(),
        observed_after=None if context.state.baseline_before is not None else _absent_since(shown.object_id, context),
        observed_at=context.asked.answered_at,
    )
    decision.created += 1
    _tell(rules, decision, _snapshot(shown, context, version=1), change, dropped=0)


def _is_silent(rules: EndpointRules, context: Context) -> bool:
    return rules.baseline == "silent" and context.state.baseline_before is not None


def _is_before_baseline(rules: EndpointRules, old: Snapshot, context: Context) -> bool:
    """Whether an object is recorded without an event. What a baseline has reported once is reported further."""
    began = context.state.baseline_before
    if began is None or old.seen_sweep >= context.state.sweep:
        return False
    return rules.baseline == "silent" or old.seen_at < began


def _absent_since(object_id: str, context: Context) -> float | None:
    known = [context.absent_since, context.tail_since if object_id in context.appended else None]
    return _certain(max((at for at in known if at is not None), default=None), context.asked)


def _certain(at: float | None, asked: RequestTimes) -> float | None:
    """A time before the answer; None if the clock was set back since, so that the time is not certain."""
    return at if at is None or at <= asked.answered_at else None


def _seen_again(
    rules: EndpointRules, shown: ShownObject, old: Snapshot, context: Context, decision: Decision
) -> Pair | None:
    """Judge a known object. Returns it before and after if it was updated."""
    before_baseline = _is_before_baseline(rules, old, context)
    soft = _is_soft(rules, shown, decision)
    moved = old.unit is not None and old.unit != context.unit
    presence = Presence.DELETED if soft else Presence.PRESENT
    pair, difference = _compared(rules, shown, old)
    same = not difference
    decision.returned += old.presence is Presence.SUSPECT
    if _is_undecided(shown, old, context, decision, moved=moved, same=same):
        return None
    if before_baseline or (soft and old.presence is Presence.DELETED):
        if not same or before_baseline or old.unit != context.unit:
            _move(decision, shown.object_id, old, moved)
            decision.snapshots.append(_snapshot(shown, context, version=old.version, presence=presence))
        return None
    if soft or old.presence is Presence.DELETED:
        kind = Kind.DELETED if soft else Kind.CREATED
        decision.created += not soft
        if not soft and (rules.deletion.soft is None or not is_soft(rules, parse(old.body), Decision())):
            decision.relisted.append(shown.object_id)
        _move(decision, shown.object_id, old, moved)
        snapshot = _snapshot(shown, context, version=old.version + 1, presence=presence)
        change = _change_of(kind, old, context.asked, now=shown.parsed() if pair is None else pair[1])
        if old.presence is Presence.DELETED and old.unit is None and old.version == 0:
            change = msgspec.structs.replace(change, observed_after=None)  # only a baseline has not shown it
        _tell(rules, decision, snapshot, change, dropped=old.version)
        return None
    if pair is None or same:
        _same(shown, old, context, decision, moved)
        return None
    _move(decision, shown.object_id, old, moved)
    _updated(rules, shown, old, pair[1], difference, context, decision)
    return pair


def _is_undecided(
    shown: ShownObject, old: Snapshot, context: Context, decision: Decision, *, moved: bool, same: bool
) -> bool:
    """Whether the object must be polled again, because it may not be the known one, or may be outdated."""
    if moved and not same and shown.object_id in context.clashing:
        decision.undecided.digests[shown.digest] = False
        undecided = decision.undecided.clashes if context.clashing[shown.object_id] else decision.undecided.moved
        undecided.append(shown.object_id)
        return True
    changed_since = context.recent.get(shown.object_id, 0) > context.asked.order
    is_older = context.asked.age > 0 and _is_older(shown.object_id, old, context)
    if (changed_since or is_older) and (not same or old.presence is Presence.DELETED):
        # Both requests were under way at once, so which answer is older is not known, or this one comes from a cache
        # and is older than what is known. The next answer decides.
        decision.undecided.digests[shown.digest] = old.unit is not None and not moved
        return True
    return False


def _is_older(object_id: str, old: Snapshot, context: Context) -> bool:
    """Whether an answer from a cache may be older than what is known. Times in the future come from another clock.

    When an object changed may be forgotten. A suspect that is shown is no change that could be undone.
    """
    forgotten = old.seen_at if old.presence is Presence.SUSPECT else context.changed.since
    known = max(context.changed.at.get(object_id, forgotten), old.seen_at)
    return context.asked.at < known <= context.asked.answered_at


def _same(shown: ShownObject, old: Snapshot, context: Context, decision: Decision, moved: bool) -> None:
    """Record an unchanged object. If another unit showed it, or it was a suspect, it now belongs to this unit."""
    if moved or old.unit is None or old.presence is Presence.SUSPECT:
        if context.unit is not None:
            _move(decision, shown.object_id, old, moved)
        decision.moved_here.append(shown.object_id)


def _is_soft(rules: EndpointRules, shown: ShownObject, decision: Decision) -> bool:
    return rules.deletion.soft is not None and is_soft(rules, shown.parsed(), decision)


def is_soft(rules: EndpointRules, value: Mapping[str, Any], decision: Decision) -> bool:
    """Whether `deleted_when` is true of an object."""
    if rules.deletion.soft is None:
        return False
    try:
        return rules.deletion.soft.holds(value)
    except FilterError as error:
        decision.notes.append(f"deleted_when: {error}")
        return False


def _compared(rules: EndpointRules, shown: ShownObject, old: Snapshot) -> tuple[Pair | None, Difference]:
    """The object before and after, and its differences; None if it is equal to the byte and need not be parsed."""
    if shown.body == old.body:
        return None, SAME
    pair = parse(old.body), shown.parsed()
    return pair, diff(*pair, rules.fields)


def is_known(rules: EndpointRules, shown: ShownObject, old: Snapshot | None) -> bool:
    """Whether the object is known exactly as it is shown."""
    if old is None or _compared(rules, shown, old)[1]:
        return False
    return old.presence is not Presence.DELETED or _is_soft(rules, shown, Decision())


def _updated(
    rules: EndpointRules,
    shown: ShownObject,
    old: Snapshot,
    now: Mapping[str, Any],
    difference: Difference,
    context: Context,
    decision: Decision,
) -> None:
    fields = unexplained(difference.fields, context.accepted)
    if fields:
        decision.updates.append(fields)
        change = _change_of(Kind.UPDATED, old, context.asked, now=now, fields=fields, truncated=difference.truncated)
        _tell(rules, decision, _snapshot(shown, context, version=old.version + 1), change, dropped=old.version)
    else:
        decision.snapshots.append(_snapshot(shown, context, version=old.version))


def _change_of(
    kind: Kind,
    old: Snapshot,
    asked: RequestTimes,
    *,
    now: Mapping[str, Any],
    fields: tuple[FieldChange, ...] = (),
    truncated: bool = False,
) -> Change:
    return Change(
        kind=kind,
        object_id=old.object_id,
        version=old.version + 1,
        object=now,
        fields=fields,
        truncated=truncated,
        observed_after=_certain(old.seen_at, asked),
        observed_at=asked.answered_at,
    )


def _move(decision: Decision, object_id: str, old: Snapshot, moved: bool) -> None:
    if moved and old.unit is not None:
        decision.moved_from.setdefault(old.unit, []).append(object_id)


def _snapshot(shown: ShownObject, context: Context, *, version: int, presence: Presence = Presence.PRESENT) -> Snapshot:
    return Snapshot(
        object_id=shown.object_id,
        version=version,
        body=shown.body,
        unit=context.unit,
        seen_at=context.asked.at,
        presence=presence,
    )


def _tell(
    rules: EndpointRules,
    decision: Decision,
    snapshot: Snapshot,
    change: Change,
    *,
    dropped: int,
) -> None:
    """Record a change with its event. If a plugin drops the event, no version is used up, and the snapshot keeps
    `dropped`.
    """
    made = change_event(change, source=rules.source, namespace=rules.namespace, endpoint=rules.endpoint.name)
    event = made if rules.transform is None else rules.transform(made)
    decision.changed += 1
    if event is None:
        decision.snapshots.append(msgspec.structs.replace(snapshot, version=dropped))
    else:
        decision.snapshots.append(snapshot)
        decision.events.append(event)


# Single objects: seen at their own URL, or absent from complete sweeps.


def delete(
    rules: EndpointRules,
    suspect: Suspect,
    asked: RequestTimes,
    *,
    now: Mapping[str, Any] | None = None,
    absent_at: float | None = None,
) -> Decision:
    """Report a confirmed deletion. `now` is the object as its own URL shows it; None: as it was last known.

    `absent_at`: when it was certainly absent, if that was before it was asked for.
    """
    old, decision = suspect.snapshot, Decision()
    change = _change_of(Kind.DELETED, old, asked, now=parse(old.body) if now is None else now)
    gone = msgspec.structs.replace(
        old,
        version=old.version + 1,
        body=old.body if now is None else dump(now),
        presence=Presence.DELETED,
        unit=None,
        seen_at=asked.at if absent_at is None else min(asked.at, absent_at),
    )
    _tell(rules, decision, gone, change, dropped=old.version)
    return decision


def change_on_its_own(
    rules: EndpointRules,
    old: Snapshot,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    asked: RequestTimes,
    decision: Decision,
) -> None:
    """Report the differences of an object that is no longer listed. It remains a suspect."""
    difference = diff(before, now, rules.fields)
    if difference:
        change = _change_of(Kind.UPDATED, old, asked, now=now, fields=difference.fields, truncated=difference.truncated)
        snapshot = msgspec.structs.replace(
            old, version=old.version + 1, body=dump(now), presence=Presence.SUSPECT, unit=None, seen_at=asked.at
        )
        _tell(rules, decision, snapshot, change, dropped=old.version)
