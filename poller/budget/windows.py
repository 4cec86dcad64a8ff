"""The windows of a budget, and the part of each that Poller may use. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from poller.budget.limits import DAY, HOUR, MINUTE, Limit, calls_allowed

if TYPE_CHECKING:  # only for annotations
    from poller.budget.counted_calls import CountedCalls
    from poller.budget.headers import Quota

SAVED: Final = 0.04  # the part of a window that may be left for busier times
FEW: Final = 10  # calls; fewer are not worth saving


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Use of one window: `remaining` is what this program may still spend now."""

    limit: Limit
    used: int
    remaining: int
    foreign: int = 0  # calls of other users of the key, according to the server's headers

    @property
    def rate(self) -> str:
        """The limit as it is written in the configuration."""
        return str(self.limit)


class Window(msgspec.Struct):
    """One limit, the part of it that Poller may use, and what other users have used."""

    limit: Limit
    allowed: int
    foreign: int = 0
    foreign_until: float = -inf
    server_limit: int | None = None  # the server's limit, of which the others use a part; None: the configured one

    def room(self, used: int, now: float) -> int:
        """Calls that may still be spent if `used` calls count."""
        most = min(self.allowed, self._left_by_others()) if now < self.foreign_until else self.allowed
        return max(0, most - used)

    def due(self, calls: CountedCalls, now: float) -> float:
        """When the window has room for one more call; `inf` if only an answer can make room."""
        due = calls.due(self.allowed, self.limit.seconds)
        if now < self.foreign_until:
            due = max(due, min(self.foreign_until, calls.due(self._left_by_others(), self.limit.seconds)))
        return due

    def usage(self, calls: CountedCalls, left: Iterable[int], now: float) -> Usage:
        """Use of the window, given how many calls the server leaves."""
        used = calls.used(self.limit.seconds, now)
        return Usage(
            limit=self.limit,
            used=used,
            remaining=min([self.room(used, now), *left]),
            foreign=self.foreign if now < self.foreign_until else 0,
        )

    def horizons(self, calls: CountedCalls, now: float) -> list[tuple[int, float]]:
        """(calls, seconds): how many calls can be spent within so many seconds, at moments when calls expire."""
        left = self.room(calls.used(self.limit.seconds, now), now)
        return [(left + expired, seconds) for expired, seconds in calls.expiring(self.limit.seconds, now)]

    def least(self, even: float, calls: CountedCalls, now: float) -> float:
        """Calls per second below which calls would be lost, where `even` is the rate that can be sustained.

        A sliding window does not add up what is left: it is spent within the window, or lost. So only one of a day or
        longer, in which busy hours follow quiet ones, saves a few. One of at most a minute is not spread at all.
        """
        if self.limit.seconds <= MINUTE:
            return self.allowed / self.limit.seconds
        most = SAVED * self.allowed
        is_worth_it = self.limit.seconds >= DAY and most >= FEW
        return 0.0 if is_worth_it and self.room(calls.used(self.limit.seconds, now), now) <= most else even

    def forget_foreign(self) -> None:
        """Forget what other users have used."""
        self.foreign, self.foreign_until = 0, -inf

    def _left_by_others(self) -> int:
        return max(0, (self.limit.calls if self.server_limit is None else self.server_limit) - self.foreign)


def windows_of(limits: Iterable[Limit], share: float) -> list[Window]:
    """The windows of these limits, the shortest first."""
    by_length = sorted(limits, key=lambda limit: limit.seconds)
    return [Window(limit, calls_allowed(limit, share)) for limit in by_length]


def longest_pause(windows: Sequence[Window], length: float | None = None) -> float:
    """The longest time that a server can hold calls back: its window, or the longest configured one; then a call asks
    again.

    At least an hour, because a server may have windows that are not configured.
    """
    known = [one.limit.seconds for one in windows] if length is None else [length]
    return max((HOUR, *known))


def window_of(windows: Sequence[Window], quota: Quota) -> Window | None:
    """The configured window that the server speaks of: of the same length, or with as many calls."""
    if quota.window is not None:
        return next((window for window in windows if window.limit.seconds == quota.window), None)
    alike = [window for window in windows if window.limit.calls == quota.limit]
    return alike[0] if len(alike) == 1 else None
