"""Applies the decision on an answer: its context, and what follows for the endpoint in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, structs

from poller.changes.certainty import (
    ENDLESS,
    HIDING,
    LATE,
    MOST_EMPTY,
    MOST_REPEATED,
    Claims,
    SweptList,
    claims_of,
    judge,
)
from poller.changes.comparison import PageComparison, ShownObject, digest_of
from poller.changes.decision import NO_CHANGES, Context, Decision
from poller.changes.exemptions import Clash
from poller.changes.late import late_changes
from poller.changes.page import quick_ids
from poller.changes.quarantine import is_replaced
from poller.changes.recording import (
    appended,
    decided_members,
    growth_of,
    is_certain,
    poll_record,
    polled_unit,
    unchanged_unit,
    undecided_members,
)
from poller.polling.certainty import judged
from poller.polling.draft import Draft
from poller.polling.endpoint import PendingAnswer, WatchedEndpoint, exempt
from poller.polling.failing_lists import first_reading, without_failing
from poller.polling.holds import current_shift, recount
from poller.polling.results import Fetched, PollResult, SuspectNews, UnitNews
from poller.polling.sweep import GIVEN_UP, Seen
from poller.polling.unit_keys import SINCE, dump_position, is_swept, key_of, load_position
from poller.sources.contradictions import counted_in, signs_of_more
from poller.sources.pagination import COMMON_CAPS
from poller.sources.protocol import Position, Unparsed
from state.polls import EndpointState, Known, Snapshot, UnitState, UnitTimes

FRESH: Final = 1.0  # seconds: the possible age of an answer that gives it as 0


class Answer(msgspec.Struct, kw_only=True):
    """An answer with its objects, and what the state knows of them."""

    waiting: PendingAnswer
    unit: UnitState
    is_paged: bool  # the unit is one page of a list of several pages
    objects: Sequence[msgspec.Raw] = ()
    digests: Sequence[bytes] = ()
    comparison: PageComparison | None = None  # computed early for a unit without earlier answers
    known: Known = Known()
    takes_new: bool = False  # objects are assumed to be new without reading the state; recording checks that
    repeats: Repetition | None = None
    known_pages: int = 0  # in a row, up to this one (2 at most), that show only objects of other pages of this sweep
    beyond: Position | None = None  # the position after a page that is short but may not be the last
    is_endless: bool = False  # the page names a next one, as many before it did, and none of them shows anything

    @property
    def fetched(self) -> Fetched:
        """What was fetched."""
        return self.waiting.fetched

    @property
    def following(self) -> Position | None:
        """The next position: the one that the answer names, or the one beyond a short page."""
        if self.known_pages > 1 or self.is_endless or (self.repeats is not None and self.repeats.is_end):
            return None  # else the list would never end
        pages = self.fetched.pages
        return (pages[-1].next or self.beyond) if pages else None

    @property
    def is_last(self) -> bool:
        """Whether the answer itself says that it is the last."""
        following = self.following
        return following is None or following is self.beyond


class Repetition(msgspec.Struct, frozen=True, kw_only=True):
    """The page shows exactly the objects of an earlier one."""

    page: str  # key of the earlier page
    ids: Sequence[str]
    confirms: str | None = None  # key of the page between the two, which repeats the earlier one as well
    is_first: bool = False  # the earlier one is the first of the list
    follows_last: bool = False  # the page before it says that it is the last, and nothing speaks against that

    @property
    def is_end(self) -> bool:
        """Whether the list has ended with the earlier page. Once, two pages may be the same because objects move."""
        return self.is_first or self.follows_last or self.confirms is not None


def is_late(unit: UnitState, fetched: Fetched) -> bool:
    """Whether the answer belongs to a unit that was replaced, or is older than what is known."""
    return unit.id != fetched.unit or fetched.asked.order < unit.asked_order


def is_paged(w: WatchedEndpoint, key: str) -> bool:
    """Whether the unit is one page of a list of several pages."""
    return is_swept(key) and not w.is_child


def beyond(w: WatchedEndpoint, unit: UnitState, page: Unparsed) -> Position | None:
    """The position after a short page, if the page may not be the last: some servers cap pages at fewer objects than
    were asked for, or take objects out of a page.

    It is requested after the first answer of the last page, and whenever that page has as many objects as servers often
    cap pages at. If an earlier page was short and not the last, the list ends at an empty page.
    """
    if page.beyond is None or not is_paged(w, unit.key):
        return None
    after = w.units.get(key_of(page.beyond))
    is_awaited = after is not None and after.asked_at is None and after.failures < GIVEN_UP
    may_go_on = unit.asked_at is None or len(page.objects) in COMMON_CAPS or w.units.goes_on(unit.key)
    return page.beyond if may_go_on or is_awaited else None


def is_endless(w: WatchedEndpoint, one: Answer) -> bool:
    """Whether the page names a next one although neither it nor any of many pages before it shows anything."""
    pages, before = one.fetched.pages, w.units.get(one.unit.key)
    if not one.is_paged or one.objects or not pages or pages[-1].next is None:
        return False
    for _ in range(MOST_EMPTY - 1):
        before = None if before is None else w.units.before(before.key)
        if before is None or before.shown or before.asked_at is None:
            return False
    return True


def _is_beyond_the_end(w: WatchedEndpoint, unit: UnitState) -> bool:
    """Whether an empty page is one of those after the end of a list that always names a next one."""
    after = w.units.after(unit.key)
    return bool(after) and ENDLESS in claims_of(after[-1]).guesses and not any(one.shown for one in after)


def dropped_by(w: WatchedEndpoint, one: Answer) -> list[str]:
    """Units that no longer belong to the list: units that begin in the middle of this page, and, after a page that says
    it is the last, the later pages once none of them shows objects.
    """
    if not one.is_paged:
        return []
    amid = _amid(w, one)
    if one.following is not None:
        return amid
    after = [unit for unit in w.units.after(one.unit.key) if unit.key not in amid]
    return amid if any(unit.shown for unit in after) else [*amid, *(unit.key for unit in after)]


def _amid(w: WatchedEndpoint, one: Answer) -> list[str]:
    """Units whose offset lies in the middle of this page: the page was shorter when they were created."""
    at = load_position(one.unit.position).offset
    if at is None or one.repeats is not None:
        return []
    return w.units.amid(one.unit.key, at + sum(len(page.objects) for page in one.fetched.pages or ()))


def onward(w: WatchedEndpoint, one: Answer) -> bytes | None:
    """The position after a page. If later pages were known to show objects, they are polled even after a page that says
    it is the last.
    """
    if not one.is_paged:
        return None
    if one.following is not None:
        return dump_position(one.following)
    amid = _amid(w, one)
    after = [unit for unit in w.units.after(one.unit.key) if unit.key not in amid]
    return after[0].position if any(unit.shown for unit in after) else None


def repeated_page(
    w: WatchedEndpoint,
    one: Answer,
    comparison: PageComparison,
    known: Mapping[str, Snapshot],
    is_same: Callable[[ShownObject, Snapshot], bool],
) -> Repetition | None:
    """The earlier page, if this one shows exactly its objects.

    Some servers repeat the last page after the end of the list, or ignore the parameter that asks for another page.
    """
    if not comparison.fresh or len(known) != len(comparison.members) or not one.is_paged:
        return None
    if not all(is_same(shown, known[shown.object_id]) for shown in comparison.fresh):
        return None
    owners = {snapshot.unit for snapshot in known.values()}
    owner = w.units.by_id(owners.pop() or 0) if len(owners) == 1 else None
    if owner is None or owner.shown != len(known) or not w.units.is_after(one.unit.key, owner.key):
        return None
    between, is_first = w.units.before(one.unit.key), w.units.before(owner.key) is None
    is_second = is_first and between is owner
    may_be_capped = is_second and len(known) in COMMON_CAPS  # an API that knows neither the size nor the page
    return Repetition(
        page=owner.key,
        ids=list(known)[:MOST_REPEATED],
        confirms=between.key if between is not None and between is not owner and _repeats(between) else None,
        is_first=is_first,
        follows_last=between is not None and claims_of(between).is_last and not may_be_capped,
    )


def _repeats(unit: UnitState) -> bool:
    """Whether the page showed what an earlier page shows."""
    claims = claims_of(unit)
    return bool(claims.repeated) or claims.confirms is not None


def claims_in(w: WatchedEndpoint, one: Answer, comparison: PageComparison, decision: Decision) -> Claims:
    """What the answer says about its list."""
    pages = one.fetched.pages or ()
    doubts, guesses, totals = list[str](), list[str](), list[int]()
    for page in pages:
        doubts += page.doubts
        guesses += page.guesses
        if page.total is not None:
            totals.append(page.total)
    guessed_total = pages[-1].guessed_total if pages else None
    repeats = one.repeats
    if repeats is not None and repeats.is_first and not repeats.follows_last:
        doubts.append(
            f"{one.unit.key} shows what {repeats.page} shows: the API ignores this parameter, or the list has only one "
            "page"
        )
    elif repeats is not None and repeats.confirms is not None and one.fetched.latest is not None:
        guesses += signs_of_more(one.fetched.latest)
        guessed_total = guessed_total if totals else counted_in(one.fetched.latest)
    if one.is_endless:
        guesses.append(ENDLESS)
    is_last = one.is_paged and one.is_last
    return Claims(
        total=max(totals, default=None),
        doubts=tuple(doubts),
        guesses=tuple(guesses),
        is_last=is_last,
        repeated=_shown_twice(w, one, comparison) if repeats is None else () if repeats.is_end else tuple(repeats.ids),
        aside=(*comparison.notes, *dict.fromkeys(decision.notes)),
        is_known=one.known_pages > 0,
        confirms=None if repeats is None else repeats.confirms,
        guessed_total=guessed_total,
    )


def note_known(w: WatchedEndpoint, one: Answer, comparison: PageComparison, decision: Decision) -> None:
    """Note whether the page shows only objects of other pages, as an API does that ignores the parameter while objects
    are held aside, so that no page looks like another one.
    """
    elsewhere = {*_repeated(w, decision), *decision.undecided.clashes, *decision.undecided.moved}
    if not one.is_paged or not comparison.members or not elsewhere.issuperset(comparison.members.values()):
        return
    before = w.units.before(one.unit.key)
    one.known_pages = 2 if before is not None and claims_of(before).is_known else 1


def _shown_twice(w: WatchedEndpoint, one: Answer, comparison: PageComparison) -> tuple[str, ...]:
    """Objects that two answers of one chain show. The list moved while it was read, and may have hidden others."""
    pages = one.fetched.pages or ()
    if len(pages) < 2 or sum(len(page.objects) for page in pages) == len(comparison.members):
        return ()
    times = Counter(digest_of(bytes(raw)) for page in pages for raw in page.objects)
    found = [comparison.members.get(digest, "") for digest, number in times.items() if number > 1]
    kept = set(map(id, one.objects))  # of equal objects on two pages, if the content identifies them, one is kept
    again = [raw for page in pages for raw in page.objects if id(raw) not in kept]
    found += [name for name in quick_ids(w.rules, again) if isinstance(name, str)] if again else []
    return (*filter(None, found), *comparison.doubles)[:MOST_REPEATED]


def is_strange(w: WatchedEndpoint, one: Answer, comparison: PageComparison, known: Mapping[str, Snapshot]) -> bool:
    """Whether the page looks like a page of another list."""
    if w.in_baseline or w.rules.deletion.turnover or w.guards.exemptions.allow_deletions(w.state.sweep):
        return False
    return is_replaced(w.rules, comparison, len(one.known.members), known)


# Unchanged answers.


def take_unchanged(w: WatchedEndpoint, waiting: PendingAnswer) -> PollResult | None:
    """Handle an unchanged answer in memory alone; None if it has consequences that must be recorded."""
    fetched, key = waiting.fetched, waiting.key
    unit = w.units.get(key)
    if (
        unit is None
        or fetched.pages is not None
        or w.guards.recount is not None
        or key in w.guards.quarantine
        or key == SINCE
        or (unit.next is None and not w.is_child)
        or w.sweep.pending <= {key}
    ):
        return None
    if is_late(unit, fetched) or fetched.digest is None or fetched.digest != unit.digest:
        return PollResult(calls=fetched.calls, aside=True)
    w.sweep.take(_note_unchanged(w, unit, fetched))
    return PollResult(calls=fetched.calls, baseline=w.in_baseline)


def unchanged(w: WatchedEndpoint, one: Answer, draft: Draft) -> PollResult:
    """Record an unchanged answer that has consequences."""
    fetched, unit = one.fetched, one.unit
    result = PollResult(calls=fetched.calls, baseline=w.in_baseline)
    if fetched.digest is None or fetched.digest != unit.digest:
        result.aside = True  # it was compared with outdated knowledge
    elif w.guards.recount is not None:
        recount(w, draft, one.unit.key, fetched, one.known.snapshots)
        result.aside = True
    else:
        seen = _note_unchanged(w, unit, fetched)
        if one.is_paged and unit.next is None and unit.shown > 0:
            draft.marks.tail_asked_at = fetched.asked.at
        if one.unit.key == SINCE:
            draft.marks.since_at = fetched.asked.at - fetched.asked.behind
        result.swept = _sweep(w, one.waiting, seen, draft, w.units[one.unit.key])
    return result


def _note_unchanged(w: WatchedEndpoint, unit: UnitState, fetched: Fetched) -> Seen:
    """Remember that a unit is unchanged; this is written together with the next transaction.

    If a crash loses it, the unit counts as polled a little earlier than it was. Changes are then reported later or with
    a wider time span, but never wrongly.
    """
    asked = fetched.asked
    w.put(unchanged_unit(unit, asked))
    w.unchanged[unit.id] = UnitTimes(
        unit=unit.id, asked_at=asked.at, answered_at=asked.answered_at, asked_order=asked.order
    )
    w.oddities.noise.observe(unit.key, 1, ())
    w.guards.quarantine.pop(unit.key, None)
    hides = unit.shown == 0 and unit.next is not None and not _is_beyond_the_end(w, unit)
    return Seen(
        key=unit.key,
        asked=asked,
        steady=asked.age <= FRESH,
        confirms=not hides or HIDING in w.guards.exemptions.doubts,
        nonempty=unit.shown > 0,
        hides=hides,
    )


def _sweep(w: WatchedEndpoint, waiting: PendingAnswer, seen: Seen, draft: Draft, unit: UnitState) -> bool:
    """Count a poll for the current sweep; True if that completes the sweep."""
    if not waiting.sweep_waits and (ended := w.sweep.ended_by(seen)) is not None:
        draft.marks.ended = without_failing(w, draft, judged(w, draft, ended, seen, unit), but=unit.key)
    w.sweep.take(seen)
    if draft.marks.ended is not None and w.oddities.late_in < w.state.sweep:
        w.oddities.notes.pop(LATE, None)
    return draft.marks.ended is not None


# Changed answers.


def takes_new(w: WatchedEndpoint, unit: UnitState) -> bool:
    """Whether the objects of a page are assumed to be new without reading the state: in the very first sweep, for a
    page that was not polled yet.

    If the state does know one of them, recording raises Conflict, and the rest of the sweep reads the state.
    """
    is_first = unit.asked_at is None and w.in_baseline and w.state.sweep == 1
    is_silent = w.rules.baseline == "silent" and w.rules.deletion.soft is None
    return is_first and is_silent and w.guards.recount is None and not w.turn.looks_up


def context_of(w: WatchedEndpoint, one: Answer, comparison: PageComparison, known: Mapping[str, Snapshot]) -> Context:
    """The context of a decision."""
    ids, asked = [shown.object_id for shown in comparison.fresh], one.fetched.asked
    return Context(
        state=_state_for(w, one),
        unit=one.unit.id if is_swept(one.unit.key) else None,
        asked=asked,
        absent_since=absent_since(w, one.unit),
        appended=_appended(w, one, comparison, known),
        tail_since=w.state.tail_asked_at if w.state.uncertain is None else None,
        accepted=current_shift(w),
        nulled=w.guards.exemptions.nulled,
        changed=w.requests.latest_changes(ids) if asked.age else NO_CHANGES,
        recent=w.requests.changed_among(ids),
        is_chain=one.fetched.calls > 1,
    )


def _state_for(w: WatchedEndpoint, one: Answer) -> EndpointState:
    """The endpoint's state. It is still in its baseline for a list that could not be read when the baseline ended."""
    if one.unit.key not in w.guards.exemptions.unread or w.in_baseline:
        return w.state
    return msgspec.structs.replace(w.state, baseline_before=one.fetched.asked.at)


