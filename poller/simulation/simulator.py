"""Simulator: the real planner and budget on a virtual clock, and the detection delay of each change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from poller.budget.budget import Budget
from poller.budget.limits import Limit, allowed
from poller.planner.planner import Planner, explanations
from poller.planner.unit import Unit
from poller.simulation import bounds
from poller.simulation.worlds import DAY, HOUR, World

Floats = NDArray[np.float64]

LATENCY = 0.2  # seconds until a call is answered
_THINK_AGAIN = 60.0  # seconds for which a pace is kept
_TELL_AGAIN = 600.0  # simulated seconds between two words about progress

Progress = Callable[[float], None]


def nobody(_share: float) -> None:
    """Progress that nobody waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Detection delays of the period's ordinary changes, one element for each change that was found. In seconds."""

    found: Floats = field(repr=False)
    in_turn: Floats = field(repr=False)  # when polling in turn
    happened: Floats = field(repr=False)  # since the world's start
    owners: NDArray[np.intp] = field(repr=False)  # unit number
    unseen: int  # changes that no poll found before the end

    def mean_between(self, since: float, until: float) -> float:
        """The mean delay of changes between two moments, in seconds from the world's start."""
        return float(self.found[(self.happened >= since) & (self.happened < until)].mean())

    def percentile(self, percent: float) -> float:
        """The delay that `percent` of the changes did not exceed."""
        return float(np.percentile(self.found, percent)) if self.found.size else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a simulated period, compared with polling in turn and the lower bounds. Mean delays in seconds."""

    world: str
    units: int
    days: float
    calls: int
    most: float  # calls that the windows allow in that time
    delays: Delays
    polls: NDArray[np.intp] = field(repr=False)  # number of polls of each unit
    mean: float
    in_turn: float
    optimum: float
    hourly_bound: float
    stalest: float  # the longest time between two polls of a unit

    @property
    def used(self) -> float:
        """The share of the available calls that was used."""
        return self.calls / self.most


def units_of(world: World, *, source: str = "world", max_staleness: float | None = None) -> list[Unit]:
    """A unit for each unit of the world, named by its number."""
    return [Unit(source, "pages", str(number), max_staleness=max_staleness) for number in range(world.units)]


def simulate_world(
    world: World,
    *,
    limits: Sequence[Limit],
    share: float = 1.0,
    units: Sequence[Unit] | None = None,
    planner: Planner | None = None,
    since: float = 0.0,
    until: float = math.inf,
    seed: int = 0,
    latency: float = LATENCY,
    progress: Progress = nobody,
) -> Result:
    """Poll a world with the real planner and budget, and measure the delays of changes from `since` to `until`.

    `units` correspond to the world's units, in order (default: `units_of`); `planner` must contain them (default: a new
    planner). `since` and `until` are seconds from the world's start. `progress` is called with the share of the period
    that is done, from time to time. Raises ValueError if the number of units differs
    from the world's, or if there are no limits.
    """
    known = list(units) if units is not None else units_of(world)
    if len(known) != world.units or not limits:
        raise ValueError(f"{len(known)} units and {len(limits)} limits for a world of {world.units} units")
    planner = planner if planner is not None else Planner(known, now=world.start, seed=seed)
    run = _Run(world, known, Budget("simulated", limits, share=share, seed=seed), planner, latency)
    run.to(world.start + world.seconds, progress)
    return _result(
        run, world.start + since, world.start + until, allowed(limits, share), _most(limits, share, world.seconds)
    )


class _Run:
    """Simulation of one world."""

    def __init__(self, world: World, units: list[Unit], budget: Budget, planner: Planner, latency: float) -> None:
        self.world, self.units, self.budget, self.planner, self.latency = world, units, budget, planner, latency
        self.now = world.start
        self.found = np.full(world.times.size, np.nan)
        last = {one.unit: one.last_poll for one in explanations(planner, self.now)}
        self.polled = [math.nan if (at := last[unit]) is None else at for unit in units]
        self.polls = np.zeros(len(units), np.intp)
        self.calls = 0
        self.gaps: list[tuple[float, float]] = []  # (when, seconds since the poll before)
        self._numbers = {unit: number for number, unit in enumerate(units)}
        self._seen = world.offsets[:-1].tolist()
        self._ends = world.offsets[1:].tolist()
        self._unpolled = sum(map(math.isnan, self.polled))
        self._gap = 0.0  # seconds between calls at the current pace
        self._paced = -math.inf

    def to(self, end: float, progress: Progress) -> None:
        """Poll until the instant `end`."""
        told = began = self.now
        while self.now < end:
            if self.now - told >= _TELL_AGAIN:
                told = self.now
                progress((told - began) / (end - began))
            wait = self.budget.wait(self.now)
            unit = self.planner.choose(self.now) if not wait else None
            if unit is None:
                self.now = self._later(wait)
            else:
                self._poll(unit)

    def _later(self, wait: float) -> float:
        if wait:
            return self.now + wait
        due = self.planner.next_due(self.now)
        return math.inf if due is None else max(due, self.now + 0.001)

    def _poll(self, unit: Unit) -> None:
        sent = self.now
        self.planner.started(unit)
        for _ in range(unit.cost):
            self.now += self.budget.wait(self.now)
            call = self.budget.spend(self.now)
            self.now += self.latency
            self.budget.answered(call, self.now)
        self.calls += unit.cost
        number = self._numbers[unit]
        self.planner.observe(unit, self.now, self._look(number, sent))
        if math.isnan(self.polled[number]):
            self._unpolled -= 1
        else:
            self.gaps.append((sent, sent - self.polled[number]))
        self.polled[number] = sent
        self.polls[number] += 1
        if not self._unpolled:  # a first sweep is not paced
            self.now = max(self.now, sent + unit.cost * self._pace())

    def _look(self, number: int, when: float) -> int:
        """The number of changes that a request sent at `when` shows for the first time."""
        first, times = self._seen[number], self.world.times
        at, end = first, self._ends[number]
        while at < end and times[at] <= when:
            at += 1
        self.found[first:at] = self.now
        self._seen[number] = at
        return int(at - first)

    def _pace(self) -> float:
        if self.now - self._paced >= _THINK_AGAIN:
            ahead = self.budget.forecast(self.now)
            rate = max(self.planner.pace(self.now, ahead.left, ahead.seconds), ahead.least)
            self._gap = 1 / rate if rate > 0 else 1.0
            self._paced = self.now
        return self._gap


def _most(limits: Sequence[Limit], share: float, seconds: float) -> float:
    """The most calls that the windows allow; a period shorter than a window may use all of it."""
    return min(allowed([limit], share) * max(limit.seconds, seconds) for limit in limits)


def _in_turn(owners: NDArray[np.intp], times: Floats, costs: Floats, available: float) -> Floats:
    """The delays of the same changes when units are polled in turn."""
    turn = np.cumsum(costs) / available
    delays: Floats = (turn[owners] - times) % turn[-1]
    return delays


def _result(run: _Run, since: float, until: float, available: float, most: float) -> Result:
    world = run.world
    weights = np.array([unit.weight for unit in run.units])
    costs = np.array([float(unit.cost) for unit in run.units])
    counted = world.ordinary & (world.times >= since) & (world.times < until)
    found = counted & ~np.isnan(run.found)
    delays = (run.found - world.times)[found]
    owners = np.repeat(np.arange(world.units), np.diff(world.offsets))
    hours = slice(int((since - world.start) // HOUR), None if math.isinf(until) else int((until - world.start) // HOUR))
    hourly = world.hourly[:, hours]
    rates = hourly.mean(axis=1)
    return Result(
        world=world.name,
        units=world.units,
        days=world.seconds / DAY,
        calls=run.calls,
        most=most,
        delays=Delays(
            found=delays,
            in_turn=_in_turn(owners[found], world.times[found] - world.start, costs, available),
            happened=world.times[found] - world.start,
            owners=owners[found],
            unseen=int(counted.sum() - found.sum()),
        ),
        polls=run.polls,
        mean=float(np.average(delays, weights=weights[owners[found]])) if delays.size else math.nan,
        in_turn=bounds.in_turn(available, units=world.units, costs=costs),
        optimum=bounds.optimum(rates, available, weights=weights, costs=costs),
        hourly_bound=bounds.hourly(hourly, available, weights=weights, costs=costs),
        stalest=max((gap for when, gap in run.gaps if when >= since), default=math.nan),
    )
