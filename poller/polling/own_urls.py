"""Own URLs of objects: their requests, their answers, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import httpx

from poller.changes.comparison import RequestTimes
from poller.changes.exemptions import Misleading
from poller.changes.own_url import own_object
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint, exempt
from poller.polling.fetch import LARGE, Fetcher, unwelcome
from poller.polling.recorder import Recorder
from poller.polling.results import PollResult
from poller.polling.threads import Apart
from poller.polling.unit_keys import own_id
from poller.sources.statuses import is_list
from poller.sources.urls import shown_url
from state.notices import Notice
from state.polls import Presence, Snapshot

OWN_URL: Final = "own URL"  # takes the place of a unit in notes about own URLs
GONE: Final = frozenset({404, 410})


class OwnUrls:
    """The own URLs of one source's objects."""

    def __init__(self, fetcher: Fetcher, recorder: Recorder, apart: Apart) -> None:
        self._fetcher = fetcher
        self._recorder = recorder
        self._apart = apart
        self._checked: set[str] = set()  # endpoints whose misleading URL was checked against the configuration

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

    async def shown(self, w: WatchedEndpoint, snapshot: Snapshot, response: httpx.Response) -> Mapping[str, Any] | None:
        """The object that its own URL shows; None if the answer shows neither that it exists nor that it is gone.

        Raises FetchError for an answer that is a failure.
        """
        status = response.status_code
        if not response.is_success and status != httpx.codes.FORBIDDEN:
            raise unwelcome(response)
        found = None
        if is_list(status, w.rules.endpoint) and response.content:
            name = own_id(snapshot.object_id, is_child=w.is_child)
            if w.rules.runs_plugins or len(response.content) > LARGE:
                found = await self._apart(own_object, w.rules, response.content, name)
            else:
                found = own_object(w.rules, response.content, name)
        if found is not None:
            w.oddities.notes.pop(OWN_URL, None)
        elif response.is_success:
            w.oddities.notes[OWN_URL] = (
                f"{snapshot.object_id}: its own URL answers {status} without the object, so nothing is concluded"
            )
        return found

    async def misled(
        self, w: WatchedEndpoint, snapshot: Snapshot, request: httpx.Request, asked: RequestTimes
    ) -> PollResult:
        """An object is listed although its own URL says that it is gone: from now on 404 confirms no deletion."""
        object_id, url = snapshot.object_id, shown_url(request.url)
        now = (await self._recorder.snapshots(w, [object_id])).get(object_id)

        def decide() -> Draft:
            draft = Draft(at=asked.answered_at)
            is_listed = now is not None and now.presence is Presence.PRESENT and now.unit is not None
            if is_listed and w.requests.changed.get(object_id, 0) <= asked.order:
                misleading = Misleading(object_id=object_id, url=url)
                exempt(w, draft, replace(w.guards.exemptions, misleading=misleading))
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

        def decide() -> Draft:
            draft = Draft(at=w.state.sweep_began)
            exempt(w, draft, replace(w.guards.exemptions, misleading=None))
            return draft

        await self._recorder.change(w, decide)
        return True


def _notice(w: WatchedEndpoint, misleading: Misleading, now: float) -> Notice:
    return Notice(
        kind="endpoint.uncertain",
        subject=f"endpoints/{w.label}",
        summary=f"{w.label}: {misleading.text} Until the configuration changes, complete sweeps confirm deletions.",
        detail={"why": [misleading.text]},
        time=now,
    )
