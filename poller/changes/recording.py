"""Builds the recording of one poll from its decision and the base of that decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from poller.changes.comparison import PageComparison, RequestTimes, digest_of
from poller.changes.decision import Decision
from state.polls import PollRecord, Presence, Snapshot, UnitState


def unchanged_unit(unit: UnitState, asked: RequestTimes) -> UnitState:
    """The unit after an unchanged poll."""
    return structs.replace(
        unit,
        asked_at=asked.at,
        answered_at=asked.answered_at,
        asked_order=asked.order,
        failures=0,
        retry_at=None,
        error=None,
    )


def polled_unit(
    unit: UnitState,
    asked: RequestTimes,
    *,
    digest: bytes | None,
    validators: bytes | None,
    shown: int,
    next: bytes | None,
    calls: int,
    claims: bytes | None,
) -> UnitState:
    """The unit after a changed poll. Without a digest, its next answer is compared completely."""
    return structs.replace(
        unit,
        asked_at=asked.at,
        answered_at=asked.answered_at,
        asked_order=asked.order,
        digest=digest,
        shown=shown,
        validators=None if digest is None else validators,
        next=next,
        calls=calls,
        claims=claims,
        failures=0,
        retry_at=None,
        error=None,
    )


def poll_record(
    unit: UnitState,
    members: Mapping[bytes, str],
    comparison: PageComparison,
    decision: Decision,
    growth: int,
    *,
    owns: bool,
    are_new: bool = False,
) -> PollRecord:
    """The recording of one poll. `owns`: the unit owns its objects; else it shows a selection."""
    return PollRecord(
        unit=unit,
        members=members if owns else {},
        owns_objects=owns,
        growth=growth,
        snapshots=decision.snapshots,
        are_new=are_new,
        moved_here=decision.moved_here,
        moved_from=decision.moved_from,
        missing=comparison.missing,
        unsure=[*comparison.unsure, *undecided_members(decision, comparison.members)] if owns else (),
        events=decision.events,
    )


def is_certain(comparison: PageComparison) -> bool:
    """Whether every object that the answer shows was identified and decided on."""
    return not (comparison.unsure or comparison.is_partial)


def decided_members(decision: Decision, members: Mapping[bytes, str]) -> Mapping[bytes, str]:
    """The members, without the digests of objects to be compared again.

    The unit keeps the ids of its own objects among them, so that it notices if they are gone at the next poll.
    """
    undecided = decision.undecided.digests
    if not undecided:
        return members
    return {digest: object_id for digest, object_id in members.items() if digest not in undecided}


def undecided_members(decision: Decision, members: Mapping[bytes, str]) -> list[str]:
    """Members of the unit that it shows in another form than is known, and which of the two is older is not known."""
    if not decision.undecided.digests:
        return []
    return [members[digest] for digest, is_own in decision.undecided.digests.items() if is_own]


def growth_of(snapshots: Sequence[Snapshot], known: Mapping[str, Snapshot]) -> int:
    """By how many objects the endpoint grows when these are written."""
    if not known:
        return _present(snapshots)
    return _present(snapshots) - _present([known[one.object_id] for one in snapshots if one.object_id in known])


def appended(comparison: PageComparison, known: Mapping[str, Snapshot], unit: int | None) -> frozenset[str]:
    """New objects after which the list shows no known object.

    There are none on a page that has lost objects of its own and shows none of them before the new ones: the lost ones
    may follow on a later page, because an object that was hidden for a moment has come back.
    """
    fresh = {shown.object_id for shown in comparison.fresh}
    found: set[str] = set()
    for object_id in reversed([*comparison.members.values()]):
        if object_id not in fresh or object_id in known:
            is_own = object_id not in fresh or known[object_id].unit == unit
            return frozenset(found) if is_own or not comparison.missing else frozenset()
        found.add(object_id)
    return frozenset() if comparison.missing else frozenset(found)


def chain_digest(digests: Sequence[bytes]) -> bytes:
    """One digest for all answers of a chain."""
    return digests[0] if len(digests) == 1 else digest_of(b"".join(digests))


def _present(snapshots: Sequence[Snapshot]) -> int:
    return len(snapshots) - [one.presence for one in snapshots].count(Presence.DELETED)
