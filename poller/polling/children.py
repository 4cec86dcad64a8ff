"""What follows from a poll: units come and go, children are told of their parents, deletions are confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import structlog

from poller.clock import Clock
from poller.polling.endpoint import Watching, child_key
from poller.polling.health import HealthUpdate
from poller.polling.recording import Settling
from poller.polling.results import Asked, Outcome
from poller.polling.source import ITEM, Run, add_children, drop_children, kept_health, tell
from state.polls import Presence, Sweep
from state.sqlite.store import Store
from state.sqlite.writer import Write

log = structlog.get_logger("poller")


class Following:
    """Does what follows. `recorded` is told the numbers of new events."""

    def __init__(
        self,
        settling: Settling,
        *,
        store: Store,
        write: Write,
        clock: Clock,
        recorded: Callable[[list[int]], None],
    ) -> None:
        self._settling = settling
        self._store = store
        self._write = write
        self._clock = clock
        self._recorded = recorded
        self._noted: dict[str, dict[str, int]] = {}  # by endpoint: in which sweep a note was met last

    async def followed(self, run: Run, w: Watching, outcome: Outcome) -> None:
        """Units come and go, children are told of their parents, deletions are confirmed."""
        planner, now = run.lane.planner, self._clock.now()
        for key in outcome.dropped:
            planner.remove(run.unit(w, key))
        for key in outcome.added:
            planner.add(run.unit(w, key), now=now)
        if not w.in_baseline:
            for new, old in outcome.heirs:
                planner.inherit(run.unit(w, new), run.unit(w, old))
        self._say(w, outcome)
        self.announce(outcome.events)
        await self.forget(run, w, [key for key in outcome.dropped if key not in outcome.added])
        if outcome.snapshots:
            await self._tell_children(run, w, outcome, now)
        await self._suspect(run, w, outcome)
        if outcome.swept:
            await self._end_empty_sweeps(run, w, now)

    async def _tell_children(self, run: Run, w: Watching, outcome: Outcome, now: float) -> None:
        planner = run.lane.planner
        there = [child_key(s.object_id) for s in outcome.snapshots if s.presence is not Presence.DELETED]
        deleted = [child_key(s.object_id) for s in outcome.snapshots if s.presence is Presence.DELETED]
        for child in run.children(w.name):
            new = [key for key in there if key not in child.units]
            await self._write(add_children, self._store, child, new)
            for key in new:
                planner.add(run.unit(child, key), now=now)
            if not outcome.baseline:
                for key in there:
                    planner.excite(run.unit(child, key), 1)
            gone = [key for key in deleted if key in child.units]
            await self._write(drop_children, self._store, child, gone, now=now)
            for key in gone:
                planner.remove(run.unit(child, key))
            await self.forget(run, child, gone)
            if gone and child.units and not child.pending and not run.waits(child):
                # The last lists that its sweep waited for are gone: no poll of theirs will end it.
                await self._end_sweep(run, child, now, confirms=child.confirms and child.nonempty)

    async def _suspect(self, run: Run, w: Watching, outcome: Outcome) -> None:
        """See to what went missing: by its own URL, or by sweeps."""
        if not self._settling.may_delete(w):
            run.suspects.pop(w.name, None)
            run.stale_suspects.add(w.name)
            return
        if (outcome.missing or outcome.swept or w.name in run.stale_suspects) and not run.suspects.get(w.name):
            found = await self._write(self._store.polls.suspects, w.state.id)
            run.stale_suspects.discard(w.name)
            run.suspects[w.name] = deque(
                suspect
                for suspect in found
                if (w.name, suspect.snapshot.object_id) not in run.confirming
                and run.polling.item_request(w, suspect) is not None
            )
            if not run.suspects[w.name] and not any(name == w.name for name, _ in run.confirming):
                await self.forget(run, w, [ITEM])  # nothing is left whose own URL would be asked
        if outcome.swept:
            asked = Asked(at=w.state.last_sweep_began or 0.0, answered_at=self._clock.now())
            for suspect in await self._write(self._settling.deletable, w):
                if run.polling.item_request(w, suspect) is not None:
                    continue
                told = await self._write(self._settling.delete, w, suspect, asked)
                self.announce(told.events)
                await self._tell_children(run, w, told, asked.answered_at)

    async def _end_empty_sweeps(self, run: Run, w: Watching, now: float) -> None:
        """A list per parent, and no parents: there is nothing to sweep."""
        for child in run.children(w.name):
            if not child.pending and not run.waits(child) and (child.state.last_sweep is None or not child.units):
                await self._end_sweep(run, child, now, confirms=False)

    async def _end_sweep(self, run: Run, w: Watching, now: float, *, confirms: bool) -> None:
        """End a sweep that has nothing more to ask for."""
        await self._write(self._settling.end_sweep, w, Sweep(ended_at=now, steady=w.steady, confirms=confirms))
        await self._end_empty_sweeps(run, w, now)

    async def forget(self, run: Run, w: Watching, keys: Iterable[str]) -> None:
        """These units are gone: what was told of their failures is over."""
        for key in keys:
            await self.say(run, run.health.forget(w.name, key, self._clock.now()))

    async def say(self, run: Run, update: HealthUpdate) -> None:
        """Log what the health of a source has to say, and keep that it was said."""
        if not update.notices:
            return
        kept, now = kept_health(run), self._clock.now()
        self.announce(await self._write(partial(tell, self._store, update.notices, now=now, kept=kept)))

    def announce(self, seqs: list[int]) -> None:
        """Say that these events are in the log."""
        if seqs:
            self._recorded(seqs)

    def _say(self, w: Watching, outcome: Outcome) -> None:
        """What the journal is told of a poll: a note again only where it was absent for a whole sweep."""
        noted, sweep = self._noted.setdefault(w.label, {}), w.state.sweep
        for note in outcome.notes:
            if noted.get(note, -2) < sweep - 2:
                log.warning("page.odd", endpoint=w.label, note=note)
            noted[note] = sweep
        for path in outcome.noisy:
            log.warning(
                "field.noisy", endpoint=w.label, field=path, hint=f'changes at every poll: ignore = ["{path}"]?'
            )
        if outcome.swept:
            self._noted[w.label] = {note: seen for note, seen in noted.items() if seen >= sweep - 2}
            log.debug("sweep.complete", endpoint=w.label, sweep=sweep - 1)
            if outcome.baseline:
                told = f"{w.state.objects} object(s) in {len(w.units)} unit(s); changes are told from now on"
                log.info("sweep.first", summary=f"The first sweep of {w.label} is complete: {told}.")
