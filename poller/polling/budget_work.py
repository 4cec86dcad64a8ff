"""Picks a budget's next piece of work: discovery, confirming a deletion, an on-demand sweep, or a regular poll."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from poller.clock import Clock
from poller.planner.planner import Planner
from poller.polling.endpoint import WatchedEndpoint
from poller.polling.on_demand import OnDemandSweep
from poller.polling.results import InFlight
from poller.polling.source import ITEM, ActiveSource
from poller.polling.unit_keys import SINCE
from poller.polling.work import ConfirmDeletion, Discover, PollUnit, Work

MOST_BLOCKED: Final = 500  # blocked units that are skipped in one search
OVERDUE: Final = 1.0  # seconds for which an overdue suspect keeps the budget awake
DISCOVERY_TIME: Final = 60.0  # seconds until an attempt is considered lost


class BudgetWork:
    """The work of one budget. `sweeping` is an on-demand sweep, which replaces the planner's choice.

    `do` executes a piece of work.
    """

    def __init__(
        self, name: str, planner: Planner, in_flight: InFlight, clock: Clock, *, do: Callable[[Work], Awaitable[None]]
    ) -> None:
        self.sweeping: OnDemandSweep | None = None
        self.sources: dict[str, ActiveSource] = {}
        self.do = do
        self._name = name
        self._planner = planner
        self._in_flight = in_flight
        self._clock = clock
        self._confirmed_last = False

    def is_hurried(self) -> bool:
        """Whether a first sweep of an endpoint of this budget is under way."""
        now = self._clock.now()
        return any(
            w.state.last_sweep is None and w.guards.recount is None
            for active in self.sources.values()
            if active.health.blocked_until("", now) is None
            for w in active.endpoints.values()
        )

    def due(self, now: float) -> float | None:
        """The next time at which there may be work."""
        at = [active.discovery.at for active in self.sources.values() if not active.discovery.is_done]
        if self.sweeping is not None and (retry := self.sweeping.next_retry(now)) is not None:
            at.append(retry)
        is_ready = any(active.discovery.is_done for active in self.sources.values())
        if is_ready and (next_due := self._planner.next_due(now)) is not None:
            at.append(next_due)
        queues = [active.deletions.queue for active in self.sources.values()]
        at += [due for queue in queues if (due := queue.due_after(now - OVERDUE)) is not None]
        return max(min(at), now + 0.05) if at else None

    def next_work(self, now: float) -> Work | None:
        """Take the most urgent work; it is not chosen again until it has ended. None if there is none."""
        for active in self.sources.values():
            if not active.discovery.is_done and now >= active.discovery.at:
                active.discovery.at = now + DISCOVERY_TIME
                return Discover(active)
        confirmation = None if self._confirmed_last else self._confirmation(now)
        self._confirmed_last = confirmation is not None
        if confirmation is not None:
            return confirmation
        return self._next_poll(now) or self._confirmation(now)

    def put_back(self, work: Work) -> None:
        """Make work that was taken available again: it was not begun."""
        match work:
            case PollUnit(active, w, key):
                self._planner.released(active.unit(w, key))
                self._in_flight.discard((active.name, w.name, key))
            case ConfirmDeletion(active, w, suspect):
                active.deletions.queue.finished(w.name, suspect)
                active.deletions.queue.again(w.name, suspect, self._clock.now())
            case Discover(active):
                active.discovery.at = self._clock.now()

    def _next_poll(self, now: float) -> PollUnit | None:
        if self.sweeping is not None:
            found = self.sweeping.next_unit(self._name, now, self._not_before)
            return None if found is None else self._taken(*found, now)
        for _ in range(MOST_BLOCKED):
            unit = self._planner.choose(now)
            if unit is None:
                return None
            active = self.sources[unit.source]
            w = active.endpoints[unit.endpoint]
            until = self._not_before(active, w, unit.key, now)
            if until is None:
                return self._taken(active, w, unit.key, now)
            self._planner.defer(unit, until)
        return None

    def _taken(self, active: ActiveSource, w: WatchedEndpoint, key: str, now: float) -> PollUnit:
        self._planner.started(active.unit(w, key))
        active.health.started(w.name, key, now)
        self._in_flight.add((active.name, w.name, key))
        return PollUnit(active, w, key)

    def _not_before(self, active: ActiveSource, w: WatchedEndpoint, key: str, now: float) -> float | None:
        """The earliest time at which a unit may be polled; None: now."""
        if not active.discovery.is_done:
            return max(active.discovery.at, now + 1.0)
        if not active.health.allows(w.name, key, now):
            return active.health.blocked_until(w.name, now) or now + 5.0
        if key == SINCE and w.state.last_sweep is None:
            return now + 5.0  # the baseline comes first
        return None

    def _confirmation(self, now: float) -> ConfirmDeletion | None:
        for active in self.sources.values():
            if not active.discovery.is_done:
                continue
            for name in active.deletions.queue.waiting:
                w = active.endpoints.get(name)
                if w is not None and active.deletions.queue.is_due(name, now) and active.health.allows(name, ITEM, now):
                    suspect = active.deletions.queue.next(name, now)
                    if suspect is not None:
                        return ConfirmDeletion(active, w, suspect)
        return None
