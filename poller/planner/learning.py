"""The statistical model of a source: its weekly rhythm, its mean rate, and how changes excite further changes.

A unit changes at the rate `mu * p(t) + sum_s eta_s * X_s(t) / h_s`: its own mean rate times the source's hour-of-week
profile, plus the excitation by recent changes, which lasts minutes or hours. This is a Hawkes process with two
exponential kernels; `h_s` are their spans and `eta_s` their branching ratios. All counts are discounted, so the model
follows a source whose behaviour drifts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from poller.planner.units import Floats

HOUR = 3600.0
DAY = 24 * HOUR
HOURS = 168
WEEK = HOURS * HOUR
KERNEL_SPANS = (300.0, 7200.0)  # seconds that an excitation lasts: minutes and hours
PRIOR = 0.5  # pseudo-changes at the source's mean rate with which a new unit starts
QUIET = 1e-3  # excitation below this is dropped
FIRST_RATE = 1 / DAY  # of a source about which nothing is known

_ETA = (0.3, 0.1)
_ETA_WEIGHT = 20.0
_ETA_MOST = 0.95
_SHRINK = 30.0
_FLOOR = 0.05
_REFIT = 1800.0
_MEMORY = 28 * DAY  # of the profile and the branching ratios


class Rhythm:
    """Hour-of-week profile of one source, with mean 1, and its integral over time."""

    def __init__(self) -> None:
        self.seen = np.zeros(HOURS)
        self.expected = np.zeros(HOURS)
        self._set(np.ones(HOURS))

    def at(self, now: float) -> float:
        """The profile's level at this instant; 1 on average."""
        return self._levels[int(now // HOUR) % HOURS]

    def integral(self, now: float) -> float:
        """The integral of the profile from the epoch to `now`, in seconds weighted by each hour's level."""
        weeks, rest = divmod(now, WEEK)
        hour = int(rest // HOUR)
        return weeks * WEEK + self._starts[hour] + self._levels[hour] * (rest - hour * HOUR)

    def integrals(self, times: Floats) -> Floats:
        """`integral` of many instants; NaN stays NaN."""
        known = np.nan_to_num(times)
        weeks, rest = np.divmod(known, WEEK)
        hours = (rest // HOUR).astype(np.intp)
        found = weeks * WEEK + self._start_array[hours] + self.levels[hours] * (rest - hours * HOUR)
        return np.where(np.isnan(times), np.nan, found)

    def learn(self, start: float, end: float, changed: float, rate: float) -> None:
        """Distribute the changes seen in an interval over its hours, in proportion to the profile."""
        first, last = int(start // HOUR), int(end // HOUR)
        if first == last:
            self.seen[first % HOURS] += changed
            self.expected[first % HOURS] += rate * (end - start)
            return
        hours = np.arange(max(first, last - 2 * HOURS), last + 1)
        seconds = np.minimum(end, (hours + 1) * HOUR) - np.maximum(start, hours * HOUR)
        places = hours % HOURS
        shares = self.levels[places] * seconds
        np.add.at(self.seen, places, changed * shares / shares.sum())
        np.add.at(self.expected, places, rate * seconds)

    def refit(self, elapsed: float) -> None:
        """Recompute the profile: hours of the week are shrunk towards hours of the day, and those towards 1."""
        fade = math.exp(-elapsed / _MEMORY)
        self.seen *= fade
        self.expected *= fade
        days = (self.seen.reshape(7, 24).sum(0) + _SHRINK) / (self.expected.reshape(7, 24).sum(0) + _SHRINK)
        weeks = (self.seen + _SHRINK * np.tile(days, 7)) / (self.expected + _SHRINK)
        levels = np.maximum(weeks / weeks.mean(), _FLOOR)
        self._set(levels / levels.mean())

    def mean_root(self, now: float, seconds: float) -> float:
        """The mean square root of the level over the next `seconds`, at most a week."""
        end = now + min(max(seconds, 1.0), WEEK)
        hours = np.arange(int(now // HOUR), int(end // HOUR) + 1)
        spent = np.minimum(end, (hours + 1) * HOUR) - np.maximum(now, hours * HOUR)
        return float((np.sqrt(self.levels[hours % HOURS]) * spent).sum() / (end - now))

    def _set(self, levels: Floats) -> None:
        self.levels = levels
        self._start_array = np.concatenate(([0.0], np.cumsum(levels[:-1]))) * HOUR
        # Lists make reading a single number three times faster than arrays.
        self._levels: list[float] = levels.tolist()
        self._starts: list[float] = self._start_array.tolist()


class SourceModel:
    """Statistical model that all units of one source share."""

    def __init__(self, now: float) -> None:
        self.rhythm = Rhythm()
        self.changes = 0.0  # discounted sums over all units: changes that no other one excited ...
        self.seen = 0.0  # ... all changes that count ...
        self.exposure = 0.0  # ... and the time in which they were seen
        self.offspring = [0.0, 0.0]
        self.parents = [0.0, 0.0]
        self.refitted = now
        self._fit_eta()

    @property
    def pooled(self) -> float:
        """The mean rate of a unit without excitation, in changes per second; new units start with it."""
        return (PRIOR + self.changes) / (PRIOR / FIRST_RATE + self.exposure)

    @property
    def mean(self) -> float:
        """The mean rate of a unit with all its changes."""
        return (PRIOR + self.seen) / (PRIOR / FIRST_RATE + self.exposure)

    def split(self, changed: float, base: float, exposed: tuple[float, float]) -> tuple[float, float]:
        """Split observed changes into those that count and those of them that no earlier change excited.

        The number that counts is capped, so that an import cannot take over the budget. `base` is how many changes the
        unit's own rate predicts; `exposed` is how much excitation of each kind has decayed in the interval.
        """
        excited = (self.eta[0] * exposed[0], self.eta[1] * exposed[1])
        expected = base + excited[0] + excited[1]
        counted = min(changed, 20 + 5 * expected)
        share = counted / expected if expected > 0 else 0.0
        for kind in (0, 1):
            self.offspring[kind] += share * excited[kind]
            self.parents[kind] += exposed[kind]
        return counted, share * base if expected > 0 else counted

    def refit_due(self, now: float) -> bool:
        """Whether the model is due to be refitted."""
        return not 0 <= now - self.refitted < _REFIT

    def refit(self, now: float) -> None:
        """Refit the profile and the branching ratios to the counts, and discount the counts."""
        elapsed = max(now - self.refitted, 0.0)
        fade = math.exp(-elapsed / _MEMORY)
        self.offspring = [value * fade for value in self.offspring]
        self.parents = [value * fade for value in self.parents]
        self.refitted = now
        self.rhythm.refit(elapsed)
        self._fit_eta()

    def dump(self) -> dict[str, Any]:
        """The model as JSON-compatible values, for `load`."""
        return {
            "seen": self.rhythm.seen.tolist(),
            "expected": self.rhythm.expected.tolist(),
            "levels": self.rhythm.levels.tolist(),
            "offspring": self.offspring,
            "parents": self.parents,
            "eta": self.eta,
            "refitted": self.refitted,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Restore a dumped model. Raises KeyError, TypeError or ValueError if `saved` is not a dump."""
        seen, expected, levels = (np.array(saved[name], float) for name in ("seen", "expected", "levels"))
        pairs = [tuple(map(float, saved[name])) for name in ("offspring", "parents", "eta")]
        refitted = float(saved["refitted"])
        if {values.shape for values in (seen, expected, levels)} != {(HOURS,)} or {len(pair) for pair in pairs} != {2}:
            raise ValueError("a profile must have 168 hours and two spans")
        if not (levels > 0).all() or not np.isfinite([*seen, *expected, *levels, *sum(pairs, ()), refitted]).all():
            raise ValueError("a profile must consist of finite numbers above 0")
        self.rhythm.seen, self.rhythm.expected = seen, expected
        self.rhythm._set(levels)
        self.offspring, self.parents, self.eta = (list(pair) for pair in pairs)
        self.refitted = refitted

    def _fit_eta(self) -> None:
        eta = [
            (_ETA_WEIGHT * start + offspring) / (_ETA_WEIGHT + parents)
            for start, offspring, parents in zip(_ETA, self.offspring, self.parents, strict=True)
        ]
        too_much = max(sum(eta) / _ETA_MOST, 1.0)
        self.eta = [value / too_much for value in eta]