def absent_since(w: WatchedEndpoint, unit: UnitState | None) -> float | None:
    """Latest time at which an object was certainly absent that the list does not show. `unit` is its list per parent.

    A list in a single answer is complete at one moment. A list of several pages may shift while it is read.
    """
    if w.state.uncertain is not None:
        return None  # the earlier sweep may not have seen the whole list
    whole = unit if w.is_child else w.units.only_one()
    if whole is not None and whole.digest is not None and whole.calls == 1 and whole.next is None:
        return whole.asked_at if _is_certain(w, whole) else None
    return None if w.is_child and (unit is None or unit.asked_at is None) else w.state.steady_began


def _is_certain(w: WatchedEndpoint, whole: UnitState) -> bool:
    """Whether the latest answer of a unit, which is a whole list, contradicts neither itself nor the configuration."""
    swept = SweptList(units={whole.key: whole}, per_parent=w.is_child)
    return judge(swept, None, w.guards.exemptions.doubts, now=whole.asked_at or 0.0) is None


def _appended(
    w: WatchedEndpoint, one: Answer, comparison: PageComparison, known: Mapping[str, Snapshot]
) -> frozenset[str]:
    """New objects at the end of the list, if the list appends new objects and shows no known object after them.

    A page that was not the last one may show objects that were there before: those that moved to it when others were
    deleted.
    """
    if w.rules.endpoint.order != "id" or not one.is_paged or one.unit.next is not None:
        return frozenset()
    if one.following is not None:
        after = w.units.get(key_of(one.following))
        if after is not None and after.asked_at is not None:
            return frozenset()
    return appended(comparison, known, one.unit.id)


