"""Synthetic worlds for simulations: the times at which units change, drawn from known rates.

A world does not depend on the planner. Its expected hourly rates determine the lower bounds; its changes are drawn from
them, so a policy that knows all rates is optimal, except where bursts reveal more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HOUR = 3600.0
DAY = 24 * HOUR
MONDAY = 345_600.0  # 1970-01-05, midnight UTC
SPREAD = 1.5  # of lognormal rates
BURSTS = ((0.5, 300.0), (0.25, 7200.0))  # number of changes that one change excites, and their mean delay
IMPORT = (600, 900.0)  # number of changes of an import, and the seconds it takes


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Times at which each unit changes, in Unix seconds; rates in changes per second."""

    name: str
    start: float
    hourly: Floats  # expected rate: a row per unit, a column per hour
    times: Floats  # of all changes, grouped by unit, ascending within each
    offsets: NDArray[np.intp]  # index of each unit's first change, and the total
    ordinary: NDArray[np.bool_]  # False: part of an import

    @property
    def units(self) -> int:
        """The number of units."""
        return int(self.hourly.shape[0])

    @property
    def seconds(self) -> float:
        """The length of the world."""
        return float(self.hourly.shape[1]) * HOUR

    @property
    def rates(self) -> Floats:
        """The mean rate of each unit."""
        mean: Floats = self.hourly.mean(axis=1)
        return mean


def equal(_: np.random.Generator, units: int, hours: int) -> Floats:
    """Equal rates at all hours."""
    return np.ones((units, hours))


def lognormal(random: np.random.Generator, units: int, hours: int) -> Floats:
    """Lognormal rates: a few busy units and many quiet ones, the same at all hours."""
    return np.repeat(random.lognormal(0.0, SPREAD, (units, 1)), hours, axis=1)


def zipf(random: np.random.Generator, units: int, hours: int) -> Floats:
    """Zipf rates: the k-th busiest unit changes 1/k as often as the busiest."""
    return np.repeat(1 / random.permutation(np.arange(1.0, units + 1))[:, None], hours, axis=1)


def rhythm(random: np.random.Generator, units: int, hours: int) -> Floats:
    """Lognormal rates with busy days and quiet nights."""
    return lognormal(random, units, hours) * _day(hours)


def drift(random: np.random.Generator, units: int, hours: int) -> Floats:
    """Lognormal rates that drift independently and are unrelated after two weeks."""
    fade = np.exp(-1 / (14 * 24))
    logs = np.empty((units, hours))
    logs[:, 0] = random.normal(0.0, SPREAD, units)
    steps = random.normal(0.0, SPREAD * np.sqrt(1 - fade**2), (units, hours))
    for hour in range(1, hours):
        logs[:, hour] = logs[:, hour - 1] * fade + steps[:, hour]
    return np.exp(logs)


