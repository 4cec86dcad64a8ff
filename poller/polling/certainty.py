"""Judges whether a completed sweep has seen the whole list, and reports it if not."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from poller.changes.certainty import PATIENCE, SweptList, Uncertainty, judge, pattern_of
from poller.changes.exemptions import clashes_after
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint, exempt
from poller.polling.sweep import Seen
from poller.rendering.sentences import clause
from state.notices import Notice
from state.polls import Sweep, UnitState

MOST_HIDING: Final = 3  # pages that are named as showing nothing


def judged(w: WatchedEndpoint, draft: Draft, ended: Sweep, seen: Seen, unit: UnitState) -> Sweep:
    """The sweep that a poll of `unit` completes, with its contradictions. They are reported once per episode."""
    units = {**w.units.swept(), unit.key: unit}
    unknown = {*seen.dropped, *w.sweep.given_up} - {unit.key}
    swept = SweptList(
        units={key: one for key, one in units.items() if key not in unknown},
        per_parent=w.is_child,
        repeated=[*w.sweep.repeated, *seen.repeated],
        clashes=[*w.sweep.clashes, *seen.clashes],
        is_new=w.sweep.is_new or seen.is_new,
        hiding=[*w.sweep.hiding, *([seen.key] if seen.hides else ())][:MOST_HIDING] if w.sweeps_decide else (),
    )
    clashes = clashes_after(
        w.guards.exemptions.clashes,
        swept.clashes,
        ended_at=ended.ended_at,
        absent_for=w.rules.deletion.missing_time(has_own_url=False),
    )
    if w.guards.exemptions.clashes != clashes:
        exempt(w, draft, structs.replace(w.guards.exemptions, clashes=clashes))
    before = Uncertainty.load(w.state.uncertain)
    found = judge(swept, before, w.guards.exemptions.doubts, now=ended.ended_at)
    if found is None:
        if before is not None:
            exempt(w, draft, structs.replace(w.guards.exemptions, certain_since=ended.ended_at))
        return ended
    if _is_news(before, found):
        draft.notices.append(_notice(w, found, ended.ended_at))
    return structs.replace(
        ended,
        steady=False,
        confirms=False,
        uncertain=found.dump(),
        ends_baseline=found.ends_baseline or not w.in_baseline,
    )


def _is_news(before: Uncertainty | None, found: Uncertainty) -> bool:
    """Whether an uncertainty is reported. A list that moves while it is read is reported only if it never settles."""
    if found.repeats_only:
        return found.sweeps == PATIENCE
    return before is None or before.repeats_only or not {*map(pattern_of, found.why)} <= {*before.known}


def accept_doubts(w: WatchedEndpoint, draft: Draft) -> bool:
    """Accept the current contradictions of this list; False if there are none."""
    found = Uncertainty.load(w.state.uncertain)
    if found is None:
        return False
    patterns = {pattern_of(doubt) for doubt in found.why}
    exempt(w, draft, structs.replace(w.guards.exemptions, doubts=w.guards.exemptions.doubts | patterns))
    return True


def _notice(w: WatchedEndpoint, found: Uncertainty, now: float) -> Notice:
    if not w.in_baseline:
        effect = "it confirms no deletion"
    elif found.is_lasting:
        effect = "its baseline does not end and no change is reported"
    else:
        effect = "no deletion is confirmed, and no change is reported before some more sweeps have shown nothing new"
    return Notice(
        kind="endpoint.uncertain",
        subject=f"endpoints/{w.label}",
        summary=f"The latest sweep of {w.label} may not have seen the whole list: {clause(found.text)}. "
        f"Until that is fixed, or accepted with `poller release {w.label} --accept`, {effect}.",
        detail={"why": list(found.why)},
        time=now,
    )