def clashes_in(w: WatchedEndpoint, one: Answer, decision: Decision, known: Mapping[str, Snapshot]) -> dict[str, bool]:
    """Ids that name other objects on this page than on the page that they belong to: `id` does not identify objects.

    An object that moved between the two polls and was edited looks the same until the next sweep. False: whether the
    other page still shows its object is not known yet. That is waited for only where ids have clashed before, because
    it delays every edit in a list that is sorted by its changes, and for objects that have changed twice within two
    sweeps.
    """
    if not decision.moved_from or not one.is_paged:
        return {}
    changed, clashes = {snapshot.object_id for snapshot in decision.snapshots}, w.guards.exemptions.clashes
    return {
        object_id: object_id in clashes or _is_polled(w, unit)
        for unit, ids in decision.moved_from.items()
        for object_id in ids
        if object_id in changed
        and (clashes or _is_polled(w, unit) or _has_just_changed(known.get(object_id), w.state.sweep))
    }


def _has_just_changed(old: Snapshot | None, sweep: int) -> bool:
    return old is not None and old.version > 0 and old.seen_sweep >= sweep - 1


def apply(
    w: WatchedEndpoint,
    one: Answer,
    comparison: PageComparison,
    known: Mapping[str, Snapshot],
    decision: Decision,
    draft: Draft,
) -> PollResult:
    """Update memory with a decision and draft its recording. If recording fails, the endpoint is read again."""
    w.turn.is_stale = True
    key, asked = one.unit.key, one.fetched.asked
    unit = _polled(w, one, comparison, decision)
    growth = growth_of(decision.snapshots, known)
    draft.polls.append(
        poll_record(
            unit,
            decided_members(decision, comparison.members),
            comparison,
            decision,
            growth,
            owns=is_swept(key),
            are_new=one.takes_new,
        )
    )
    seen = _seen(w, one, comparison, decision, unit, known)
    _draft_marks(w, one, comparison, unit, seen, draft)
    if draft.marks.tail_asked_at is UNSET and _loses_tail(w, one, comparison, decision):
        draft.marks.tail_asked_at = None
    is_complete = _sweep(w, one.waiting, seen, draft, unit)
    result = _result(w, one, comparison, decision, seen, swept=is_complete)
    if decision.undecided.clashes:
        _note_clashes(w, decision.undecided.clashes, asked.answered_at, draft)
    if w.guards.exemptions.unlisted.unshown:
        _forget_unshown(w, comparison, draft)
    _remember(w, unit, decision)
    return result


