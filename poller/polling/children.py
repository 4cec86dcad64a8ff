"""Follow-up of a poll: units and lists per parent are added and removed, and missing objects are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from poller.changes.certainty import pattern_of
from poller.clock import Clock
from poller.polling.draft import Draft
from poller.polling.endpoint import WatchedEndpoint, may_delete
from poller.polling.failing_lists import forget_lists, without_failing
from poller.polling.health import HealthUpdate
from poller.polling.recorder import Recorder
from poller.polling.results import PollResult
from poller.polling.source import ITEM, ActiveSource, kept_health
from poller.polling.unit_keys import child_key, dump_position, foreign_keys, is_swept
from poller.rendering.counting import counted
from state.polls import Presence, Sweep
from state.store import NoticeStore

log = structlog.get_logger("poller")


class FollowUp:
    """Does what follows from a poll. `recorded` is called with the numbers of new events."""

    def __init__(
        self, recorder: Recorder, notices: NoticeStore, *, clock: Clock, recorded: Callable[[list[int]], None]
    ) -> None:
        self._recorder = recorder
        self._notices = notices
        self._clock = clock
        self._recorded = recorded
        self._noted: dict[str, dict[str, int]] = {}  # by endpoint: the sweep in which each note last occurred

    async def follow(self, active: ActiveSource, w: WatchedEndpoint, result: PollResult) -> None:
        """Do what follows from a recorded poll."""
        planner, now = active.poll_loop.planner, active.poll_loop.time()
        w.turnover.created(self._clock.steady(), result.created)
        for key in result.units.dropped:
            planner.remove(active.unit(w, key))
        for key in result.units.added:
            planner.add(active.unit(w, key), now=now)
        if not w.in_baseline:
            for new, old in result.units.tail_moves:
                if active.unit(w, new) in planner.units and active.unit(w, old) in planner.units:
                    planner.models.inherit(active.unit(w, new), active.unit(w, old))
        self._say(w, result)
        self.announce(result.events)
        await self.forget(active, w, [key for key in result.units.dropped if key not in result.units.added])
        if result.snapshots:
            await self._follow_parents(active, w, result)
        if result.baseline and not w.in_baseline:
            await self._drop_orphans(active, w)
        await self._look_at_suspects(active, w, result)
        if result.swept:
            await self._end_empty_sweeps(active, w)

    def announce(self, numbers: Sequence[int]) -> None:
        """Report that these events are in the log."""
        if numbers:
            self._recorded([*numbers])

    async def forget(self, active: ActiveSource, w: WatchedEndpoint, keys: Iterable[str]) -> None:
        """End the reported failures of units that no longer exist."""
        for key in keys:
            await self.say(active, active.health.forget(w.name, key, self._clock.now()))

    async def say(self, active: ActiveSource, update: HealthUpdate) -> None:
        """Log changes of a source's health, and record that they were reported."""
        if not update.notices:
            return
        self.announce(await self._recorder.steps(self._notices.tell, update.notices, kept=kept_health(active)))

    async def sync(self, w: WatchedEndpoint, parents: Iterable[str]) -> None:
        """Give a unit to every existing parent, and remove those of parents that are gone."""
        wanted = {child_key(object_id) for object_id in parents}
        added = sorted(wanted - w.units.keys())
        dropped = sorted(key for key in w.units.keys() - wanted if is_swept(key))
        await self._change_units(w, added=added, dropped=dropped, at=w.state.sweep_began)

    async def drop_foreign(self, w: WatchedEndpoint) -> list[str]:
        """Remove units of another pagination than the configured one. Their objects count as missing until seen."""
        keys = foreign_keys(w.rules.endpoint, w.units)
        _, dropped = await self._change_units(w, added=(), dropped=keys, at=self._clock.now())
        return dropped

    async def _follow_parents(self, active: ActiveSource, w: WatchedEndpoint, result: PollResult) -> None:
        """Add lists of new parents, drop lists of removed parents, and expect changes in the others."""
        planner = active.poll_loop.planner
        there = [child_key(s.object_id) for s in result.snapshots if s.presence is not Presence.DELETED]
        deleted = [child_key(s.object_id) for s in result.snapshots if s.presence is Presence.DELETED]
        for child in active.children(w.name):
            await self._follow_lists(active, child, added=there, dropped=deleted)
            if not result.baseline:
                for key in there:
                    planner.excite(active.unit(child, key), 1)

    async def _drop_orphans(self, active: ActiveSource, w: WatchedEndpoint) -> None:
        """Drop the lists of parents that a baseline has not shown: they were taken as deleted without a word."""
        children = [*active.children(w.name)]
        there = await self._recorder.steps.read(self._recorder.store.parents, w.state.id) if children else ()
        keys = {child_key(parent) for parent in there}
        for child in children:
            await self._follow_lists(active, child, added=(), dropped=[*child.units.swept().keys() - keys])

    async def _follow_lists(
        self, active: ActiveSource, child: WatchedEndpoint, *, added: Sequence[str], dropped: Sequence[str]
    ) -> None:
        """Poll lists per parent from now on, or no longer."""
        planner = active.poll_loop.planner
        new, known = await self._change_units(child, added=added, dropped=dropped, at=self._clock.now())
        for key in new:
            planner.add(active.unit(child, key), now=active.poll_loop.time())
        for key in known:
            planner.remove(active.unit(child, key))
        await self.forget(active, child, known)
        if known and child.units and child.sweep.is_done and not active.waits(child):
            # The sweep waited only for lists that are gone, so no poll will end it.
            await self._end_sweep(active, child, confirms=child.sweep.confirms and child.sweep.nonempty)

    async def _change_units(
        self, w: WatchedEndpoint, *, added: Sequence[str], dropped: Sequence[str], at: float
    ) -> tuple[list[str], list[str]]:
        """Add and remove lists per parent. Returns the keys that were added and the keys that were removed."""
        position = dump_position(w.rules.endpoint.first)

        def decide() -> Draft:
            new = [(key, position) for key in added if key not in w.units]
            draft = Draft(at=at, new_units=new, dropped=[key for key in dropped if key in w.units])
            forget_lists(w, draft, draft.dropped)
            return draft

        draft, _ = await self._recorder.change(w, decide)
        if draft.dropped:
            w.sweep.steady = False
        return [key for key, _ in draft.new_units], [*draft.dropped]

    async def _look_at_suspects(self, active: ActiveSource, w: WatchedEndpoint, result: PollResult) -> None:
        """Queue missing objects whose own URL is to be requested, or confirm their deletion by sweeps."""
        if not may_delete(w):
            active.deletions.queue.forget(w.name)
            return
        if not await active.deletions.look(w, result):
            await self.forget(active, w, [ITEM])
        if result.swept:
            for deleted in await active.deletions.swept(w):
                self.announce(deleted.events)
                await self._follow_parents(active, w, deleted)

    async def _end_empty_sweeps(self, active: ActiveSource, w: WatchedEndpoint) -> None:
        """End the sweeps of lists per parent that have no parents."""
        for child in active.children(w.name):
            is_new = not child.has_swept or not child.units
            if child.sweep.is_done and not active.waits(child) and is_new:
                await self._end_sweep(active, child, confirms=False)

    async def _end_sweep(self, active: ActiveSource, w: WatchedEndpoint, *, confirms: bool) -> None:
        """End a sweep that has no unit left to poll."""
        now = self._clock.now()

        def decide() -> Draft:
            draft = Draft(at=now)
            order, sweep = w.requests.next(), w.sweep
            ended = Sweep(ended_at=now, ended_order=order, began=sweep.since, steady=sweep.steady, confirms=confirms)
            draft.marks.ended = without_failing(w, draft, ended)
            return draft

        await self._recorder.change(w, decide)
        await self._end_empty_sweeps(active, w)

    def _say(self, w: WatchedEndpoint, result: PollResult) -> None:
        """Log oddities of a poll. A note is logged again only after it was absent for a whole sweep."""
        noted, sweep = self._noted.setdefault(w.label, {}), w.state.sweep
        for note in result.notes:
            kind = pattern_of(note)  # the same note with other numbers and examples is not logged again
            if noted.get(kind, -2) < sweep - 2:
                log.warning("page.odd", endpoint=w.label, note=note)
            noted[kind] = sweep
        for path in result.noisy:
            hint = f'changes at every poll: ignore = ["{path}"]?'
            log.warning("field.noisy", endpoint=w.label, field=path, hint=hint)
        if result.swept:
            self._noted[w.label] = {note: seen for note, seen in noted.items() if seen >= sweep - 2}
            log.debug("sweep.complete", endpoint=w.label, sweep=sweep - 1)
            if result.baseline:
                found = f"{counted(w.state.objects, 'object')} in {counted(len(w.units), 'unit')}"
                summary = f"The first sweep of {w.label} is complete: {found}; changes are reported from now on."
                log.info("sweep.first", summary=summary)
