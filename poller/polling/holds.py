"""Holds: suspicious changes are held back until more is known or an operator decides.

Every function works on one endpoint in memory, within its turn, and writes the consequences into a draft.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import orjson
from msgspec import structs

from poller.changes.comparison import PageComparison, RequestTimes
from poller.changes.decision import Decision
from poller.changes.exemptions import Exemptions
from poller.changes.guards import ShapeShift, is_mass_deletion
from poller.changes.many_missing import Recount, is_most
from poller.changes.quarantine import agreed_shift, exempted, like_quarantined
from poller.polling.draft import Draft
from poller.polling.endpoint import Guards, WatchedEndpoint, exempt
from poller.polling.results import Fetched
from poller.polling.unit_keys import is_swept, place_of
from state.notices import Notice
from state.polls import Snapshot

TRUSTED_SWEEPS: Final = 4  # one in which objects go missing, two that confirm it, and the rest of the current one


# Recounts: too many objects are missing at once.


def missing_objects(
    w: WatchedEndpoint, comparison: PageComparison, known: Mapping[str, Snapshot], dropped: Iterable[str]
) -> int:
    """How many objects an answer would make suspects; 0 if deletions are not reported or are accepted anyway.

    In a list that turns over, missing objects count only if no others have taken their place.
    """
    if w.in_baseline or not w.rules.deletion.deletes or w.guards.exemptions.allow_deletions(w.state.sweep):
        return 0
    missing = len(comparison.missing) + sum(w.units[key].shown for key in dropped)
    if missing and w.rules.deletion.turnover:
        missing -= sum(1 for shown in comparison.fresh if shown.object_id not in known)
    return max(0, missing)


def recount(w: WatchedEndpoint, draft: Draft, key: str, fetched: Fetched, shown: Mapping[str, Snapshot]) -> None:
    """Count which known objects a unit shows, and judge once every unit was counted. No object is recorded."""
    counted = w.guards.recount = w.guards.recount or Recount(fetched.asked.at)
    if not is_swept(key):
        return
    unit = w.units[key]
    is_end = (fetched.pages[-1].next if fetched.pages else unit.next) is None
    counted.count(key, shown.values(), place=place_of(unit.position), is_last=is_end and not w.is_child)
    waits = (
        not counted.is_counted(other, fails=bool(one.failures), place=place_of(one.position))
        for other, one in w.units.swept().items()
    )
    if not any(waits):
        _judge(w, draft, counted, fetched.asked)


def _judge(w: WatchedEndpoint, draft: Draft, counted: Recount, asked: RequestTimes) -> None:
    gone, objects = counted.finish_round(w.state.objects, asked.answered_order)
    if counted.by_hand:
        return
    if is_most(gone, objects):
        if w.state.held is None:
            _hold(w, draft, asked.answered_at, gone=gone, objects=objects)
        return
    _end(w, draft, asked.answered_at, why="the missing objects are listed again")
    exempt(w, draft, structs.replace(w.guards.exemptions, deletions_until=w.state.sweep + 1))


def holds_deletion(
    w: WatchedEndpoint, draft: Draft, suspects: int, *, now: float, steady: float, is_denied: bool = False
) -> bool:
    """Whether one more deletion would be too many within an hour; then the endpoint is held.

    In a list that turns over, and for objects that their own URLs deny one by one (`is_denied`), deletions count only
    if no others have taken their place.
    """
    if w.guards.exemptions.allow_deletions(w.state.sweep):
        return False
    is_net = is_denied or w.rules.deletion.turnover
    recent = w.turnover.net_deletions(steady) if is_net else w.turnover.deletions(steady)
    # All deletions that are about to be reported count before the first is.
    about, objects = max(1, suspects), w.state.objects
    if not is_mass_deletion(objects - about, recent + about):
        return False
    _hold(w, draft, now, gone=recent + about, objects=objects + recent, deleted=recent)
    return True


# Holds and releases.


def hold(w: WatchedEndpoint, draft: Draft, suspects: int) -> None:
    """Hold an endpoint on command."""
    if w.state.held is None:
        _hold(w, draft, draft.at, gone=suspects, objects=w.state.objects, by_hand=True)


def _hold(
    w: WatchedEndpoint, draft: Draft, now: float, *, gone: int, objects: int, deleted: int = 0, by_hand: bool = False
) -> None:
    why = "on command" if by_hand else f"{gone} of {objects} objects are gone at once"
    detail: dict[str, object] = {"known": objects, "gone": gone, "since": now, "why": why}
    w.guards.recount = Recount(now, deleted=deleted, by_hand=by_hand)
    draft.marks.held = orjson.dumps({**detail, "deleted": deleted, "by_hand": by_hand})
    until = "" if by_hand else "they are back or "
    _say(
        w,
        draft,
        "endpoint.held",
        f"{w.label} is held, {why}: nothing is recorded until {until}`poller release {w.label}` "
        "with `--accept` or `--emit` decides.",
        detail,
        now,
    )


def release(w: WatchedEndpoint, draft: Draft, *, why: str, accept: bool = False, emit: bool = False) -> None:
    """End a hold on command: `accept` takes the new state silently, `emit` reports it as events.

    With neither, the endpoint is counted again, and held again if nothing has changed.
    """
    by_hand = w.guards.recount is not None and w.guards.recount.by_hand
    _end(w, draft, draft.at, why=why)
    if accept:
        rebaseline(w, draft)
    elif emit:
        exempt(w, draft, structs.replace(w.guards.exemptions, deletions_until=w.state.sweep + TRUSTED_SWEEPS))
    elif not by_hand:
        w.guards.recount = Recount(draft.at)


def _end(w: WatchedEndpoint, draft: Draft, now: float, *, why: str) -> None:
    w.guards.recount = None
    w.turnover.forget()
    w.guards.quarantine.clear()
    if w.state.held is not None:
        draft.marks.held = None
        _say(w, draft, "endpoint.released", f"{w.label} is released: {why}.", {"why": why}, now)


def rebaseline(w: WatchedEndpoint, draft: Draft) -> None:
    """Take the next sweep as it is, without events for its objects."""
    first = min((unit.id for unit in w.units.swept().values()), default=None)
    kept = [unit for key, unit in w.units.items() if w.is_child or not is_swept(key) or unit.id == first]
    draft.marks.rebaseline = draft.at, w.requests.next()
    draft.new_units = [(unit.key, unit.position) for unit in kept]
    w.guards = Guards(Exemptions(), None)
    say_rebaselined(w, draft)


def say_rebaselined(w: WatchedEndpoint, draft: Draft) -> None:
    """Report that a new baseline begins."""
    summary = f"{w.label} begins a new baseline: its next sweep is recorded without events."
    _say(w, draft, "endpoint.rebaselined", summary, {}, draft.at)


# Quarantine: a page looks like a change of schema.


def accept_shift(
    w: WatchedEndpoint,
    draft: Draft,
    key: str,
    comparison: PageComparison,
    known: Mapping[str, Snapshot],
    decision: Decision,
    *,
    now: float,
) -> bool:
    """Accept a change of schema silently if several pages agree on it, or if there is only one page. Returns whether it
    was.
    """
    guards = w.guards
    shift = decision.shift
    if shift is None and any(other != key for other in guards.quarantine):
        shift = like_quarantined(w.rules, decision, comparison, known, guards.exemptions.nulled)
    if shift is None:
        return False
    fields = agreed_shift(guards.quarantine, key, shift, alone=len(w.units.swept()) == 1)
    if fields is None:
        return False
    exempt(w, draft, exempted(guards.exemptions, fields, shift.objects, sweep=w.state.sweep))
    guards.quarantine.clear()
    shown = {path: str(shape) for path, shape in fields.items()}
    words = ", ".join(f"{path} {shape}" for path, shape in shown.items())
    _say(
        w,
        draft,
        "endpoint.schema_changed",
        f"The objects of {w.label} have a new form ({words}), which is recorded without an event for each object.",
        {"fields": shown},
        now,
    )
    return True


def current_shift(w: WatchedEndpoint) -> ShapeShift:
    """The schema change that is accepted silently now."""
    return w.guards.exemptions.shift_in(w.state.sweep)


def _say(w: WatchedEndpoint, draft: Draft, kind: str, summary: str, detail: Mapping[str, object], now: float) -> None:
    draft.notices.append(Notice(kind=kind, subject=f"endpoints/{w.label}", summary=summary, detail=detail, time=now))
