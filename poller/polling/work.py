"""What is to be done next within a budget: ask who one is, confirm a deletion, sweep on command, or poll."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from poller.clock import Clock
from poller.polling.endpoint import SINCE, Watching
from poller.polling.fetch import Worker
from poller.polling.loop import Lane
from poller.polling.on_demand import Flying, Sweeping
from poller.polling.source import Run

Work = Callable[[], Awaitable[None]]
MOST_BLOCKED = 500  # units found blocked in one go before others get a turn


class Chooser:
    """Chooses work for every lane. `sweeping`: a sweep on command, instead of what the planners would choose."""

    def __init__(self, runs: Mapping[str, Run], flying: Flying, *, worker: Worker, clock: Clock) -> None:
        self.sweeping: Sweeping | None = None
        self._runs = runs
        self._flying = flying
        self._worker = worker
        self._clock = clock
        self._confirmed_last: dict[str, bool] = {}

    def is_hurried(self, lane: Lane) -> bool:
        """A first sweep of an endpoint of this budget is under way."""
        return any(
            w.state.last_sweep is None and w.doubt is None
            for run in self._of(lane)
            if run.health.blocked_until("", self._clock.now()) is None
            for w in run.watchings.values()
        )

    def due(self, lane: Lane, now: float) -> float | None:
        """When there may be work again."""
        at = [run.discover_at for run in self._of(lane) if not run.discovered]
        if self.sweeping is not None and (retry := self.sweeping.next_retry(now)) is not None:
            at.append(retry)
        if (next_due := lane.planner.next_due(now)) is not None and any(run.discovered for run in self._of(lane)):
            at.append(next_due)
        return max(min(at), now + 0.05) if at else None

    def choose(self, lane: Lane, now: float) -> Work | None:
        """The most urgent work of this budget, taken."""
        for run in self._of(lane):
            if not run.discovered and now >= run.discover_at:
                run.discover_at = now + 60.0
                return partial(self._worker.discover, run)
        confirmation = None if self._confirmed_last.get(lane.name) else self._confirmation(lane, now)
        if confirmation is not None:
            self._confirmed_last[lane.name] = True
            return confirmation
        self._confirmed_last[lane.name] = False
        poll = self._poll_work(lane, now) if self.sweeping is None else self._sweep_work(self.sweeping, lane, now)
        return poll or self._confirmation(lane, now)

    def _sweep_work(self, sweeping: Sweeping, lane: Lane, now: float) -> Work | None:
        found = sweeping.next_unit(lane.name, now, self._not_before)
        return None if found is None else self._take_unit(*found, now)

    def _of(self, lane: Lane) -> Iterable[Run]:
        return (run for run in self._runs.values() if run.lane is lane)

    def _poll_work(self, lane: Lane, now: float) -> Work | None:
        for _ in range(MOST_BLOCKED):
            unit = lane.planner.choose(now)
            if unit is None:
                return None
            run = self._runs[unit.source]
            w = run.watchings[unit.endpoint]
            until = self._not_before(run, w, unit.key, now)
            if until is not None:
                lane.planner.defer(unit, until)
                continue
            return self._take_unit(run, w, unit.key, now)
        return None

    def _take_unit(self, run: Run, w: Watching, key: str, now: float) -> Work:
        run.lane.planner.started(run.unit(w, key))
        run.health.started(w.name, key, now)
        self._flying.add((run.name, w.name, key))
        return partial(self._worker.poll, run, w, key)

    @staticmethod
    def _not_before(run: Run, w: Watching, key: str, now: float) -> float | None:
        if not run.discovered:
            return max(run.discover_at, now + 1.0)
        if not run.health.allows(w.name, key, now):
            return run.health.blocked_until(w.name, now) or now + 5.0
        if key == SINCE and w.state.last_sweep is None:
            return now + 5.0  # first the baseline
        return None

    def _confirmation(self, lane: Lane, now: float) -> Work | None:
        for run in self._of(lane):
            if not run.discovered:
                continue
            for name, waiting in run.suspects.items():
                w = run.watchings.get(name)
                while waiting and w is not None and run.health.allows(name, "item", now):
                    suspect = waiting.popleft()
                    if (name, suspect.snapshot.object_id) not in run.confirming:
                        run.confirming.add((name, suspect.snapshot.object_id))
                        return partial(self._worker.confirm, run, w, suspect)
        return None
