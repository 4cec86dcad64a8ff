"""The ranking of units: which of them is polled next."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from poller.planner.rates import Expected, expected

if TYPE_CHECKING:
    from poller.planner.models import Models
    from poller.planner.pacing import Pacing
    from poller.planner.units import Floats, Table, Units

_NEVER = 1e200  # score of a unit that was never polled, minus its position in the queue
_RANK_AGAIN = 60.0  # seconds until a ranking of up to 10,000 units expires
_SPARE = 2  # calls kept in reserve for a `max_staleness`


class Scores:
    """The index by which units are ranked. A factor close to 1 for each slot decides between equal units."""

    def __init__(self, table: Table, models: Models, *, seed: int) -> None:
        self._table = table
        self._models = models
        self._random = np.random.default_rng(seed)
        self._tie_break = self._drawn()

    def fit(self) -> None:
        """Follow a table that has grown."""
        if self._tie_break.size < self._table.source.size:
            self._tie_break = np.concatenate((self._tie_break, self._drawn()))[: self._table.source.size]

    def at(self, now: float) -> tuple[Floats, Expected]:
        """Accumulated weighted delay per call of each slot, and what that follows from."""
        table, top = self._table, self._table.top
        found = expected(table, self._models, now)
        score = found.gathered * table.weight[:top] / np.maximum(table.cost[:top], 1.0) * self._tie_break[:top]
        if (never := found.never).size:
            score[never] = _NEVER - table.place[never] * (_NEVER * 1e-12)
        return score, found

    def _drawn(self) -> Floats:
        return self._random.uniform(1 - 1e-6, 1 + 1e-6, self._table.source.size)


class FirstPolls:
    """Units that were never polled, in the order in which they were added."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._queue: deque[tuple[int, int]] = deque()  # slot, and its place at that time

    def __len__(self) -> int:
        """Length of the queue, including entries that are no longer valid."""
        return len(self._queue)

    def add(self, slot: int) -> None:
        """Append a unit."""
        if len(self._queue) > 2 * self._table.source.size:
            self._queue = deque(entry for entry in self._queue if self._is_valid(*entry))
        self._queue.append((slot, int(self._table.place[slot])))

    def next(self, now: float) -> int | None:
        """The first unit that is ready."""
        while self._queue:
            slot, place = self._queue[0]
            if self._is_valid(slot, place) and self._table.ready[slot] <= now:
                return slot
            self._queue.popleft()  # polled, in flight, deferred or removed: the ranking covers those
        return None

    def _is_valid(self, slot: int, place: int) -> bool:
        return math.isnan(self._table.last[slot]) and self._table.place[slot] == place


class Ranking:
    """The best units, computed now and then: polls in between take the next one."""

    def __init__(self, units: Units, scores: Scores, pacing: Pacing) -> None:
        self._units = units
        self._table = units.table
        self._scores = scores
        self._pacing = pacing
        self.first_polls = FirstPolls(units.table)
        self.forget()

    def forget(self) -> None:
        """Forget the ranking: it is computed again when it is needed."""
        self._at = -math.inf
        self._queue: list[int] = []  # the best one last
        self._urgent: list[int] = []
        self._urgent_at = math.inf
        self._used = 0
        self._polled: set[int] = set()
        self._news = True
        self._pacing.forget()

    def next(self, now: float) -> int | None:
        """The slot of the best unit to poll now; None while all units are in flight or deferred."""
        slot = self.first_polls.next(now)
        if slot is None:
            if self.is_outdated(now) or self._used >= max(1, len(self._units) // 500):
                self.compute(now)
            slot = self._first_ready(self._urgent, now) if now >= self._urgent_at else None
        if slot is None:
            slot = self._first_ready(self._queue, now)
        if slot is None and (self._news or self._at != now):
            self.compute(now)
            slot = self._first_ready(self._queue, now)
        return slot

    def started(self) -> None:
        """Note that a unit is in flight."""
        self._used += 1

    def released(self, slot: int) -> None:
        """Note that a unit may be chosen again at once."""
        self._queue.append(slot)

    def deferred(self) -> None:
        """Note that a unit becomes ready by itself."""
        self._news = True

    def observed(self, slot: int) -> None:
        """Note that a unit was polled."""
        self._polled.add(slot)
        self._news = True

    def is_outdated(self, now: float) -> bool:
        """Whether the ranking has expired."""
        return not 0 <= now - self._at < _RANK_AGAIN * max(1.0, len(self._units) / 10_000)

    def compute(self, now: float) -> None:
        """Rank the best units and those that `max_staleness` makes urgent; update what the pace depends on."""
        table, top = self._table, self._table.top
        score, found = self._scores.at(now)
        score[table.ready[:top] > now] = -1.0
        wanted = min(max(8, top // 200), top)
        best = np.argpartition(score, top - wanted)[top - wanted :] if wanted < top else np.arange(top)
        best = best[np.argsort(score[best], kind="stable")]
        self._queue = best[score[best] >= 0].tolist()
        self._at, self._used, self._news = now, 0, False
        self._polled.clear()
        self._pacing.demand(now, found)
        self._promise(now)

    def _first_ready(self, line: list[int], now: float) -> int | None:
        """The first unit of a queue (stored in reverse) that is ready and was not polled since the ranking."""
        while line:
            slot = line[-1]
            if self._table.ready[slot] <= now and slot not in self._polled:
                return slot
            line.pop()
        return None

    def _promise(self, now: float) -> None:
        """Find the latest moment from which only units with a `max_staleness` are polled, earliest deadline first.

        With the deadlines in order, the first j polls must start at least j calls before the j-th deadline.
        """
        self._urgent, self._urgent_at, self._pacing.needed = [], math.inf, 0.0
        speed = self._pacing.calls_per_second
        if not self._units.limited or not speed:
            return
        table, top = self._table, self._table.top
        bound = np.flatnonzero((table.limit[:top] < math.inf) & (table.ready[:top] <= now) & (table.last[:top] <= now))
        if not bound.size:
            return
        deadlines = table.last[bound] + table.limit[bound]
        order = np.argsort(deadlines, kind="stable")
        deadlines, calls = deadlines[order], np.cumsum(table.cost[bound[order]])
        self._urgent = bound[order][::-1].tolist()
        self._urgent_at = float((deadlines - (calls + _SPARE) / speed).min())
        left = np.maximum(deadlines - now, 1 / speed)
        self._pacing.needed = float((calls / left).max())
