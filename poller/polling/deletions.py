"""Deletions: suspects are confirmed by their own URL, or by complete sweeps that do not show them."""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Final

import httpx
import msgspec
from msgspec import structs

from poller.changes.decide import delete
from poller.changes.page import RequestTimes
from poller.changes.recording import growth_of
from poller.clock import Clock
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.fetch import Fetcher, unwelcome
from poller.polling.holds import holds_deletion
from poller.polling.recorder import MOST_TRIES, Draft, Recorder
from poller.polling.results import PollResult
from poller.polling.threads import Apart
from state.errors import Conflict
from state.polls import PollRecord, Presence, Snapshot, Suspect

GONE: Final = frozenset({404, 410})
SWEEPS_TO_CONFIRM: Final = 3  # the one in which it went missing, then two complete ones without it


def may_delete(w: WatchedEndpoint) -> bool:
    """Whether deletions are reported at all now."""
    return w.rules.deletes and w.guards.recount is None and not w.in_baseline


class Queued(msgspec.Struct, frozen=True):
    """A suspect whose own URL is to be asked."""

    due: float  # not before: it has not been missing for long enough
    suspect: Suspect


class Deletions:
    """Confirms the deletions of one source."""

    def __init__(self, fetcher: Fetcher, recorder: Recorder, apart: Apart, clock: Clock) -> None:
        self.waiting: dict[str, deque[Queued]] = {}  # by endpoint, the first one due first
        self.confirming: set[tuple[str, str]] = set()  # endpoint and id of those that are being asked for
        self._stale: set[str] = set()  # endpoints whose suspects are to be read again
        self._fetcher = fetcher
        self._recorder = recorder
        self._apart = apart
        self._clock = clock

    def is_due(self, endpoint: str, now: float) -> bool:
        """Whether a suspect of the endpoint is to be asked for now."""
        waiting = self.waiting.get(endpoint)
        return waiting is not None and len(waiting) > 0 and waiting[0].due <= now

    def due_after(self, at: float) -> float | None:
        """When a suspect is to be asked for next, after that time; None: there is none."""
        return min((queue[0].due for queue in self.waiting.values() if queue and queue[0].due > at), default=None)

    def next(self, endpoint: str, now: float) -> Suspect | None:
        """A suspect to be asked for now, taken: `finished` gives it back."""
        waiting = self.waiting.get(endpoint)
        while waiting and waiting[0].due <= now:
            suspect = waiting.popleft().suspect
            name = endpoint, suspect.snapshot.object_id
            if name not in self.confirming:
                self.confirming.add(name)
                return suspect
        return None

    def finished(self, endpoint: str, suspect: Suspect) -> None:
        """A suspect was asked for, or could not be."""
        self.confirming.discard((endpoint, suspect.snapshot.object_id))
        if not self.waiting.get(endpoint):
            self._stale.add(endpoint)

    def forget(self, endpoint: str) -> None:
        """Read the suspects of an endpoint again, later."""
        self.waiting.pop(endpoint, None)
        self._stale.add(endpoint)

    async def look(self, w: WatchedEndpoint, result: PollResult) -> bool:
        """Queue what went missing. False: nothing is left whose own URL would be asked."""
        name = w.name
        if self.waiting.get(name):
            is_over = not result.returned  # those that were shown again need not be asked for
        else:
            is_over = not (result.missing or result.swept or name in self._stale)
        if is_over:
            return True
        found = await self._recorder.steps.read(self._recorder.store.suspects, w.state.id)
        self._stale.discard(name)
        now, wait = self._clock.now(), w.rules.missing_time(has_own_url=True)
        queue = [
            Queued(min(suspect.missing_at, now) + wait, suspect)  # a later time is of a clock that was wrong
            for suspect in found
            if (name, suspect.snapshot.object_id) not in self.confirming
            and self._fetcher.item_request(w, suspect) is not None
        ]
        self.waiting[name] = deque(sorted(queue, key=attrgetter("due")))
        return bool(queue) or any(endpoint == name for endpoint, _ in self.confirming)

    async def confirm(self, w: WatchedEndpoint, suspect: Suspect) -> PollResult:
        """Ask for a suspect's own URL: 404 and 410 confirm its deletion. Raises FetchError."""
        request = self._fetcher.item_request(w, suspect)
        if request is None:
            return PollResult()
        object_id = suspect.snapshot.object_id
        with w.requests.asking(f"item {object_id}") as order:
            response, asked = await self._fetcher.fetch_item(w, request, order)
            if response.status_code in GONE:
                return await self.delete(w, suspect, asked)
            if response.is_success or response.status_code == httpx.codes.FORBIDDEN:
                found = [(object_id, suspect.checks + 1)]
                await self._recorder.change(w, lambda: Draft(at=asked.at, present=found))
                return PollResult(calls=1)
            raise unwelcome(response)

    async def swept(self, w: WatchedEndpoint) -> list[PollResult]:
        """After a complete sweep: report the suspects without an own URL that two more complete sweeps did not show."""
        if not may_delete(w):
            return []
        suspects = await self._recorder.steps.read(self._recorder.store.suspects, w.state.id)
        due = [one for one in suspects if self._is_proved(w, one)]
        now, order = self._clock.now(), w.requests.next()
        asked = RequestTimes(
            at=w.state.last_sweep_began or 0.0, answered_at=now, order=w.sweep.order, answered_order=order
        )
        return [
            await self.delete(w, suspect, asked) for suspect in due if self._fetcher.item_request(w, suspect) is None
        ]

    async def delete(self, w: WatchedEndpoint, suspect: Suspect, asked: RequestTimes) -> PollResult:
        """Record a confirmed deletion, unless the object was seen meanwhile or too many are gone at once."""
        async with w.turn.lock:
            for _ in range(MOST_TRIES):
                await self._recorder.refresh(w)
                try:
                    return await self._deleted(w, suspect, asked)
                except Conflict:
                    continue
        raise Conflict(f"{w.label}: has changed at each of {MOST_TRIES} attempts to record a deletion")

    async def _deleted(self, w: WatchedEndpoint, suspect: Suspect, asked: RequestTimes) -> PollResult:
        object_id, result = suspect.snapshot.object_id, PollResult(calls=1)
        now = (await self._recorder.snapshots(w, [object_id])).get(object_id)
        if now is None or not self._is_deletable(w, now, asked):
            return result
        draft, steady = Draft(at=asked.answered_at), self._clock.steady()
        suspects = await self._recorder.suspect_count(w)
        if holds_deletion(w, draft, suspects, now=asked.answered_at, steady=steady):
            result.events = (await self._recorder.record(w, draft)).notices
            return result
        gone = structs.replace(suspect, snapshot=now)
        if w.rules.runs_plugins:
            decision = await self._apart(delete, w.rules, gone, asked)
        else:
            decision = delete(w.rules, gone, asked)
        growth = growth_of(decision.snapshots, {object_id: now})
        draft.polls.append(PollRecord(growth=growth, snapshots=decision.snapshots, events=decision.events))
        recorded = await self._recorder.record(w, draft)
        w.guards.deletions.append(steady)
        w.requests.remember([object_id], asked.answered_order)
        result.events, result.changed, result.snapshots = recorded.events[0], 1, decision.snapshots
        return result

    def _is_proved(self, w: WatchedEndpoint, suspect: Suspect) -> bool:
        """Whether complete sweeps, the latest of them begun late enough, did not show a suspect without an own URL."""
        if suspect.missing_sweep + SWEEPS_TO_CONFIRM > w.state.sweep:
            return False
        if suspect.missing_at > self._clock.now():
            return True  # a time of a clock that was wrong: the sweeps decide
        began = w.state.last_sweep_began or 0.0
        return began >= suspect.missing_at + w.rules.missing_time(has_own_url=False)

    @staticmethod
    def _is_deletable(w: WatchedEndpoint, now: Snapshot, asked: RequestTimes) -> bool:
        is_suspect = now.presence is Presence.SUSPECT
        return may_delete(w) and is_suspect and w.requests.changed.get(now.object_id, 0) <= asked.order
