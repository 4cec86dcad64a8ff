"""Confirmation of deletions, by the objects' own URLs or by complete sweeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from msgspec import structs

from poller.changes.comparison import RequestTimes
from poller.changes.decide import delete
from poller.changes.decision import Decision
from poller.changes.own_url import OwnAnswer, read_own
from poller.changes.recording import growth_of
from poller.clock import Clock
from poller.polling.answer import absent_since
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint, exempt, may_delete
from poller.polling.fetch import Fetcher
from poller.polling.holds import holds_deletion
from poller.polling.independent_sweeps import IndependentSweeps
from poller.polling.own_urls import GONE, Control, OwnUrls
from poller.polling.recorder import MOST_TRIES, Recorder
from poller.polling.results import PollResult
from poller.polling.suspects import SuspectQueue, asked_at, is_proved
from poller.polling.threads import Apart
from poller.polling.unit_keys import CHILD, is_swept, parent_of
from state.errors import Conflict
from state.notices import Notice
from state.polls import Answering, PollRecord, Presence, Snapshot, Suspect

SWEEPS_TO_CONFIRM: Final = 3  # the one in which it went missing, then two complete ones without it
AGAIN: Final = 5.0  # seconds after which an own URL is asked again while it is in doubt
UNPROVED: Final = 60.0  # ... and while the own URL of an object that is listed answers without it

P = ParamSpec("P")
T = TypeVar("T")


class Deletions:
    """Confirms the deletions of one source."""

    def __init__(self, fetcher: Fetcher, recorder: Recorder, apart: Apart, clock: Clock) -> None:
        self.queue = SuspectQueue()
        # By endpoint and id: when an object went missing that its own URL shows, and whose deletion the list decides.
        self._unlisted: dict[tuple[str, str], float] = {}
        self._own_urls = OwnUrls(fetcher, recorder, apart)
        self._sweeps = IndependentSweeps()
        self._fetcher = fetcher
        self._recorder = recorder
        self._apart = apart
        self._clock = clock

    async def look(self, w: WatchedEndpoint, result: PollResult) -> bool:
        """Queue missing objects. False if no own URL is to be requested."""
        now = self._clock.now()
        if result.suspects.relisted:
            self.queue.add_listed(w.name, result.suspects.relisted, now=now)
        if not self.queue.is_to_be_read(w.name, result):
            return True
        found = await self._recorder.steps.read(self._recorder.store.suspects, w.state.id)
        have_own_urls = await self._with_own_urls(w, found)
        w.sweeps_decide = len(have_own_urls) < len(found)
        return self.queue.fill(w.name, have_own_urls, w.rules.deletion, now=now)

    async def _with_own_urls(self, w: WatchedEndpoint, suspects: list[Suspect]) -> list[Suspect]:
        """The objects whose own URL decides about their deletion."""
        asked = [one for one in suspects if not self._is_unlisted(w, one)]
        requests = await self._own_urls.requests(w, [one.snapshot for one in asked])
        return [one for one, request in zip(asked, requests, strict=True) if request is not None]

    def _is_unlisted(self, w: WatchedEndpoint, suspect: Suspect) -> bool:
        """Whether the object's own URL has answered since it went missing, while the list decides."""
        return self._unlisted.get((w.name, suspect.snapshot.object_id)) == suspect.missing_at

    async def confirm(self, w: WatchedEndpoint, suspect: Suspect) -> PollResult:
        """Request an object's own URL: 404 and 410 confirm the deletion of a suspect. Raises FetchError."""
        snapshot = suspect.snapshot
        if snapshot.presence is Presence.PRESENT:
            result = await self._own_urls.check(w, snapshot)
            if self._own_urls.is_in_doubt(w):
                self.queue.again(w.name, suspect, self._clock.now() + AGAIN)
            return result
        request = await self._own_urls.request(w, snapshot)
        if request is None:
            return PollResult()
        if await self._own_urls.must_wait(w, suspect):
            self.queue.again(w.name, suspect, self._clock.now() + AGAIN)
            return PollResult()
        control = Control(is_right=True)
        if suspect.denied_at is not None and not (control := await self._controlled(w, suspect)).is_right:
            return PollResult(calls=control.calls)
        with w.requests.asking(f"item {snapshot.object_id}") as order:
            response, asked = await self._fetcher.fetch_item(w, request, order)
            if response.status_code in GONE:
                result = await self._denied(w, suspect, asked)
            else:
                own = await self._own_urls.shown(w, snapshot, response)
                result = await self._in_turn(w, lambda: self._answered(w, suspect, own, asked))
        result.calls += control.calls
        return result

    async def _denied(self, w: WatchedEndpoint, suspect: Suspect, asked: RequestTimes) -> PollResult:
        """A suspect's own URL says that it is gone: report the deletion, or ask again if that is no proof yet."""
        rules = w.rules.deletion
        if not is_proved(suspect, rules, asked=asked.at):
            at, object_id = asked.answered_at, suspect.snapshot.object_id
            denied = Answering(object_id=object_id, checks=suspect.checks, is_denied=True)
            await self._recorder.change(w, lambda: Draft(at=at, answering=[denied]))
            first = structs.replace(suspect, denied_at=at)
            self.queue.again(w.name, first, asked_at(first, rules, now=at))
            return PollResult(calls=1)
        if suspect.denied_at is None:
            control = await self._controlled(w, suspect)
            if control.is_right and control.calls:  # known only after this answer: asked once more
                self.queue.again(w.name, suspect, self._clock.now())
            if control.calls or not control.is_right:
                return PollResult(calls=1 + control.calls)
        return await self.delete(w, suspect, asked, is_denied=True)

    async def _controlled(self, w: WatchedEndpoint, suspect: Suspect) -> Control:
        """Whether own URLs can be believed about a suspect; if not, it is asked again later."""
        now = self._clock.now()
        control = await self._own_urls.control(w, suspect, now=now)
        if not control.is_right:
            self.queue.again(w.name, suspect, now + (AGAIN if self._own_urls.is_in_doubt(w) else UNPROVED))
        return control

    async def swept(self, w: WatchedEndpoint) -> list[PollResult]:
        """After a complete sweep, report suspects that two further sweeps did not show, if sweeps decide.

        A sweep in which a unit was answered with 304 has not seen the whole list and confirms nothing.
        """
        if w.state.last_sweep_began is not None and w.state.last_sweep is not None:
            self._sweeps.add(w.name, began=w.state.last_sweep_began, ended=w.state.last_sweep)
        if not may_delete(w):
            return []
        if (listed := await self._own_urls.to_try_again(w, self._clock.steady())) is not None:
            self.queue.add_listed(w.name, [listed], now=self._clock.now())
        if any(in_a_row and is_swept(key) for key, in_a_row in w.requests.unmodified.items()):
            return []
        suspects = await self._recorder.steps.read(self._recorder.store.suspects, w.state.id)
        due = [
            one
            for one in suspects
            if _is_swept_away(w, one, now=self._clock.now()) and self._sweeps.are_two_since(w.name, one.missing_at)
        ]
        have_own_urls = {one.snapshot.object_id for one in await self._with_own_urls(w, due)}
        now, order = self._clock.now(), w.requests.next()
        asked = RequestTimes(
            at=w.state.last_sweep_began or 0.0, answered_at=now, order=w.sweep.order, answered_order=order
        )
        return [await self.delete(w, one, asked) for one in due if one.snapshot.object_id not in have_own_urls]

    async def delete(
        self, w: WatchedEndpoint, suspect: Suspect, asked: RequestTimes, *, is_denied: bool = False
    ) -> PollResult:
        """Record a confirmed deletion, unless the object was seen meanwhile or too many objects are gone at once.

        `is_denied`: its own URL has confirmed the deletion, rather than its absence from the list.
        """
        return await self._in_turn(w, lambda: self._deleted(w, suspect, asked, None, is_denied=is_denied))

    async def _in_turn(self, w: WatchedEndpoint, step: Callable[[], Awaitable[PollResult]]) -> PollResult:
        """Run the step within a turn of the endpoint; repeat it if its base has changed."""
        async with w.turn.lock:
            for _ in range(MOST_TRIES):
                await self._recorder.refresh(w)
                try:
                    return await step()
                except Conflict:
                    continue
        raise Conflict(f"{w.label}: changed during each of {MOST_TRIES} attempts to record the answer of an own URL")

    async def _known(self, w: WatchedEndpoint, suspect: Suspect, asked: RequestTimes) -> Suspect | None:
        """The current suspect; None if the object was seen meanwhile."""
        object_id = suspect.snapshot.object_id
        now = (await self._recorder.snapshots(w, [object_id])).get(object_id)
        if now is None or not _is_deletable(w, now, asked):
            return None
        return structs.replace(suspect, snapshot=now)

    async def _deleted(
        self,
        w: WatchedEndpoint,
        suspect: Suspect,
        asked: RequestTimes,
        shown: Mapping[str, Any] | None,
        *,
        is_denied: bool,
    ) -> PollResult:
        """Record a deletion. `shown` is the object as its own URL shows it, if `deleted_when` is true of it."""
        result = PollResult(calls=1)
        gone = await self._known(w, suspect, asked)
        if gone is None:
            return result
        draft, steady = Draft(at=asked.answered_at), self._clock.steady()
        suspects = await self._recorder.suspect_count(w)
        if holds_deletion(w, draft, suspects, now=asked.answered_at, steady=steady, is_denied=is_denied):
            result.events = (await self._recorder.record(w, draft)).notices
            return result
        absent_at = _absent_at(w, gone) if is_denied and shown is None else asked.at
        decision = await _called(self._apart, w, delete, w.rules, gone, asked, now=shown, absent_at=absent_at)
        if (known := w.guards.exemptions.with_shown([gone.snapshot.object_id])) != w.guards.exemptions:
            exempt(w, draft, known)
        await self._record(w, draft, gone, decision, asked, result)
        w.turnover.deleted(steady)
        self._unlisted.pop((w.name, gone.snapshot.object_id), None)
        return result

    async def _answered(
        self, w: WatchedEndpoint, suspect: Suspect, own: Mapping[str, Any] | None, asked: RequestTimes
    ) -> PollResult:
        """Record what follows from an own URL that did not confirm the deletion."""
        result = PollResult(calls=1)
        known = await self._known(w, suspect, asked)
        if known is None:
            return result
        found: OwnAnswer | None = (
            None if own is None else await _called(self._apart, w, read_own, w.rules, known, own, asked)
        )
        if found is not None and found.is_deleted:
            return await self._deleted(w, suspect, asked, found.now, is_denied=True)
        if found is not None and w.rules.deletion.unlisted == "deleted":
            self._unlisted[w.name, known.snapshot.object_id] = suspect.missing_at
            return result
        draft = self._draft_answering(w, known, asked, is_listed_nowhere=found is not None and known.checks > 0)
        decision = Decision() if found is None else found.decision
        await self._record(w, draft, known, decision, asked, result)
        return result

    def _draft_answering(
        self, w: WatchedEndpoint, known: Suspect, asked: RequestTimes, *, is_listed_nowhere: bool
    ) -> Draft:
        """Draft that an object is no longer a suspect. After its first answer two complete sweeps have not shown it."""
        object_id, exemptions = known.snapshot.object_id, w.guards.exemptions
        answering = Answering(object_id=object_id, checks=known.checks + 1, is_unlisted=is_listed_nowhere)
        draft = Draft(at=asked.answered_at, answering=[answering])
        if is_listed_nowhere and not exemptions.unlisted.is_reported:
            exempt(
                w, draft, structs.replace(exemptions, unlisted=structs.replace(exemptions.unlisted, is_reported=True))
            )
            draft.notices.append(_unlisted_notice(w, object_id, asked.answered_at))
        return draft

    async def _record(
        self,
        w: WatchedEndpoint,
        draft: Draft,
        known: Suspect,
        decision: Decision,
        asked: RequestTimes,
        result: PollResult,
    ) -> None:
        """Record the decision on one object, and put it into the result."""
        object_id, snapshots = known.snapshot.object_id, decision.snapshots
        if snapshots:
            growth = growth_of(snapshots, {object_id: known.snapshot})
            draft.polls.append(PollRecord(growth=growth, snapshots=snapshots, events=decision.events))
        recorded = await self._recorder.record(w, draft)
        if snapshots:
            w.requests.remember([object_id], asked)
        events = recorded.events[0] if snapshots else ()
        result.events, result.changed, result.snapshots = [*events, *recorded.notices], len(snapshots), snapshots


