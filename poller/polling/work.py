"""Picks a budget's next piece of work: discovery, confirming a deletion, an on-demand sweep, or a regular poll."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from poller.clock import Clock
from poller.planner.planner import Planner
from poller.polling.endpoint import Watching
from poller.polling.on_demand import Sweeping
from poller.polling.poll import Polling, confirm, discover, poll
from poller.polling.source import ITEM, Run
from poller.polling.unit_keys import SINCE
from state.polls import Suspect

MOST_BLOCKED: Final = 500  # units found blocked in one go before others get a turn
DISCOVERY_TIME: Final = 60.0  # seconds in which an attempt should have ended


@dataclass(frozen=True, slots=True)
class PollUnit:
    """Poll a unit."""

    run: Run
    w: Watching
    key: str


@dataclass(frozen=True, slots=True)
class ConfirmDeletion:
    """Ask for a suspect's own URL."""

    run: Run
    w: Watching
    suspect: Suspect


@dataclass(frozen=True, slots=True)
class Discover:
    """Ask what a source must know before its first poll."""

    run: Run


Work = PollUnit | ConfirmDeletion | Discover


class BudgetWork:
    """The work of one budget. `sweeping`: a sweep on command, instead of what the planner would choose."""

    def __init__(self, name: str, planner: Planner, polling: Polling, clock: Clock) -> None:
        self.sweeping: Sweeping | None = None
        self.runs: dict[str, Run] = {}
        self._name = name
        self._planner = planner
        self._polling = polling
        self._clock = clock
        self._confirmed_last = False

    def is_hurried(self) -> bool:
        """Whether a first sweep of an endpoint of this budget is under way."""
        now = self._clock.now()
        return any(
            w.state.last_sweep is None and w.guards.recount is None
            for run in self.runs.values()
            if run.health.blocked_until("", now) is None
            for w in run.watchings.values()
        )

    def due(self, now: float) -> float | None:
        """When there may be work again."""
        at = [run.discovery.at for run in self.runs.values() if not run.discovery.is_done]
        if self.sweeping is not None and (retry := self.sweeping.next_retry(now)) is not None:
            at.append(retry)
        is_ready = any(run.discovery.is_done for run in self.runs.values())
        if is_ready and (next_due := self._planner.next_due(now)) is not None:
            at.append(next_due)
        return max(min(at), now + 0.05) if at else None

    def next_work(self, now: float) -> Work | None:
        """The most urgent work, taken: it is not chosen again until it ended. None when there is none."""
        for run in self.runs.values():
            if not run.discovery.is_done and now >= run.discovery.at:
                run.discovery.at = now + DISCOVERY_TIME
                return Discover(run)
        confirmation = None if self._confirmed_last else self._confirmation(now)
        self._confirmed_last = confirmation is not None
        if confirmation is not None:
            return confirmation
        return self._next_poll(now) or self._confirmation(now)

    async def do(self, work: Work) -> None:
        """Do what was chosen."""
        match work:
            case PollUnit(run, w, key):
                await poll(self._polling, run, w, key)
            case ConfirmDeletion(run, w, suspect):
                await confirm(self._polling, run, w, suspect)
            case Discover(run):
                await discover(self._polling, run)

    def _next_poll(self, now: float) -> PollUnit | None:
        if self.sweeping is not None:
            found = self.sweeping.next_unit(self._name, now, self._not_before)
            return None if found is None else self._taken(*found, now)
        for _ in range(MOST_BLOCKED):
            unit = self._planner.choose(now)
            if unit is None:
                return None
            run = self.runs[unit.source]
            w = run.watchings[unit.endpoint]
            until = self._not_before(run, w, unit.key, now)
            if until is None:
                return self._taken(run, w, unit.key, now)
            self._planner.defer(unit, until)
        return None

    def _taken(self, run: Run, w: Watching, key: str, now: float) -> PollUnit:
        self._planner.started(run.unit(w, key))
        run.health.started(w.name, key, now)
        self._polling.in_flight.add((run.name, w.name, key))
        return PollUnit(run, w, key)

    def _not_before(self, run: Run, w: Watching, key: str, now: float) -> float | None:
        """When a unit may be asked; None: now."""
        if not run.discovery.is_done:
            return max(run.discovery.at, now + 1.0)
        if not run.health.allows(w.name, key, now):
            return run.health.blocked_until(w.name, now) or now + 5.0
        if key == SINCE and w.state.last_sweep is None:
            return now + 5.0  # first the baseline
        return None

    def _confirmation(self, now: float) -> ConfirmDeletion | None:
        for run in self.runs.values():
            if not run.discovery.is_done:
                continue
            for name in run.deletions.waiting:
                w = run.watchings.get(name)
                if w is not None and run.health.allows(name, ITEM, now):
                    suspect = run.deletions.next(name)
                    if suspect is not None:
                        return ConfirmDeletion(run, w, suspect)
        return None