def _note_clashes(w: WatchedEndpoint, ids: Sequence[str], now: float, draft: Draft) -> None:
    """Remember ids that have clashed for the first time."""
    before = w.guards.exemptions
    if new := [object_id for object_id in ids if object_id not in before.clashes]:
        exempt(w, draft, structs.replace(before, clashes={**before.clashes, **dict.fromkeys(new, Clash(now))}))


def _result(
    w: WatchedEndpoint, one: Answer, comparison: PageComparison, decision: Decision, seen: Seen, *, swept: bool
) -> PollResult:
    """The result of the poll."""
    late = _note_late(w, one.unit.key, decision)
    return PollResult(
        calls=one.fetched.calls,
        changed=decision.changed,
        units=UnitNews(
            added=seen.added,
            dropped=seen.dropped,
            tail_moves=[(new, one.unit.key) for new in seen.added if not one.is_last],
        ),
        swept=swept,
        baseline=w.in_baseline,
        snapshots=decision.snapshots,
        created=decision.created,
        suspects=SuspectNews(
            missing=bool(comparison.missing or seen.dropped),
            returned=decision.returned > 0,
            relisted=_relisted(decision) if decision.relisted else (),
        ),
        notes=[*comparison.notes, *decision.notes[:1], *late],
        noisy=w.oddities.noise.observe(one.unit.key, len(comparison.members), decision.updates),
    )


