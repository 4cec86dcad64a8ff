"""Recordings of an endpoint: written to the state, then followed by memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import structs

from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint, exempt
from poller.tracing import span
from state.errors import Conflict
from state.polls import (
    Known,
    Recorded,
    Snapshot,
    Wanted,
)
from state.steps import Steps
from state.store import PollStore

MOST_TRIES = 100  # of a recording whose base changed each time


class Recorder:
    """Records decisions about endpoints. `reloaded` is called when an endpoint had to be read again."""

    def __init__(self, store: PollStore, steps: Steps, *, reloaded: Callable[[WatchedEndpoint], None]) -> None:
        self.store = store
        self.steps = steps
        self._reloaded = reloaded

    async def record(self, w: WatchedEndpoint, draft: Draft) -> Recorded:
        """Write a recording, within a turn of the endpoint. Raises Conflict if memory differs from the state."""
        _draft_aside(w, draft)
        if draft.is_empty:
            return Recorded(events=[()] * len(draft.polls))
        w.turn.is_stale = True  # until the write has succeeded
        times, w.unchanged = w.unchanged, {}
        try:
            recording = draft.recording(w.state, [*times.values()])
            with span("record", source=w.state.source, endpoint=w.name, polls=len(draft.polls)):
                recorded = await self.steps.unhurried(self.store.record, w.lease, recording)
        except BaseException:
            w.unchanged = times | w.unchanged
            raise
        w.turn.is_stale = False
        _follow(w, draft, recorded)
        return recorded

    async def known(self, w: WatchedEndpoint, wanted: Sequence[Wanted]) -> list[Known]:
        """What the state knows of the units' objects, including unchanged polls that are not written yet."""
        found = await self.steps.read(self.store.known, w.state.id, wanted)
        if not w.unchanged:
            return found
        return [structs.replace(one, snapshots=_as_seen(w, one.snapshots)) for one in found]

    async def snapshots(self, w: WatchedEndpoint, ids: Sequence[str]) -> Mapping[str, Snapshot]:
        """The snapshots of those objects that are known."""
        return _as_seen(w, await self.steps.read(self.store.snapshots, w.state.id, ids)) if ids else {}

    async def suspect_count(self, w: WatchedEndpoint) -> int:
        """How many objects wait for confirmation of their deletion."""
        return await self.steps.read(self.store.suspect_count, w.state.id)

    async def change(self, w: WatchedEndpoint, decide: Callable[[], Draft]) -> tuple[Draft, Recorded]:
        """Decide and record in a separate turn; repeat if the base has changed."""
        async with w.turn.lock:
            for _ in range(MOST_TRIES):
                await self.refresh(w)
                draft = decide()
                try:
                    return draft, await self.record(w, draft)
                except Conflict:
                    continue
            return draft, await self.record(w, draft)

    async def refresh(self, w: WatchedEndpoint) -> None:
        """Read the endpoint again if memory may differ from the state."""
        if w.turn.is_stale:
            w.load(await self.steps.read(self.store.reopen, w.state.id))
            w.turn.is_stale = False
            self._reloaded(w)


def _draft_aside(w: WatchedEndpoint, draft: Draft) -> None:
    """Draft which pages are set aside, if others are than are stored."""
    aside = {key: one for key, one in w.guards.quarantine.items() if key in w.units and key not in draft.dropped}
    if aside != w.guards.exemptions.quarantine:
        exempt(w, draft, structs.replace(w.guards.exemptions, quarantine=aside))


def _as_seen(w: WatchedEndpoint, snapshots: Mapping[str, Snapshot]) -> Mapping[str, Snapshot]:
    """Snapshots with the time of their unit's latest unchanged poll."""
    times = w.unchanged
    return {
        object_id: structs.replace(old, seen_at=times[old.unit].asked_at)
        if old.unit in times and times[old.unit].asked_at > old.seen_at
        else old
        for object_id, old in snapshots.items()
    }


def _follow(w: WatchedEndpoint, draft: Draft, recorded: Recorded) -> None:
    """Update memory with what was written."""
    if recorded.state is not None:
        w.state = recorded.state
    else:
        growth = sum(poll.growth for poll in draft.polls)
        w.state = structs.replace(w.state, revision=w.state.revision + 1, objects=w.state.objects + growth)
    for key in draft.dropped:
        w.forget(key)
    if draft.marks.rebaseline is not None:
        w.units.clear()
        w.unchanged.clear()
    if draft.marks.ended is not None or draft.marks.rebaseline is not None or draft.marks.begin_sweep is not None:
        w.begin_sweep()
    for unit in recorded.units:
        w.put(unit)
