"""Own URLs of objects: their requests, their answers, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx
import msgspec
from msgspec import structs

from poller.changes.comparison import RequestTimes
from poller.changes.exemptions import Exemptions, Misleading
from poller.changes.own_url import own_object
from poller.documents.diff import ParseError, parse
from poller.polling.ask import PASSING
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint, exempt
from poller.polling.fetch import Fetcher, unwelcome
from poller.polling.recorder import Recorder
from poller.polling.results import PollResult
from poller.polling.threads import LARGE, Apart
from poller.polling.unit_keys import own_id
from poller.sources.statuses import is_list, is_refusal
from poller.sources.urls import shown_url
from state.notices import Notice
from state.polls import Presence, Snapshot, Suspect

GONE: Final = frozenset({404, 410})
NO_OWN_URL: Final = "; if that means that it is gone, remove item_path: then complete sweeps confirm deletions"
HOUR: Final = 3600.0  # seconds
NEVER: Final = float("-inf")


class Denial(msgspec.Struct, frozen=True):
    """An own URL has said once that an object is gone that its list showed."""

    object_id: str
    order: int  # of the answer


class Control(msgspec.Struct, frozen=True):
    """Whether own URLs can be believed about a suspect, and the calls that were needed to know."""

    is_right: bool
    calls: int = 0


class OwnUrls:
    """The own URLs of one source's objects."""

    def __init__(self, fetcher: Fetcher, recorder: Recorder, apart: Apart) -> None:
        self._fetcher = fetcher
        self._recorder = recorder
        self._apart = apart
        self._checked: set[str] = set()  # endpoints whose misleading URL was checked against the configuration
        self._right: dict[str, float] = {}  # by endpoint: when the own URL of an object that is listed showed it
        self._denials: dict[str, Denial] = {}  # by endpoint: of an object that is listed
        self._try_at: dict[str, float] = {}  # by endpoint: steady time at which own URLs are tried again
        self._looking: set[str] = set()  # endpoints for which the own URL of a listed object is being requested

    async def requests(self, w: WatchedEndpoint, snapshots: Sequence[Snapshot]) -> list[httpx.Request | None]:
        """The request for each object's own URL; None if it has none that can be trusted, so that complete sweeps
        decide.
        """
        if w.guards.exemptions.misleading is not None and not await self._is_another(w):
            return [None] * len(snapshots)
        return await self._fetcher.item_requests(w, snapshots)

    async def request(self, w: WatchedEndpoint, snapshot: Snapshot) -> httpx.Request | None:
        """The request for one object's own URL."""
        return (await self.requests(w, [snapshot]))[0]

    async def must_wait(self, w: WatchedEndpoint, suspect: Suspect) -> bool:
        """Whether a suspect's own URL is not asked yet: no own URL has proved right, and the list shows no object of
        which one could be asked. Then a whole sweep must have looked for it.
        """
        if w.label in self._right or _is_looked_for(w, suspect) or self.is_in_doubt(w):
            return False
        return await self._to_be_asked(w) is None

    async def control(self, w: WatchedEndpoint, suspect: Suspect, *, now: float) -> Control:
        """Whether own URLs know what its list shows: that of a listed object must have been right since a suspect's
        first denied it or, if it is asked once, since it went missing.

        Else a wrong `item_path`, or a server that answers 404 to everything for a while, would confirm whatever is
        missing. Where the list shows nothing, none is asked, and a whole sweep must have looked for the suspect.
        Call it before a second request: what is right only after both denials says nothing about them.
        """
        since = min(suspect.denied_at or suspect.missing_at, now)  # a time in the future is of a clock that was wrong
        if self._right.get(w.label, NEVER) >= since:
            return Control(is_right=True)
        listed = await self._to_be_asked(w)
        if listed is None:
            return Control(is_right=not self.is_in_doubt(w) and _is_looked_for(w, suspect))
        looked = await self._look(w, listed)
        return Control(is_right=self._right.get(w.label, NEVER) >= since, calls=looked.calls)

    async def check(self, w: WatchedEndpoint, listed: Snapshot) -> PollResult:
        """Ask the own URL of an object that is listed again after its deletion: it may be wrong after all."""
        asked = await self._to_be_asked(w) if self.is_in_doubt(w) else listed
        return PollResult() if asked is None else await self._look(w, asked)

    async def to_try_again(self, w: WatchedEndpoint, steady: float) -> Snapshot | None:
        """An object that its list shows, where no own URL is believed, or that of this object has answered without it:
        each hour one is asked whether that is over.

        Where the list shows nothing, an object that is missing: if its own URL shows it, own URLs are right again.
        """
        if steady < self._try_at.get(w.label, steady):
            return None
        if w.guards.exemptions.misleading is None:
            unshown = await self._recorder.snapshots(w, [*w.guards.exemptions.unlisted.unshown])
            listed = next(filter(_is_listed, unshown.values()), None)
            if listed is not None:
                self._try_at[w.label] = steady + HOUR
            return listed
        self._try_at[w.label] = steady + HOUR
        listed = await self._recorder.steps.read(self._recorder.store.listed, w.state.id)
        if listed is not None:
            return listed
        suspects = await self._recorder.steps.read(self._recorder.store.suspects, w.state.id, limit=1)
        return suspects[0].snapshot if suspects else None

    def is_in_doubt(self, w: WatchedEndpoint) -> bool:
        """Whether an own URL has denied an object that its list showed, or is being asked."""
        return w.label in self._denials or w.label in self._looking

    async def _to_be_asked(self, w: WatchedEndpoint) -> Snapshot | None:
        """An object that its list shows, and has shown since it was denied. None: there is none, or not yet."""
        if w.label in self._looking:
            return None
        denial = self._denials.get(w.label)
        if denial is not None:
            known = (await self._recorder.snapshots(w, [denial.object_id])).get(denial.object_id)
            if known is not None and _is_listed(known):
                unit = None if known.unit is None else w.units.by_id(known.unit)
                return known if unit is not None and unit.asked_order > denial.order else None
            del self._denials[w.label]  # it had just gone
        if not any(unit.shown for unit in w.units.values()):
            return None
        return await self._recorder.steps.read(self._recorder.store.listed, w.state.id)

    async def _look(self, w: WatchedEndpoint, listed: Snapshot) -> PollResult:
        """Ask the own URL of an object that its list shows. Raises FetchError."""
        (request,) = await self._fetcher.item_requests(w, [listed])
        if request is None:
            return PollResult()
        self._looking.add(w.label)
        try:
            with w.requests.asking(f"item {listed.object_id}") as order:
                response, asked = await self._fetcher.fetch_item(w, request, order)
        finally:
            self._looking.discard(w.label)
        denial = self._denials.pop(w.label, None)
        if response.status_code not in GONE:
            found = await self.shown(w, listed, response)
            if found is not None and w.guards.exemptions.misleading is not None:
                await self._forget_misleading(w)
            if found is not None or _is_readable(w, response):
                self._right[w.label] = asked.at
            elif denial is not None:
                self._denials[w.label] = denial
            return PollResult(calls=1)
        self._right.pop(w.label, None)
        if w.guards.exemptions.misleading is not None:
            return PollResult(calls=1)
        if denial is not None and denial.object_id == listed.object_id:
            return await self._misled(w, listed, request, asked)
        self._denials[w.label] = Denial(listed.object_id, asked.answered_order)
        return PollResult(calls=1)

    async def shown(self, w: WatchedEndpoint, snapshot: Snapshot, response: httpx.Response) -> Mapping[str, Any] | None:
        """The object that its own URL shows; None if the answer shows neither that it exists nor that it is gone.

        Raises FetchError for an answer that is a failure.
        """
        status = response.status_code
        if not response.is_success and (status != httpx.codes.FORBIDDEN or is_refusal(response)):
            is_wrong = 400 <= status < 500 and not is_refusal(response) and status not in PASSING
            raise unwelcome(response, NO_OWN_URL if is_wrong and status != httpx.codes.UNAUTHORIZED else "")
        found = None
        if is_list(status, w.rules.endpoint) and response.content:
            name = own_id(snapshot.object_id, is_child=w.is_child)
            if w.rules.runs_plugins or len(response.content) > LARGE:
                found = await self._apart(own_object, w.rules, response.content, name)
            else:
                found = own_object(w.rules, response.content, name)
        object_id = snapshot.object_id

        def noted(known: Exemptions) -> Exemptions:
            return known.with_unshown(object_id, status) if found is None else known.with_shown([object_id])

        if noted(w.guards.exemptions) != w.guards.exemptions:
            await self._exempt(w, noted)
        return found

    async def _misled(
        self, w: WatchedEndpoint, snapshot: Snapshot, request: httpx.Request, asked: RequestTimes
    ) -> PollResult:
        """An object is listed although its own URL says that it is gone: from now on 404 confirms no deletion."""
        object_id, url = snapshot.object_id, shown_url(request.url)
        now = (await self._recorder.snapshots(w, [object_id])).get(object_id)

        def decide() -> Draft:
            draft = Draft(at=asked.answered_at)
            if now is not None and _is_listed(now) and w.requests.changed.get(object_id, 0) <= asked.order:
                misleading = Misleading(object_id=object_id, url=url)
                exempt(w, draft, structs.replace(w.guards.exemptions, misleading=misleading))
                draft.notices.append(_notice(w, misleading, asked.answered_at))
            return draft

        _, recorded = await self._recorder.change(w, decide)
        return PollResult(calls=1, events=recorded.notices)

    async def _is_another(self, w: WatchedEndpoint) -> bool:
        """Whether the configuration now gives other URLs than the misleading one, which is then forgotten."""
        misleading = w.guards.exemptions.misleading
        if misleading is None:
            return True
        if w.label in self._checked:
            return False
        self._checked.add(w.label)
        known = await self._recorder.snapshots(w, [misleading.object_id])
        requests = await self._fetcher.item_requests(w, [*known.values()])
        if any(request is None or shown_url(request.url) == misleading.url for request in requests):
            return False
        await self._forget_misleading(w)
        return True

    async def _forget_misleading(self, w: WatchedEndpoint) -> None:
        """Believe own URLs again."""
        await self._exempt(w, lambda before: structs.replace(before, misleading=None))

    async def _exempt(self, w: WatchedEndpoint, change: Callable[[Exemptions], Exemptions]) -> None:
        """Record a change of the exemptions."""

        def decide() -> Draft:
            draft = Draft(at=w.state.sweep_began)
            exempt(w, draft, change(w.guards.exemptions))
            return draft

        await self._recorder.change(w, decide)


def _is_looked_for(w: WatchedEndpoint, suspect: Suspect) -> bool:
    """Whether the latest sweep began since the suspect went missing, and has certainly seen the whole list."""
    return w.state.uncertain is None and (w.state.last_sweep_began or 0.0) >= suspect.missing_at


def _is_readable(w: WatchedEndpoint, response: httpx.Response) -> bool:
    """Whether an own URL has answered with anything that may be its object, in another form than is known."""
    if not is_list(response.status_code, w.rules.endpoint):
        return False
    try:
        parse(response.content)
    except ParseError:
        return False
    return True


def _is_listed(snapshot: Snapshot) -> bool:
    return snapshot.presence is Presence.PRESENT and snapshot.unit is not None


def _notice(w: WatchedEndpoint, misleading: Misleading, now: float) -> Notice:
    return Notice(
        kind="endpoint.uncertain",
        subject=f"endpoints/{w.label}",
        summary=f"{w.label}: {misleading.text} Until one of them shows its object, complete sweeps confirm deletions.",
        detail={"why": [misleading.text]},
        time=now,
    )
