"""The sandbox's rate limiter: all windows of an API key at once, as strictly as the documentation can be read."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from poller import Limit

DAY = 86400.0
LEAST = 0.001  # seconds: at the very end of a window a call is still refused


class Window(Protocol):
    """Calls counted in one window. Times are Unix seconds and never go back."""

    limit: Limit

    def used(self, now: float) -> int: ...

    def count(self, now: float) -> None: ...

    def wait(self, now: float) -> float:
        """Seconds until a call would pass."""
        ...


class SlidingWindow:
    """A call counts until its window is over, the very end included."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._calls: deque[float] = deque()

    def used(self, now: float) -> int:
        while self._calls and self._calls[0] < now - self.limit.seconds:
            self._calls.popleft()
        return len(self._calls)

    def count(self, now: float) -> None:
        self._calls.append(now)

    def wait(self, now: float) -> float:
        surplus = self.used(now) - self.limit.calls
        return 0.0 if surplus < 0 else self._calls[surplus] + self.limit.seconds - now


class FixedWindow:
    """Counting starts again at every multiple of the window's length, so for a day at midnight UTC."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._number = -1
        self._used = 0

    def used(self, now: float) -> int:
        number = int(now // self.limit.seconds)
        if number != self._number:
            self._number, self._used = number, 0
        return self._used

    def count(self, now: float) -> None:
        self._used = self.used(now) + 1

    def wait(self, now: float) -> float:
        if self.used(now) < self.limit.calls:
            return 0.0
        return (self._number + 1) * self.limit.seconds - now


@dataclass(slots=True)
class Tally:
    """The statistics of one window of one key."""

    calls: int
    seconds: float
    refused: int = 0  # calls that this window refused
    worst: int = 0  # the most calls that ever counted in it at once


class Limiter:
    """All windows of one API key. Call `arrive` for every call, in order of time (Unix seconds)."""

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        windows: Literal["sliding", "fixed"] = "sliding",
        day: Literal["sliding", "utc"] = "sliding",
        refused_calls: Literal["count", "free"] = "count",
    ) -> None:
        self._windows: list[Window] = [
            FixedWindow(limit)
            if windows == "fixed" or (day == "utc" and limit.seconds == DAY)
            else SlidingWindow(limit)
            for limit in limits
        ]
        self._count_refused = refused_calls == "count"
        self.tallies = [Tally(limit.calls, limit.seconds) for limit in limits]
        self.calls = 0
        self.refused = 0

    def arrive(self, now: float) -> float:
        """0 if the call passes, else the seconds until a call would."""
        self.calls += 1
        full = [window.used(now) >= window.limit.calls for window in self._windows]
        if not any(full) or self._count_refused:
            for window, tally in zip(self._windows, self.tallies, strict=True):
                window.count(now)
                tally.worst = max(tally.worst, window.used(now))
        if not any(full):
            return 0.0
        self.refused += 1
        for tally, is_full in zip(self.tallies, full, strict=True):
            tally.refused += is_full
        return max(LEAST, *(window.wait(now) for window in self._windows))