def _is_swept_away(w: WatchedEndpoint, suspect: Suspect, *, now: float) -> bool:
    """Whether complete sweeps, the latest of which began late enough, did not show a suspect without an own URL."""
    if suspect.missing_sweep + SWEEPS_TO_CONFIRM > w.state.sweep:
        return False
    if suspect.missing_at > now:
        return True  # the clock was wrong when it went missing: sweeps decide
    certain = w.guards.exemptions.certain_since or 0.0
    since = max(
        suspect.missing_at, certain if certain <= now else 0.0
    )  # an uncertain sweep did not miss it for certain
    return (w.state.last_sweep_began or 0.0) >= since + w.rules.deletion.missing_time(has_own_url=False)


def _absent_at(w: WatchedEndpoint, suspect: Suspect) -> float:
    """When the list certainly did not show a suspect: its own URL alone may be wrong about that."""
    object_id, seen_at = suspect.snapshot.object_id, suspect.snapshot.seen_at
    unit = w.units.get(f"{CHILD}{parent_of(object_id)}") if w.is_child else None
    return max(seen_at, absent_since(w, unit) or seen_at)


def _is_deletable(w: WatchedEndpoint, now: Snapshot, asked: RequestTimes) -> bool:
    is_suspect = now.presence is Presence.SUSPECT
    return may_delete(w) and is_suspect and w.requests.changed.get(now.object_id, 0) <= asked.order


async def _called(apart: Apart, w: WatchedEndpoint, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function; in the source's thread if plugin code takes part."""
    return await apart(work, *args, **kwargs) if w.rules.runs_plugins else work(*args, **kwargs)


def _unlisted_notice(w: WatchedEndpoint, object_id: str, now: float) -> Notice:
    kept = {"keep": "kept as it was last listed", "updated": "compared with what its own URL shows"}
    return Notice(
        kind="endpoint.unlisted",
        subject=f"endpoints/{w.label}",
        summary=f"{object_id} is no longer in the list of {w.label} and still answers under its own URL. It is "
        f"{kept.get(w.rules.deletion.unlisted, 'deleted')}, and so is every further one. See `unlisted`.",
        detail={"object": object_id, "unlisted": w.rules.deletion.unlisted},
        time=now,
    )
