"""Pure: the windows of a budget, and what is ours of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from poller.budget.limits import HOUR, Limit, calls_allowed

if TYPE_CHECKING:  # what a budget asks about
    from poller.budget.counted_calls import CountedCalls
    from poller.budget.headers import Quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How one window stands: `remaining` is what this program may still spend of it now."""

    limit: Limit
    used: int
    remaining: int
    foreign: int = 0  # calls of other users of the key, as far as the server's headers show them

    @property
    def rate(self) -> str:
        """The limit as it is written in the configuration."""
        return str(self.limit)


@dataclass(slots=True)
class Window:
    """One limit, what is ours of it, and what others have used of it."""

    limit: Limit
    allowed: int
    foreign: int = 0
    foreign_until: float = -inf

    def room(self, used: int, now: float) -> int:
        """Calls that may still be spent of it when so many count."""
        others = self.foreign if now < self.foreign_until else 0
        return max(0, min(self.allowed, self.limit.calls - others) - used)

    def due(self, calls: CountedCalls, now: float) -> float:
        """When the window has room for one more call; `inf` where only an answer can make room."""
        due = calls.due(self.allowed, self.limit.seconds)
        if now < self.foreign_until:
            room = max(0, self.limit.calls - self.foreign)
            due = max(due, min(self.foreign_until, calls.due(room, self.limit.seconds)))
        return due

    def usage(self, calls: CountedCalls, left: Iterable[int], now: float) -> Usage:
        """How it stands, where the server leaves so many calls of each of its own windows."""
        used = calls.used(self.limit.seconds, now)
        return Usage(
            limit=self.limit,
            used=used,
            remaining=min([self.room(used, now), *left]),
            foreign=self.foreign if now < self.foreign_until else 0,
        )

    def horizons(self, calls: CountedCalls, now: float) -> list[tuple[int, float]]:
        """(calls, seconds): what can be spent within so many seconds, at moments when calls expire."""
        left = self.room(calls.used(self.limit.seconds, now), now)
        return [(left + expired, seconds) for expired, seconds in calls.expiring(self.limit.seconds, now)]

    def forget_foreign(self) -> None:
        """Forget what others have used."""
        self.foreign, self.foreign_until = 0, -inf


def windows_of(limits: Iterable[Limit], share: float) -> list[Window]:
    """The windows of these limits, the shortest first."""
    by_length = sorted(limits, key=lambda limit: limit.seconds)
    return [Window(limit, calls_allowed(limit, share)) for limit in by_length]


def longest_pause(windows: Sequence[Window], length: float | None = None) -> float:
    """Seconds for which a server can hold calls back: then its window, or our longest, is over, and it is asked.

    An hour at least: a server may have windows that nobody here knows.
    """
    known = [one.limit.seconds for one in windows] if length is None else [length]
    return max(HOUR, *known)


def window_of(windows: Sequence[Window], quota: Quota) -> Window | None:
    """The window of ours that the server speaks of: of the same length, or with as many calls."""
    if quota.window is not None:
        return next((window for window in windows if window.limit.seconds == quota.window), None)
    alike = [window for window in windows if window.limit.calls == quota.limit]
    return alike[0] if len(alike) == 1 else None
