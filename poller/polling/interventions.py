"""Operators' decisions about an endpoint: hold, release, rebaseline."""

from __future__ import annotations

from poller.clock import Clock
from poller.polling import holds
from poller.polling.certainty import accept_doubts
from poller.polling.children import FollowUp
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.recorder import Recorder
from poller.polling.results import PollResult, UnitNews
from poller.polling.source import ActiveSource
from state.polls import Recorded


class Interventions:
    """Executes operators' decisions, each in a turn of the endpoint."""

    def __init__(self, recorder: Recorder, follow_up: FollowUp, clock: Clock) -> None:
        self._recorder = recorder
        self._follow_up = follow_up
        self._clock = clock

    async def hold(self, active: ActiveSource, w: WatchedEndpoint) -> bool:
        """Hold an endpoint. False if it was held already."""
        suspects = await self._recorder.suspect_count(w)

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            holds.hold(w, draft, suspects)
            return draft

        _, recorded = await self._recorder.change(w, decide)
        await self._follow(active, w, recorded)
        return bool(recorded.notices)

    async def release(
        self, active: ActiveSource, w: WatchedEndpoint, *, why: str, accept: bool = False, emit: bool = False
    ) -> None:
        """End a hold, see `holds.release`."""
        before = list(w.units)

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            holds.release(w, draft, why=why, accept=accept, emit=emit)
            return draft

        _, recorded = await self._recorder.change(w, decide)
        await self._follow(active, w, recorded, dropped=before if accept else [])

    async def accept_doubts(self, w: WatchedEndpoint) -> None:
        """Accept the contradictions of the latest sweep as normal for this list."""

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            accept_doubts(w, draft)
            return draft

        await self._recorder.change(w, decide)

    async def rebaseline(self, active: ActiveSource, w: WatchedEndpoint) -> None:
        """Take the next sweep as it is, without events for its objects."""
        before = list(w.units)

        def decide() -> Draft:
            draft = Draft(at=self._clock.now())
            holds.rebaseline(w, draft)
            return draft

        _, recorded = await self._recorder.change(w, decide)
        await self._follow(active, w, recorded, dropped=before)

    async def _follow(
        self, active: ActiveSource, w: WatchedEndpoint, recorded: Recorded, *, dropped: list[str] | None = None
    ) -> None:
        added = [unit.key for unit in recorded.units]
        result = PollResult(events=recorded.notices, units=UnitNews(added=added, dropped=dropped or []))
        await self._follow_up.follow(active, w, result)
