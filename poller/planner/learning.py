"""The statistical model of a source: its weekly rhythm, its mean rate, and how changes excite further changes.

A unit changes at the rate `mu * p(t) + sum_s eta_s * X_s(t) / h_s`: its own mean rate times the source's hour-of-week
profile, plus the excitation by recent changes, which lasts minutes or hours. This is a Hawkes process with two
exponential kernels; `h_s` are their spans and `eta_s` their branching ratios. All counts are discounted, so the model
follows a source whose behaviour drifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

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
        self.seen = [0.0] * HOURS
        self.expected = [0.0] * HOURS
        self.set_levels([1.0] * HOURS)

    def at(self, now: float) -> float:
        """The profile's level at this instant; 1 on average."""
        return self.levels[int(now // HOUR) % HOURS]

    def integral(self, now: float) -> float:
        """The integral of the profile from the epoch to `now`, in seconds weighted by each hour's level."""
        return _integral(self.levels, self._starts, now)

    def learn(self, start: float, end: float, changed: float, rate: float) -> None:
        """Distribute the changes seen in an interval over its hours, in proportion to the profile."""
        first, last = int(start // HOUR), int(end // HOUR)
        if first == last:
            self.seen[first % HOURS] += changed
            self.expected[first % HOURS] += rate * (end - start)
            return
        spans = list(_spans(max(start, (last - 2 * HOURS) * HOUR), end))
        whole = sum(self.levels[place] * seconds for place, seconds in spans)
        for place, seconds in spans:
            self.seen[place] += changed * self.levels[place] * seconds / whole
            self.expected[place] += rate * seconds

    def refit(self, elapsed: float) -> None:
        """Recompute the profile: hours of the week are shrunk towards hours of the day, and those towards 1."""
        fade = math.exp(-elapsed / _MEMORY)
        self.seen = [value * fade for value in self.seen]
        self.expected = [value * fade for value in self.expected]
        days = [(sum(self.seen[hour::24]) + _SHRINK) / (sum(self.expected[hour::24]) + _SHRINK) for hour in range(24)]
        weeks = [
            (seen + _SHRINK * day) / (expected + _SHRINK)
            for seen, expected, day in zip(self.seen, self.expected, days * 7, strict=True)
        ]
        self.set_levels(_relative([max(level, _FLOOR) for level in _relative(weeks)]))

    def mean_root(self, now: float, seconds: float) -> float:
        """The mean square root of the level over the next `seconds`, at most a week."""
        end = now + min(max(seconds, 1.0), WEEK)
        before, after = (_integral(self._roots, self._root_starts, at) for at in (now, end))
        return (after - before) / (end - now)

    def set_levels(self, levels: Sequence[float]) -> None:
        """Set the level of each hour of the week."""
        self.levels = list(levels)
        self._starts = _starts(self.levels)
        self._roots = [math.sqrt(level) for level in levels]
        self._root_starts = _starts(self._roots)


def _starts(levels: Sequence[float]) -> list[float]:
    """The integral from the beginning of the week to the beginning of each hour, and to the end of the week."""
    return [before * HOUR for before in accumulate(levels, initial=0.0)]


def _integral(levels: Sequence[float], starts: Sequence[float], at: float) -> float:
    weeks, rest = divmod(at, WEEK)
    hour = int(rest // HOUR)
    return weeks * starts[HOURS] + starts[hour] + levels[hour] * (rest - hour * HOUR)


def _spans(start: float, end: float) -> Iterator[tuple[int, float]]:
    """The hours of an interval, and how many seconds of each belong to it."""
    for hour in range(int(start // HOUR), int(end // HOUR) + 1):
        yield hour % HOURS, min(end, (hour + 1) * HOUR) - max(start, hour * HOUR)


def _relative(levels: Sequence[float]) -> list[float]:
    """Levels in relation to their mean."""
    mean = sum(levels) / len(levels)
    return [level / mean for level in levels]


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
            "seen": self.rhythm.seen,
            "expected": self.rhythm.expected,
            "levels": self.rhythm.levels,
            "offspring": self.offspring,
            "parents": self.parents,
            "eta": self.eta,
            "refitted": self.refitted,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Restore a dumped model. Raises KeyError, TypeError or ValueError if `saved` is not a dump."""
        seen, expected, levels = (list(map(float, saved[name])) for name in ("seen", "expected", "levels"))
        pairs = [tuple(map(float, saved[name])) for name in ("offspring", "parents", "eta")]
        refitted = float(saved["refitted"])
        if {len(values) for values in (seen, expected, levels)} != {HOURS} or {len(pair) for pair in pairs} != {2}:
            raise ValueError("a profile must have 168 hours and two spans")
        if min(levels) <= 0 or not all(map(math.isfinite, (*seen, *expected, *levels, *sum(pairs, ()), refitted))):
            raise ValueError("a profile must consist of finite numbers above 0")
        self.rhythm.seen, self.rhythm.expected = seen, expected
        self.rhythm.set_levels(levels)
        self.offspring, self.parents, self.eta = (list(pair) for pair in pairs)
        self.refitted = refitted

    def _fit_eta(self) -> None:
        eta = [
            (_ETA_WEIGHT * start + offspring) / (_ETA_WEIGHT + parents)
            for start, offspring, parents in zip(_ETA, self.offspring, self.parents, strict=True)
        ]
        too_much = max(sum(eta) / _ETA_MOST, 1.0)
        self.eta = [value / too_much for value in eta]
