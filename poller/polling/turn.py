"""A turn of one endpoint: what is known is read, answers are decided on, and everything is recorded at once.

Answers that wait at the same time share a turn, and so a commit, as long as none depends on what another one changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Concatenate, Final, ParamSpec, TypeVar

from msgspec import structs

from poller.changes.comparison import PageComparison
from poller.changes.decide import decide, is_known
from poller.changes.decision import Decision
from poller.changes.endpoint_rules import EndpointRules
from poller.changes.guards import Quarantined
from poller.changes.many_missing import is_most
from poller.changes.page import compare, digests_of, gathered
from poller.changes.quarantine import REPLACED, keep_aside, others_agree
from poller.polling.answer import (
    Answer,
    apply,
    beyond,
    clashes_in,
    context_of,
    dropped_by,
    is_endless,
    is_late,
    is_paged,
    is_strange,
    note_known,
    repeated_page,
    take_unchanged,
    takes_new,
    unchanged,
)
from poller.polling.draft import Draft
from poller.polling.endpoint import PendingAnswer, WatchedEndpoint
from poller.polling.holds import accept_shift, missing_objects, recount
from poller.polling.recorder import MOST_TRIES, Recorder
from poller.polling.results import PollResult
from poller.polling.threads import LARGE, Apart
from poller.polling.unit_keys import id_prefix, is_swept
from state.errors import Conflict
from state.polls import Snapshot, UnitState, Wanted

P = ParamSpec("P")
T = TypeVar("T")

MOST_AT_ONCE: Final = 24  # answers in one turn


class Turns:
    """The turns of one source's endpoints."""

    def __init__(self, recorder: Recorder, apart: Apart) -> None:
        self._recorder = recorder
        self._apart = apart

    async def settle(self, w: WatchedEndpoint, waiting: PendingAnswer) -> PollResult:
        """Record what a poll showed. Raises PageError if it cannot be used, or StateError; then nothing is recorded."""
        result = take_unchanged(w, waiting)
        if result is not None:
            return result
        try:
            await w.turn.join(waiting)
            for _ in range(MOST_TRIES):
                if waiting.is_over:
                    break
                async with w.turn.lock:
                    await self._take(w)
        finally:
            w.turn.leave(waiting)
        if waiting.error is not None:
            raise waiting.error
        if waiting.result is not None:
            return waiting.result
        raise Conflict(f"{w.label}: changed during each of {MOST_TRIES} attempts to record a poll")

    async def _take(self, w: WatchedEndpoint) -> None:
        """Read, decide and record for the waiting answers. Some may be left for the next turn."""
        await self._recorder.refresh(w)
        queue, draft = w.turn.waiting, Draft(at=0.0)
        batch = [queue.popleft() for _ in range(min(len(queue), MOST_AT_ONCE))]
        results: list[tuple[PendingAnswer, PollResult, int | None]] = []
        try:
            written: set[str] = set()  # ids of new and changed objects
            for one in await self._compared(w, batch):
                before = len(draft.polls)
                try:
                    result = await self._decided(w, one, draft, written)
                except Exception as error:  # noqa: BLE001 - of this answer alone: raised where its poll waits
                    one.waiting.error, w.turn.is_stale = error, True
                    return
                if result is None:
                    break  # it depends on an earlier decision, which must be recorded first
                is_recorded = len(draft.polls) > before
                results.append((one.waiting, result, before if is_recorded else None))
                if draft.changes_endpoint or (is_recorded and not draft.polls[-1].stays_within_unit):
                    break  # the following answers depend on it
            recorded = await self._recorder.record(w, draft)
            for waiting, result, at in results:
                result.events = () if at is None else recorded.events[at]
                waiting.result = result
                w.requests.remember([one.object_id for one in result.snapshots], waiting.fetched.asked)
            if results and recorded.notices:
                last = results[-1][1]
                last.events = [*last.events, *recorded.notices]
        except Conflict:  # read and decide again in the next turn
            w.turn.looks_up = True
        finally:
            queue.extendleft(waiting for waiting in reversed(batch) if not waiting.is_over)
            for waiting in batch:
                if waiting.is_over:
                    waiting.wake()

    async def _compared(self, w: WatchedEndpoint, batch: Sequence[PendingAnswer]) -> list[Answer]:
        """The answers with what is known of their objects. An answer that cannot be used is over."""
        found, wanted = [], []
        for waiting in batch:
            unit = w.units.get(waiting.key)
            if unit is None or is_late(unit, waiting.fetched):
                waiting.result = PollResult(calls=waiting.fetched.calls, aside=True)
                continue
            try:
                one = await self._prepared(w, waiting, unit)
            except Exception as error:  # noqa: BLE001 - of this answer alone: raised where its poll waits
                waiting.error = error
                continue
            found.append(one)
            one.takes_new = waiting.fetched.pages is not None and takes_new(w, unit)
            if one.takes_new:
                continue
            if waiting.fetched.pages is not None or w.guards.recount is not None:
                ids = [shown.object_id for shown in one.comparison.fresh] if one.comparison is not None else ()
                asked = Wanted(unit=unit.id, digests=one.digests, ids=ids, with_members=unit.shown > 0)
                wanted.append((one, asked))
        if wanted:
            known = await self._recorder.known(w, [asked for _, asked in wanted])
            for (one, _), what in zip(wanted, known, strict=True):
                one.known = what
        return found

    async def _prepared(self, w: WatchedEndpoint, waiting: PendingAnswer, unit: UnitState) -> Answer:
        pages = waiting.fetched.pages
        paged = is_paged(w, unit.key)
        one = Answer(waiting=waiting, unit=unit, is_paged=paged)
        if pages is not None:
            if pages:
                one.beyond = beyond(w, unit, pages[-1])
            one.objects = await self._call(one, gathered, w.rules, pages)
            one.is_endless = is_endless(w, one)
            one.digests = digests_of(w.rules, one.objects)
            if not unit.shown:
                one.comparison = await self._call(
                    one, compare, w.rules, one.objects, {}, one.digests, id_prefix(one.unit.key)
                )
        return one

    async def _call(
        self,
        one: Answer,
        work: Callable[Concatenate[EndpointRules, P], T],
        rules: EndpointRules,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do some work on an answer, off the event loop if it is large or handled by plugin code."""
        if rules.runs_plugins or one.fetched.size > LARGE:
            return await self._apart(work, rules, *args, **kwargs)
        return work(rules, *args, **kwargs)

    async def _decided(self, w: WatchedEndpoint, one: Answer, draft: Draft, written: set[str]) -> PollResult | None:
        """Decide on one answer, and update memory as if that were recorded; None if it depends on `written` objects."""
        if one.fetched.pages is None:
            return unchanged(w, one, draft)
        comparison = one.comparison
        if comparison is None or one.known.members:
            before, prefix = one.known.members, id_prefix(one.unit.key)
            comparison = await self._call(one, compare, w.rules, one.objects, before, one.digests, prefix)
        if not is_swept(one.unit.key) or not one.fetched.complete:
            comparison = structs.replace(comparison, missing=())
        ids = [shown.object_id for shown in comparison.fresh]
        if not written.isdisjoint(ids):
            return None
        known = await self._snapshots(w, one, ids)
        one.repeats = repeated_page(w, one, comparison, known, partial(is_known, w.rules))
        if one.repeats is not None:
            comparison = structs.replace(comparison, members={}, fresh=())
        if await self._is_counted(w, one, comparison, known):
            shown = await self._recorder.snapshots(w, list(dict.fromkeys(comparison.members.values())))
            recount(w, draft, one.unit.key, one.fetched, shown)
            return PollResult(calls=one.fetched.calls, aside=True, notes=comparison.notes)
        decision = await self._decision(w, one, comparison, known, draft)
        if decision is None:
            return PollResult(calls=one.fetched.calls, aside=True, notes=comparison.notes)
        note_known(w, one, comparison, decision)
        written.update(ids)
        return apply(w, one, comparison, known, decision, draft)

    async def _snapshots(self, w: WatchedEndpoint, one: Answer, ids: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots of the objects that are new to the unit."""
        found = one.known.snapshots
        known = {object_id: found[object_id] for object_id in ids if object_id in found} if found else {}
        if (one.comparison is None or one.known.members) and len(known) < len(ids):
            more = [object_id for object_id in ids if object_id not in known]
            known |= await self._recorder.snapshots(w, more)
        return known

    async def _is_counted(
        self, w: WatchedEndpoint, one: Answer, comparison: PageComparison, known: Mapping[str, Snapshot]
    ) -> bool:
        """Whether the answer is only counted, because too many objects are missing."""
        guards = w.guards
        if guards.recount is not None:
            return True
        missing = missing_objects(w, comparison, known, dropped_by(w, one))
        if missing and is_most(missing + await self._recorder.suspect_count(w), w.state.objects):
            return True
        agreed = bool(guards.quarantine) and others_agree(guards.quarantine, one.unit.key, REPLACED)
        return agreed and is_strange(w, one, comparison, known)

    async def _decision(
        self, w: WatchedEndpoint, one: Answer, comparison: PageComparison, known: Mapping[str, Snapshot], draft: Draft
    ) -> Decision | None:
        """What the answer changes; None if the page is set aside."""
        context = context_of(w, one, comparison, known)
        decision = await self._call(one, decide, w.rules, comparison, known, context)
        if clashing := clashes_in(w, one, decision, known):
            context = structs.replace(context, clashing=clashing)
            decision = await self._call(one, decide, w.rules, comparison, known, context)
        asked, guards = one.fetched.asked, w.guards
        if decision.shift is not None and decision.shift.is_torn:
            if one.unit.key not in guards.quarantine:
                guards.quarantine[one.unit.key] = Quarantined(decision.shift, asked.order, asked.order)
                return None  # the next poll shows whether the whole list has this form
            decision.shift = None
        shift = REPLACED if is_strange(w, one, comparison, known) else decision.shift
        if shift is not None and keep_aside(guards.quarantine, one.unit.key, shift, asked.order, w.units.swept()):
            return None
        if (decision.shift is not None or guards.quarantine) and accept_shift(
            w, draft, one.unit.key, comparison, known, decision, now=asked.answered_at
        ):
            context = structs.replace(context_of(w, one, comparison, known), clashing=clashing)
            return await self._call(one, decide, w.rules, comparison, known, context)
        return decision
