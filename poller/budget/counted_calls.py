"""The calls that windows count: those in flight, and those answered recently. Pure.

A call counts from when it is spent until `seconds` after its answer. The answers are a sorted list, so each question
about a window needs one index or one bisection.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from math import inf
from typing import Final

_GUARD: Final = 0.001  # seconds that a call counts beyond its window, for rounding and clock drift
_SAMPLES: Final = 64  # moments considered by a forecast
_PURGE: Final = 512  # answers deleted at a time; deleting from a list's head one by one would be quadratic


class CountedCalls:
    """The calls of one budget. It knows nothing of windows longer than `longest` seconds."""

    def __init__(self, longest: float) -> None:
        self.in_flight: set[int] = set()
        self._longest = longest
        self._answered: list[float] = []
        self._latest = 0

    def spend(self) -> int:
        """Count one call as in flight, and return its number."""
        self._latest += 1
        self.in_flight.add(self._latest)
        return self._latest

    def answered(self, call: int, now: float) -> bool:
        """Count a call from its answer. Returns whether it was in flight; if not, nothing is counted."""
        if call not in self.in_flight:
            return False
        self.in_flight.discard(call)
        insort(self._answered, now)  # an answer to another worker's call may lie ahead
        return True

    def restore(self, answered: Iterable[float]) -> None:
        """Replace the known answers by those of an earlier run."""
        self._answered = sorted(answered)

    def forget(self, now: float) -> None:
        """Delete answers that no window counts any more, once there are many."""
        answered = self._answered
        if len(answered) > _PURGE and answered[_PURGE] + self._longest + _GUARD <= now:
            del answered[: bisect_right(answered, now - self._longest - _GUARD)]

    def used(self, seconds: float, now: float) -> int:
        """Calls that count in a window of that length."""
        return len(self._answered) - self._expired(seconds, now) + len(self.in_flight)

    def due(self, calls: int, seconds: float) -> float:
        """When fewer than so many calls count in a window of that length; `inf` if only an answer can tell."""
        room = calls - len(self.in_flight)
        if room <= 0:
            return inf
        if len(self._answered) < room:
            return -inf
        return self._answered[-room] + seconds + _GUARD

    def expiring(self, seconds: float, now: float) -> list[tuple[int, float]]:
        """(calls, seconds): how many calls will have left the window within so many seconds.

        The first one, all of them within the window's length, and others spread evenly. Calls in flight leave it last.
        """
        first = self._expired(seconds, now)
        count = len(self._answered) - first
        found = [(count + len(self.in_flight), seconds)]
        for rank in range(1, count + 1, max(1, count // _SAMPLES)):
            until = self._answered[first + rank - 1] + seconds + _GUARD - now
            found.append((rank, max(until, _GUARD)))
        return found

    def _expired(self, seconds: float, now: float) -> int:
        return bisect_right(self._answered, now - seconds - _GUARD)