def realistic(random: np.random.Generator, units: int, hours: int) -> Floats:
    """Drifting rates with days, nights and weekends."""
    weekend = (np.arange(hours) // 24) % 7 >= 5
    return drift(random, units, hours) * _day(hours) * np.where(weekend, 0.4, 1.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of world: how its rates are made, and whether it has bursts and imports."""

    rates: Callable[[np.random.Generator, int, int], Floats]
    bursts: bool = False
    imports: bool = False


KINDS: Mapping[str, Kind] = {
    "equal": Kind(equal),
    "lognormal": Kind(lognormal),
    "zipf": Kind(zipf),
    "rhythm": Kind(rhythm),
    "drift": Kind(drift),
    "bursts": Kind(lognormal, bursts=True),
    "realistic": Kind(realistic, bursts=True),
    "imports": Kind(realistic, bursts=True, imports=True),
}


def make(name: str, *, units: int = 200, days: float = 14, changes_per_day: float = 6000, seed: int = 0) -> World:
    """Make a world of the given kind, starting on a Monday; the same seed gives the same world. Raises KeyError.

    `imports` is `realistic` with one import a day into a random unit, which its rates do not include.
    """
    kind = KINDS[name]
    random = np.random.default_rng(seed)
    hours = max(round(days * 24), 1)
    hourly = kind.rates(random, units, hours)
    hourly *= changes_per_day / DAY / hourly.sum(axis=0).mean()
    own = 1 - sum(share for share, _ in BURSTS) if kind.bursts else 1.0
    owners, times = _draw(random, hourly * own)
    if kind.bursts:
        owners, times = _spread(random, owners, times, hours * HOUR)
    ordinary = np.ones(times.size, bool)
    if kind.imports:
        count, span = IMPORT
        daily = np.arange(max(hours // 24, 1)) * DAY + random.uniform(0, DAY - span, max(hours // 24, 1))
        owners = np.concatenate((owners, np.repeat(random.integers(0, units, daily.size), count)))
        times = np.concatenate((times, np.repeat(daily, count) + random.uniform(0, span, daily.size * count)))
        ordinary = np.concatenate((ordinary, np.zeros(daily.size * count, bool)))
    return _world(name, MONDAY, hourly, owners, times + MONDAY, ordinary)


def expected(hourly: Floats, *, start: float, seed: int = 0, name: str = "expected") -> World:
    """A world with given rates: a row per unit, a column per hour from `start`."""
    owners, times = _draw(np.random.default_rng(seed), hourly)
    return _world(name, start, hourly, owners, times + start, np.ones(times.size, bool))


def recorded(histories: Sequence[Sequence[float]], *, start: float, end: float, name: str = "history") -> World:
    """A world of recorded changes: the times of each unit, without those before `start` or after `end`.

    Its rates are the recorded counts, so its bounds are those of a policy that knew the outcome.
    """
    hours = max(int(np.ceil((end - start) / HOUR)), 1)
    kept = [np.array([time for time in history if start <= time < end], float) for history in histories]
    owners = np.repeat(np.arange(len(kept)), [times.size for times in kept])
    rates = np.array([[times.size / (hours * HOUR)] for times in kept]).reshape(len(kept), 1)
    times = np.concatenate((*kept, np.zeros(0)))
    return _world(name, start, np.repeat(rates, hours, axis=1), owners, times, np.ones(times.size, bool))


def _day(hours: int) -> Floats:
    """Daily profile with quiet nights and a maximum at two in the afternoon."""
    hour = np.arange(hours) % 24
    shape: Floats = 0.1 + 2.0 * np.exp(-(((hour - 13.5) / 4.0) ** 2))
    return shape


def _draw(random: np.random.Generator, hourly: Floats) -> tuple[NDArray[np.intp], Floats]:
    counts = random.poisson(hourly * HOUR)
    owners, hours = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), hourly.shape[1])
    return owners, (hours + random.random(hours.size)) * HOUR


def _spread(
    random: np.random.Generator, owners: NDArray[np.intp], times: Floats, end: float
) -> tuple[NDArray[np.intp], Floats]:
    """Let changes excite further changes, until none is left before the end."""
    all_owners, all_times = [owners], [times]
    while owners.size:
        born: list[tuple[NDArray[np.intp], Floats]] = []
        for share, span in BURSTS:
            counts = random.poisson(share, owners.size)
            when = np.repeat(times, counts) + random.exponential(span, int(counts.sum()))
            who = np.repeat(owners, counts)
            born.append((who[when < end], when[when < end]))
        owners, times = np.concatenate([who for who, _ in born]), np.concatenate([when for _, when in born])
        all_owners.append(owners)
        all_times.append(times)
    return np.concatenate(all_owners), np.concatenate(all_times)


def _world(
    name: str, start: float, hourly: Floats, owners: NDArray[np.intp], times: Floats, ordinary: NDArray[np.bool_]
) -> World:
    order = np.lexsort((times, owners))
    offsets = np.searchsorted(owners[order], np.arange(hourly.shape[0] + 1))
    return World(name=name, start=start, hourly=hourly, times=times[order], offsets=offsets, ordinary=ordinary[order])