def _note_late(w: WatchedEndpoint, key: str, decision: Decision) -> list[str]:
    """Note what only complete sweeps find, until a sweep finds nothing so."""
    late = None
    if is_swept(key) and not w.in_baseline:
        late = late_changes(w.rules.endpoint, decision.snapshots, w.state.since_at)
    if late is None:
        return []
    w.oddities.notes[LATE], w.oddities.late_in = late, w.state.sweep
    return [late]


def _relisted(decision: Decision) -> list[Snapshot]:
    ids = set(decision.relisted)
    return [snapshot for snapshot in decision.snapshots if snapshot.object_id in ids]


def _polled(w: WatchedEndpoint, one: Answer, comparison: PageComparison, decision: Decision) -> UnitState:
    """The unit's state after the poll."""
    fetched = one.fetched
    is_final = (
        is_certain(comparison) and not decision.undecided.digests and one.repeats is None and one.beyond is None
    )  # whatever other pages show
    return polled_unit(
        one.unit,
        fetched.asked,
        digest=fetched.digest if is_final else None,
        validators=fetched.validators,
        shown=len(decided_members(decision, comparison.members)) + len(undecided_members(decision, comparison.members)),
        next=onward(w, one),
        calls=fetched.calls,
        claims=claims_in(w, one, comparison, decision).dump(),
    )


