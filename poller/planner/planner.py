"""The planner of a budget: chooses which unit is polled next, and learns from each poll. Pure.

The next poll goes to the unit with the most accumulated weighted delay per call: argmax of w A / c, where A is the
integral of the expected number of unseen changes since the unit's last poll. With constant known rates the index is w l
tau^2 / (2 c), the Whittle index of the age cost, and the mean delay is within 0.1 % of the optimum D* = (sum sqrt(w l
c))^2 / (2 B sum w l) (Coffman, Liu & Weber 1998; Tripathi & Modiano 2019). Every unit's index grows without bound, so
no unit is starved and exploration needs no bonus. Rates, rhythm and bursts are learned in `poller.planner.learning`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
import orjson

from poller.planner.explanation import Explanation, Figures, explained
from poller.planner.learning import DAY, HOUR, HOURS, KERNEL_SPANS, PRIOR, Floats, SourceModel
from poller.planner.units import LEARNED, Table, Unit, plain, read

_QUIET = 1e-3  # excitation below this is dropped
_NEVER = 1e200  # score of a unit that was never polled, minus its position in the queue
_RANK_AGAIN = 60.0  # seconds until a ranking of up to 10,000 units expires
_PACE = (0.3, 3.0)
_RECENT = HOUR
_SPARE = 2  # calls kept in reserve for a `max_staleness`


__all__ = ["Explanation", "Planner", "Unit"]


class Planner:
    """Planner of one budget: a deterministic function of its inputs and the seed.

    `started`, `released`, `observe`, `defer`, `excite` and `inherit` ignore a unit that the planner does not know, such
    as one removed while a poll was in flight.
    """

    def __init__(self, units: Iterable[Unit], *, now: float, seed: int = 0) -> None:
        known = list(units)
        self._slots: dict[Unit, int] = {}
        self._units: list[Unit | None] = []
        self._table = Table(len(known))
        self._random = np.random.default_rng(seed)
        self._tie_break = self._draw_tie_break()
        self._sources: dict[str, int] = {}
        self._models: list[SourceModel] = []
        self._places = 0
        self._limited = 0
        self._calls = 0.0  # answered calls, discounted over an hour
        self._began: float | None = None
        self._answered = now
        self._swell = 1.0  # by how much bursts raise the sum of root rates, averaged over a day
        self._swelled: float | None = None
        self._fresh: deque[tuple[int, int]] = deque()  # slot and position of each unit that was never polled
        self._forget_ranking()
        for unit in known:
            self.add(unit, now=now)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, unit: object) -> bool:
        return unit in self._slots

    @property
    def capacity(self) -> int:
        """The number of units for which memory is allocated."""
        return int(self._table.source.size)

    @property
    def waiting(self) -> int:
        """Length of the queue of never polled units, including entries that are no longer valid."""
        return len(self._fresh)

    @property
    def units(self) -> list[Unit]:
        """All units, in no particular order."""
        return [unit for unit in self._units if unit is not None]

    @property
    def promised(self) -> list[Unit]:
        """The units that have a `max_staleness`."""
        limited = np.flatnonzero(self._table.limit[: self._table.top] < math.inf) if self._limited else ()
        return [unit for slot in limited if (unit := self._units[slot]) is not None]

    def add(self, unit: Unit, *, now: float) -> None:
        """Add a unit, to be polled before all units that have been polled; a known unit gets the new cost, weight and
        limit.
        """
        slot = self._slots.get(unit)
        if slot is None:
            slot = self._settle(unit, now)
        else:
            self._limited -= bool(self._table.limit[slot] < math.inf)
        self._slots[unit] = slot
        self._units[slot] = unit
        table = self._table
        table.weight[slot] = unit.weight
        table.cost[slot] = unit.cost
        table.limit[slot] = math.inf if unit.max_staleness is None else unit.max_staleness
        self._limited += unit.max_staleness is not None

    def remove(self, unit: Unit) -> None:
        """Remove a unit and its statistics."""
        slot = self._slots.pop(unit, None)
        if slot is None:
            return
        table = self._table
        self._limited -= bool(table.limit[slot] < math.inf)
        model = self._models[table.source[slot]]
        model.changes -= float(table.changes[slot])
        model.exposure -= float(table.exposure[slot])
        table.rows[:, slot] = 0.0
        table.ready[slot] = math.inf
        table.limit[slot] = math.inf
        self._units[slot] = None
        table.free.append(slot)

    def choose(self, now: float) -> Unit | None:
        """The best unit to poll now, or None while all units are in flight or deferred. Has no effect on the plan."""
        slot = self._next_fresh(now)
        if slot is None:
            if self._ranking_is_old(now):
                self._rank(now)
            slot = self._next_urgent(now)
        if slot is None:
            slot = self._next_ranked(now)
        if slot is None and (self._news or self._ranked_at != now):
            self._rank(now)
            slot = self._next_ranked(now)
        return None if slot is None else self._units[slot]

    def next_due(self, now: float, source: str | None = None) -> float | None:
        """The earliest instant at which `choose` returns a unit (of one source); None if that depends on an answer or a
        new unit.
        """
        ready = self._table.ready[: self._table.top]
        if source is not None:
            ready = ready[self._table.source[: self._table.top] == self._sources.get(source, -1)]
        earliest = float(ready.min()) if ready.size else math.inf
        return None if earliest == math.inf else max(earliest, now)

    def started(self, unit: Unit) -> None:
        """Mark a unit as in flight: it is not chosen until it is observed, deferred or released."""
        slot = self._slots.get(unit)
        if slot is not None:
            self._table.ready[slot] = math.inf
            self._used += 1

    def released(self, unit: Unit) -> None:
        """Return a unit whose poll had no result; it may be chosen again at once."""
        slot = self._slots.get(unit)
        if slot is not None:
            self._table.ready[slot] = -math.inf
            self._queue.append(slot)

    def defer(self, unit: Unit, until: float) -> None:
        """Postpone a unit after a failed poll; its age keeps growing."""
        slot = self._slots.get(unit)
        if slot is not None:
            self._table.ready[slot] = until
            self._news = True

    def observe(self, unit: Unit, now: float, changed: int) -> None:
        """Learn from a poll that found `changed` objects changed. The first poll of a unit only sets its time."""
        slot = self._slots.get(unit)
        if slot is None:
            return
        self._count(now, unit.cost)
        table = self._table
        model = self._models[table.source[slot]]
        last = float(table.last[slot])
        if now > last:
            self._learn(slot, model, last, now, changed)
        table.last[slot] = now
        table.profile_integral[slot] = model.rhythm.integral(now)
        table.ready[slot] = -math.inf
        self._polled.add(slot)
        self._news = True
        if model.refit_due(now):
            self._refit(now)

    def polled(self, unit: Unit, at: float) -> None:
        """Set when a unit was last polled if what that poll taught is unavailable, as after a crash. An earlier time is
        ignored.
        """
        slot = self._slots.get(unit)
        if slot is not None and not at <= self._table.last[slot]:
            self._table.last[slot] = at
            self._table.profile_integral[slot] = self._models[self._table.source[slot]].rhythm.integral(at)
            self._forget_ranking()

    def excite(self, unit: Unit, changed: int) -> None:
        """Expect changes in a child unit because its parent changed `changed` times."""
        slot = self._slots.get(unit)
        if slot is not None:
            self._table.minutes[slot] += changed
            self._table.hours[slot] += changed

    def inherit(self, new: Unit, old: Unit, *, keep: float = 0.3) -> None:
        """Copy the rate of the old last page to the new one; the old one keeps the share `keep` of it."""
        table, heir, giver = self._table, self._slots.get(new), self._slots.get(old)
        if heir is None or giver is None:
            return
        for column in (table.changes, table.minutes, table.hours):
            column[heir] = column[giver]
            column[giver] *= keep
        table.exposure[heir] = table.exposure[giver]
        self._recount(table.source[heir])

    def pace(self, now: float, left: int, seconds: float) -> float:
        """Calls per second to spend now, given `left` calls for the next `seconds`: more while changes are frequent.

        The pace is proportional to sum sqrt(w c l(t)) (Sia, Cho & Cho 2007), stays between 0.3 and 3 times the even
        pace, and is at least what `max_staleness` requires (at most 3 times the even pace).
        """
        even = left / seconds
        if self._slots and self._is_outdated(now):
            self._rank(now)
        factor = min(max(self._drive(now, seconds), _PACE[0]), _PACE[1])
        return min(max(even * factor, 1.02 * self._needed), even * _PACE[1])

    def explain(self, unit: Unit, now: float, *, calls_per_second: float | None = None) -> Explanation:
        """The explanation of one unit. Raises KeyError for a unit that was not added."""
        slot = self._slots[unit]
        return next(one for one in self._explanations(now, calls_per_second, [slot]))

    def explanations(self, now: float, *, calls_per_second: float | None = None) -> list[Explanation]:
        """The explanations of all units, the next one first."""
        found = self._explanations(now, calls_per_second, list(self._slots.values()))
        return sorted(found, key=lambda one: one.rank)

    def rhythm(self, source: str) -> list[float]:
        """The learned hour-of-week profile with mean 1, starting at Thursday midnight UTC like the Unix epoch."""
        at = self._sources.get(source)
        return [1.0] * HOURS if at is None else self._models[at].rhythm.levels.tolist()

    def dump(self) -> bytes:
        """What the planner has learned, for `load`: last polls, rates, excitation, rhythm, deferrals."""
        table, slots = self._table, list(self._slots.values())
        return orjson.dumps(
            {
                "version": 1,
                "units": [[unit.source, unit.endpoint, unit.key] for unit in self._slots],
                "columns": {name: plain(getattr(table, name)[slots]) for name in LEARNED},
                "sources": {name: self._models[at].dump() for name, at in sorted(self._sources.items())},
                "pace": [self._calls, self._began, self._answered, self._swell, self._swelled],
            }
        )

    def load(self, saved: bytes, *, moved: float = 0.0) -> None:
        """Restore what `dump` returned, for the units that still exist. Raises ValueError, and changes nothing, for
        other data.

        `moved` is the number of seconds by which the clock has been set since the dump: all saved times are shifted by
        it. Units that were in flight at the dump may be chosen again.
        """
        try:
            units, columns, sources, pace = read(saved, moved=moved)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"this is not a saved planner: {error}") from error
        pairs = [(slot, at) for at, unit in enumerate(units) if (slot := self._slots.get(unit)) is not None]
        slots, places = [slot for slot, _ in pairs], [at for _, at in pairs]
        table = self._table
        for name, values in columns.items():
            getattr(table, name)[slots] = values[places]
        for name, model in sources.items():
            self._models[self._source(name, 0.0)] = model
        self._calls, self._began, self._answered, self._swell, self._swelled = pace
        for source in range(len(self._models)):
            self._recount(source)
        self._restate_integrals()
        self._forget_ranking()

    def _settle(self, unit: Unit, now: float) -> int:
        table = self._table
        slot = table.take()
        if self._tie_break.size < table.source.size:
            self._tie_break = np.concatenate((self._tie_break, self._draw_tie_break()))[: table.source.size]
        if slot == len(self._units):
            self._units.append(None)
        table.rows[:, slot] = 0.0
        table.source[slot] = self._source(unit.source, now)
        table.last[slot] = math.nan
        table.ready[slot] = -math.inf
        table.place[slot] = self._places
        if len(self._fresh) > 2 * table.source.size:
            self._fresh = deque(entry for entry in self._fresh if self._is_fresh(*entry))
        self._fresh.append((slot, self._places))
        self._places += 1
        return slot

    def _source(self, name: str, now: float) -> int:
        if name not in self._sources:
            self._sources[name] = len(self._models)
            self._models.append(SourceModel(now))
        return self._sources[name]

    def _draw_tie_break(self) -> Floats:
        return self._random.uniform(1 - 1e-6, 1 + 1e-6, self._table.source.size)

    def _learn(self, slot: int, model: SourceModel, last: float, now: float, changed: int) -> None:
        table, tau = self._table, now - last
        changes, exposure = float(table.changes[slot]), float(table.exposure[slot])
        rate = (PRIOR + changes) / (PRIOR / model.pooled + exposure)
        passed = model.rhythm.integral(now) - float(table.profile_integral[slot])
        fades = math.exp(-tau / KERNEL_SPANS[0]), math.exp(-tau / KERNEL_SPANS[1])
        held = float(table.minutes[slot]), float(table.hours[slot])
        exposed = held[0] * (1 - fades[0]), held[1] * (1 - fades[1])
        counted, own = model.split(changed, rate * passed, exposed)
        for column, kept, fade, span in zip((table.minutes, table.hours), held, fades, KERNEL_SPANS, strict=True):
            excited = kept * fade + counted * span / tau * (1 - fade)
            column[slot] = excited if excited > _QUIET else 0.0
        memory = math.exp(-tau / self._memory())
        table.changes[slot] = changes * memory + own
        table.exposure[slot] = exposure * memory + passed
        model.changes += float(table.changes[slot]) - changes
        model.exposure += float(table.exposure[slot]) - exposure
        model.rhythm.learn(last, now, own, rate)

    def _memory(self) -> float:
        """The time constant of the discounting, in seconds; longer where polls are rare."""
        polls_a_day = self.calls_per_second * DAY / max(len(self._slots), 1)
        return 7 * DAY if polls_a_day >= 5 else 30 * DAY

    def _count(self, now: float, cost: int) -> None:
        if self._began is None:
            self._began = now - 1.0
        elapsed = max(now - self._answered, 0.0)
        self._calls = self._calls * math.exp(-elapsed / _RECENT) + cost
        self._answered = max(now, self._answered)

    @property
    def calls_per_second(self) -> float:
        """Answered calls per second, averaged over about the last hour."""
        if self._began is None:
            return 0.0
        span = _RECENT * (1 - math.exp(-(self._answered - self._began) / _RECENT))
        return self._calls / span if span > 0 else 0.0

    def _refit(self, now: float) -> None:
        for source, model in enumerate(self._models):
            model.refit(now)
            self._recount(source)
        self._restate_integrals()
        self._forget_ranking()

    def _restate_integrals(self) -> None:
        """Recompute each unit's integral up to its last poll, because the profile has changed."""
        table = self._table
        for source, model in enumerate(self._models):
            of_source = np.flatnonzero(table.source[: table.top] == source)
            table.profile_integral[of_source] = model.rhythm.integrals(table.last[of_source])

    def _recount(self, source: int) -> None:
        """Recompute a source's sums, because differences accumulate rounding errors."""
        table = self._table
        of_source = table.source[: table.top] == source
        self._models[source].changes = float(table.changes[: table.top][of_source].sum())
        self._models[source].exposure = float(table.exposure[: table.top][of_source].sum())

    def _forget_ranking(self) -> None:
        self._ranked_at = -math.inf
        self._queue: list[int] = []
        self._urgent: list[int] = []
        self._urgent_at = math.inf
        self._used = 0
        self._polled: set[int] = set()
        self._news = True
        self._roots: list[float] = []
        self._current = 0.0
        self._needed = 0.0

    def _ranking_is_old(self, now: float) -> bool:
        return self._is_outdated(now) or self._used >= max(1, len(self._slots) // 500)

    def _is_outdated(self, now: float) -> bool:
        return not 0 <= now - self._ranked_at < _RANK_AGAIN * max(1.0, len(self._slots) / 10_000)

    def _next_fresh(self, now: float) -> int | None:
        table, fresh = self._table, self._fresh
        while fresh:
            slot, place = fresh[0]
            if self._is_fresh(slot, place) and table.ready[slot] <= now:
                return slot
            fresh.popleft()  # polled, in flight, deferred or removed: `_rank` covers those
        return None

    def _is_fresh(self, slot: int, place: int) -> bool:
        return math.isnan(self._table.last[slot]) and self._table.place[slot] == place

    def _next_urgent(self, now: float) -> int | None:
        return self._first_ready(self._urgent, now) if now >= self._urgent_at else None

    def _next_ranked(self, now: float) -> int | None:
        return self._first_ready(self._queue, now)

    def _first_ready(self, line: list[int], now: float) -> int | None:
        """The first unit of a queue (stored in reverse) that is ready and was not polled since the ranking."""
        table = self._table
        while line:
            slot = line[-1]
            if table.ready[slot] <= now and slot not in self._polled:
                return slot
            line.pop()
        return None

    def _rank(self, now: float) -> None:
        """Rank the best units and those that `max_staleness` makes urgent; update what the pace depends on."""
        table, top = self._table, self._table.top
        score, rate = self._scores(now)
        score[table.ready[:top] > now] = -1.0
        wanted = min(max(8, top // 200), top)
        best = np.argpartition(score, top - wanted)[top - wanted :] if wanted < top else np.arange(top)
        best = best[np.argsort(score[best], kind="stable")]
        self._queue = best[score[best] >= 0].tolist()
        self._ranked_at, self._used, self._news = now, 0, False
        self._polled.clear()
        self._demand(now, rate)
        self._promise(now)

    def _scores(self, now: float) -> tuple[Floats, Floats]:
        """Accumulated weighted delay per call, and current expected rate, of each slot."""
        table, top = self._table, self._table.top
        last, source = table.last[:top], table.source[:top]
        tau = np.maximum(now - last, 0.0)
        base = self._base_rates()
        passed = np.array([model.rhythm.integral(now) for model in self._models])[source] - table.profile_integral[:top]
        gathered = base * np.maximum(passed, 0.0) * tau / 2
        rate = base * np.array([model.rhythm.at(now) for model in self._models])[source]
        for kind, held in enumerate((table.minutes[:top], table.hours[:top])):
            excited = np.flatnonzero(held > _QUIET)
            if not excited.size:
                continue
            span, age = KERNEL_SPANS[kind], tau[excited]
            eta = np.array([model.eta[kind] for model in self._models])[source[excited]] * held[excited]
            fade = np.exp(-age / span)
            gathered[excited] += eta * (age - span * (1 - fade))
            rate[excited] += eta * fade / span
        score = gathered * table.weight[:top] / np.maximum(table.cost[:top], 1.0) * self._tie_break[:top]
        never = np.flatnonzero(np.isnan(last))
        score[never] = _NEVER - table.place[never] * (_NEVER * 1e-12)
        rate[never] = base[never]
        return score, rate

    def _base_rates(self) -> Floats:
        table, top = self._table, self._table.top
        pooled = np.array([model.pooled for model in self._models])[table.source[:top]]
        rates: Floats = (PRIOR + table.changes[:top]) / (PRIOR / pooled + table.exposure[:top])
        return rates

    def _demand(self, now: float, rate: Floats) -> None:
        """Record the current demand and the sources' root rates, from which the usual demand of any hour follows."""
        table, top = self._table, self._table.top
        weighted = np.where(np.isnan(table.last[:top]), 0.0, table.weight[:top] * table.cost[:top])
        roots = np.sqrt(weighted * self._base_rates())
        self._roots = np.bincount(table.source[:top], roots, len(self._models)).tolist()
        usual = sum(
            root * math.sqrt(model.rhythm.at(now)) for root, model in zip(self._roots, self._models, strict=True)
        )
        self._current = float(np.sqrt(weighted * rate).sum())
        elapsed = 0.0 if self._swelled is None else max(now - self._swelled, 0.0)
        if usual:
            self._swell += (self._current / usual - self._swell) * (1 - math.exp(-elapsed / DAY))
        self._swelled = now

    def _drive(self, now: float, seconds: float) -> float:
        """Demand now relative to the average demand of the next `seconds`."""
        coming = sum(
            root * model.rhythm.mean_root(now, seconds) for root, model in zip(self._roots, self._models, strict=False)
        )
        return self._current / (coming * self._swell) if coming else 1.0

    def _promise(self, now: float) -> None:
        """Find the latest moment from which only units with a `max_staleness` are polled, earliest deadline first.

        With the deadlines in order, the first j polls must start at least j calls before the j-th deadline.
        """
        self._urgent, self._urgent_at, self._needed = [], math.inf, 0.0
        speed = self.calls_per_second
        if not self._limited or not speed:
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
        self._needed = float((calls / left).max())

    def _explanations(self, now: float, calls_per_second: float | None, slots: list[int]) -> list[Explanation]:
        score, rate = self._scores(now)
        offspring = np.array([sum(model.eta) for model in self._models])
        mean = self._base_rates() / (1 - offspring[self._table.source[: self._table.top]])
        units = [(slot, unit) for slot in slots if (unit := self._units[slot]) is not None]
        calls = calls_per_second or self.calls_per_second or 1.0
        return explained(units, self._table, Figures(now=now, score=score, rate=rate, mean=mean, calls=calls))
