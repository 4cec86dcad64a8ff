"""Scenarios: the budgets of a configuration on a virtual clock, in a world of learned rates or of recorded changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from poller.budget.limits import allowed
from poller.planner.learning import HOURS
from poller.planner.planner import Planner, Unit, explanations
from poller.planner.report import PlannerState, WhatIf
from poller.simulation import worlds
from poller.simulation.simulator import Progress, Result, nobody, simulate_world
from poller.simulation.worlds import DAY, HOUR, World
from state.status import SeenChange

DAYS = 14.0  # default
LATENCY = 0.05  # least seconds between calls: four in flight, 0.2 s each
MOST_CALLS = 500_000  # of a scenario without given days; takes half a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDelay:
    """Detection delay of the changes of one endpoint; spans in seconds."""

    source: str
    endpoint: str
    units: int
    weight: float
    changes: int
    calls_per_day: float
    mean: float
    in_turn: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Simulated days of one budget."""

    budget: str
    result: Result
    endpoints: tuple[EndpointDelay, ...]


def changed(state: PlannerState, what_if: WhatIf) -> PlannerState:
    """The state with the hypothetical share, limits and weights."""
    weights = what_if.weights
    for unit in state.planner.units:
        weight = weights.get(f"{unit.source}/{unit.endpoint}", weights.get(unit.endpoint))
        if weight is not None:
            state.planner.add(replace(unit, weight=weight), now=state.now)
    share = state.share if what_if.share is None else what_if.share
    return replace(state, share=share, limits=what_if.limits or state.limits)


def run_scenario(
    state: PlannerState,
    *,
    days: float | None = None,
    changes_per_day: float | None = None,
    seed: int = 0,
    progress: Progress = nobody,
) -> Scenario:
    """Simulate a budget from its planner's current state, in a world with the learned rates and weekly rhythm.

    `changes_per_day` scales the rates to that total. The world has no bursts; with bursts the planner does better.
    """
    days = span(state) if days is None else days
    found = explanations(state.planner, state.now)
    units = [one.unit for one in found]
    start = np.ceil(state.now / HOUR) * HOUR
    hours = (int(start // HOUR) + np.arange(max(1, round(days * 24)))) % HOURS
    rhythms = {name: np.array(state.planner.models.rhythm(name))[hours] for name in {unit.source for unit in units}}
    hourly = np.array([one.mean_rate * rhythms[one.unit.source] for one in found])
    if changes_per_day is not None:
        hourly *= changes_per_day / DAY / hourly.sum(axis=0).mean()
    world = worlds.expected(hourly, start=float(start), seed=seed, name=f"budget {state.budget}")
    return _simulated(state, world, units, state.planner, seed, progress)


def replay(
    state: PlannerState,
    seen: Iterable[SeenChange],
    *,
    days: float | None = None,
    seed: int = 0,
    progress: Progress = nobody,
) -> Scenario | None:
    """Poll the recorded changes of the last `days` again, with a planner that has learned nothing yet.

    Returns None if no changes were recorded. The time of each change is drawn at random between the last poll without
    it and the first poll with it.
    """
    units = list(state.planner.units)
    numbers = {unit: number for number, unit in enumerate(units)}
    first = {(unit.source, unit.endpoint): number for number, unit in reversed(list(enumerate(units)))}
    random = np.random.default_rng(seed)
    histories: list[list[float]] = [[] for _ in units]
    for one in seen:
        # An object that is no longer on any page counts for the first page of its endpoint.
        number = numbers.get(Unit(one.source, one.endpoint, one.key or ""), first.get((one.source, one.endpoint)))
        if number is not None:
            histories[number].append(float(random.uniform(one.after, one.time)))
    times = [time for history in histories for time in history]
    if not times:
        return None
    end = max(times) + 1.0
    start = max(min(times), end - days * DAY) if days is not None else min(times)
    name = f"budget {state.budget}, as recorded"
    world = worlds.recorded(histories, start=float(np.floor(start / HOUR) * HOUR), end=end, name=name)
    return _simulated(state, world, units, Planner(units, now=world.start, seed=seed), seed, progress)


def span(state: PlannerState) -> float:
    """Default number of days of a scenario: as many as take half a minute."""
    return min(DAYS, MOST_CALLS / (min(allowed(state.limits, state.share), 1 / LATENCY) * DAY))


def _simulated(
    state: PlannerState, world: World, units: Sequence[Unit], planner: Planner, seed: int, progress: Progress
) -> Scenario:
    result = simulate_world(
        world,
        limits=state.limits,
        share=state.share,
        units=units,
        planner=planner,
        seed=seed,
        latency=LATENCY,
        progress=progress,
    )
    groups: dict[tuple[str, str], list[int]] = {}
    for number, unit in enumerate(units):
        groups.setdefault((unit.source, unit.endpoint), []).append(number)
    endpoints = tuple(
        _endpoint(result, name, numbers, [units[number] for number in numbers])
        for name, numbers in sorted(groups.items())
    )
    return Scenario(budget=state.budget, result=result, endpoints=endpoints)


def _endpoint(result: Result, name: tuple[str, str], numbers: Sequence[int], units: Sequence[Unit]) -> EndpointDelay:
    mine = np.isin(result.delays.owners, numbers)
    calls = sum(int(result.polls[number]) * unit.cost for number, unit in zip(numbers, units, strict=True))
    return EndpointDelay(
        source=name[0],
        endpoint=name[1],
        units=len(units),
        weight=units[0].weight,
        changes=int(mine.sum()),
        calls_per_day=calls / result.days,
        mean=_mean(result.delays.found[mine]),
        in_turn=_mean(result.delays.in_turn[mine]),
    )


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(values.mean()) if values.size else float("nan")