def _seen(
    w: WatchedEndpoint,
    one: Answer,
    comparison: PageComparison,
    decision: Decision,
    unit: UnitState,
    known: Mapping[str, Snapshot],
) -> Seen:
    """What the poll contributes to the current sweep."""
    following = one.following if one.is_paged else None
    added = [] if following is None or key_of(following) in w.units else [key_of(following)]
    dropped, is_no_page = dropped_by(w, one), _is_no_page(w, one, comparison)
    return Seen(
        key=one.unit.key,
        asked=one.fetched.asked,
        added=added,
        dropped=[*dropped, one.unit.key] if is_no_page else dropped,
        steady=is_certain(comparison)
        and one.fetched.asked.age <= FRESH
        and not (decision.moves or comparison.missing or dropped),
        confirms=not comparison.is_partial
        and (bool(comparison.members) or unit.next is not None or one.repeats is not None or is_no_page),
        nonempty=unit.shown > 0,
        repeated=_repeated(w, decision),
        clashes=decision.undecided.clashes,
        is_new=any(one.object_id not in known for one in decision.snapshots),
    )


def _is_no_page(w: WatchedEndpoint, one: Answer, comparison: PageComparison) -> bool:
    """Whether the unit is no page: the page before it is the last, and nothing was ever shown here."""
    if not one.is_paged or one.unit.shown or comparison.members or one.following is not None:
        return False
    before = w.units.before(one.unit.key)
    is_empty = not comparison.is_partial and (one.repeats is None or one.repeats.follows_last)
    return is_empty and before is not None and claims_of(before).is_last


def _draft_marks(
    w: WatchedEndpoint, one: Answer, comparison: PageComparison, unit: UnitState, seen: Seen, draft: Draft
) -> None:
    """Draft the changes of the endpoint itself."""
    asked = one.fetched.asked
    draft.at, draft.dropped = asked.answered_at, seen.dropped
    first_reading(w, draft, one.unit.key)
    draft.new_units = [(new, unit.next) for new in seen.added] if unit.next is not None else ()
    if unit.next is None and one.is_paged and is_certain(comparison) and unit.shown:
        draft.marks.tail_asked_at = asked.at
    if one.unit.key == SINCE:
        draft.marks.since_at = asked.at - asked.behind


def _loses_tail(w: WatchedEndpoint, one: Answer, comparison: PageComparison, decision: Decision) -> bool:
    """Whether the page that was the last one has lost objects: they may be behind what is shown as new from now on."""
    if w.state.tail_asked_at is None or not one.is_paged:
        return False
    sources = [unit for number in decision.moved_from if (unit := w.units.by_id(number)) is not None]
    losing = [*sources, *([one.unit] if comparison.missing else ())]
    return any(unit.next is None and is_paged(w, unit.key) for unit in losing)


def _repeated(w: WatchedEndpoint, decision: Decision) -> list[str]:
    """Objects that another unit has already shown in this sweep."""
    if not decision.moved_from:
        return []
    return [object_id for unit, ids in decision.moved_from.items() if _is_polled(w, unit) for object_id in ids]


def _is_polled(w: WatchedEndpoint, unit: int) -> bool:
    """Whether a unit was polled in the current sweep."""
    known = w.units.by_id(unit)
    return known is not None and is_swept(known.key) and known.asked_order >= w.sweep.order


def _forget_unshown(w: WatchedEndpoint, comparison: PageComparison, draft: Draft) -> None:
    """An object that is listed again needs no own URL that shows it."""
    known = w.guards.exemptions.with_shown({*comparison.members.values()})
    if known != w.guards.exemptions:
        exempt(w, draft, known)


def _remember(w: WatchedEndpoint, unit: UnitState, decision: Decision) -> None:
    w.put(unit)
    before = None if unit.shown or not is_paged(w, unit.key) else w.units.before(unit.key)
    if before is not None and claims_of(before).is_last:
        w.units.invalidate([before.id])  # it is polled again, and drops later pages that are empty
    w.guards.quarantine.pop(unit.key, None)
    w.units.invalidate(decision.moved_from)
    w.oddities.note(unit)
    w.unchanged.pop(unit.id, None)
