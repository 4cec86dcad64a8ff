"""Pure: windows and calls spent -> when may the next call leave.

A server counts a call when it arrives, at some moment between our writing it down and its answer. So a call
counts from when it is spent until `seconds` after its answer: whatever the moment was, no window of the
server, sliding or fixed, holds more calls than ours. Of a window W, W/(W + latency) can be used.

Times are seconds of a steady clock (`poller.clock`) that never goes back; of an earlier `now` the latest
seen is taken instead. An answer's time never goes back either, so the answers are a sorted list and each
question about a window is one look at an index or one bisection.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import floor, inf
from random import Random
from typing import Final

from poller.budget.headers import Quota, RateLimitHeaders, is_throttled, word_of
from poller.budget.limits import HOUR, Limit, calls_allowed

_GUARD: Final = 0.001  # seconds a call counts beyond its window: rounding, and clocks that tick apart
_BACKOFF: Final = (1.0, 300.0)  # seconds, first and longest, after a 429 that does not say how long
_UNTOLD_RESET: Final = 60.0  # seconds that "nothing remains" holds where the server names neither reset nor window
_SAMPLES: Final = 64  # horizons looked at by a forecast
_PURGE: Final = 512  # answers forgotten at a time; deleting from a list's head one by one would be quadratic


ON_ITS_WAY: Final = 1.0  # seconds that the answer of a call may lie ahead, where another worker has sent it


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """`left` calls for the next `seconds` seconds: the tightest horizon there is, so their ratio can be kept up."""

    left: int
    seconds: float


@dataclass(slots=True)
class _Window:
    """One limit and what is ours of it."""

    limit: Limit
    allowed: int
    foreign: int = 0
    foreign_until: float = -inf

    def room(self, used: int, now: float) -> int:
        others = self.foreign if now < self.foreign_until else 0
        return max(0, min(self.allowed, self.limit.calls - others) - used)


@dataclass(slots=True)
class _Cap:
    """The server's word that only `left` more calls may come before `until`."""

    left: int
    until: float
    unsure: set[int] = field(default_factory=set)  # calls in flight at its word: perhaps counted in it, perhaps not


class Budget:
    """The limits of one API key and the calls already spent.

    Ask `wait`, then `spend` (and write the call down) before it leaves, and tell `answered` when its answer is
    complete or it failed, then `obey` what the answer said. Not for several threads.
    """

    def __init__(
        self, name: str, limits: Sequence[Limit], *, share: float = 0.9, concurrency: int = 4, seed: int = 0
    ) -> None:
        """`share` is taken of the windows of an hour or longer; at least one call is left of each."""
        self.name = name
        self.share = share
        self.concurrency = concurrency
        by_length = sorted(limits, key=lambda limit: limit.seconds)
        self._windows = [_Window(limit, calls_allowed(limit, share)) for limit in by_length]
        self.word = ""  # what the latest answer said that asked for a pause
        self._now = -inf
        self._ids = 0
        self._flying: set[int] = set()
        self._answered: list[float] = []
        self._caps: dict[str, _Cap] = {}
        self._throttled = -inf
        self._named = -inf  # until when a Retry-After of this run wants no call
        self._refusals = 0
        self._random = Random(seed)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits, shortest window first."""
        return tuple(window.limit for window in self._windows)

    @property
    def in_flight(self) -> int:
        """Calls spent and not yet answered."""
        return len(self._flying)

    def wait(self, now: float) -> float:
        """Seconds until the next call may leave: 0.0 is now, `inf` not before one in flight is answered."""
        now = self._seen(now)
        if len(self._flying) >= self.concurrency:
            return inf
        due = max(self._throttled, self._capped(now))
        for window in self._windows:
            due = max(due, self._due(window))
        return max(0.0, due - now)

    def spend(self, now: float) -> int:
        """Count one call as in flight and return its number. Raises ValueError when `wait(now)` is not 0."""
        if self.wait(now) > 0:
            raise ValueError(f"budget {self.name}: no call may leave now")
        self._ids += 1
        self._flying.add(self._ids)
        for cap in self._caps.values():
            cap.left -= 1
        return self._ids

    def answered(self, call: int, now: float) -> None:
        """The call's answer is complete, or it failed. A number that is not in flight is ignored."""
        now = self._seen(now)
        if call not in self._flying:
            return
        self._flying.discard(call)
        insort(self._answered, now)  # an answer that another worker waited for may lie ahead
        for cap in self._caps.values():
            cap.unsure.discard(call)

    def restore(
        self, calls: Iterable[tuple[float, float | None]], now: float, *, throttled_until: float | None = None
    ) -> None:
        """Begin with the calls (sent at, answered at) of an earlier run in place of those known.

        An unanswered call counts as answered now. One that another worker has left may still be on its way: it comes
        with a time a little ahead. Nothing counts from later than that.
        """
        now = self._seen(now)
        self._answered = sorted(now if answered is None else min(answered, now + ON_ITS_WAY) for _, answered in calls)
        self._throttled = -inf if throttled_until is None else throttled_until
        self._purge(now)

    def obey(self, headers: RateLimitHeaders, now: float) -> None:
        """Take the server's word, given with the answer last told; it can only lower what is left."""
        now = self._seen(now)
        self.word = word_of(headers) or self.word
        if headers.retry_after is not None:
            self._named = max(self._named, now + min(headers.retry_after, self._longest()))
        if is_throttled(headers):
            self._refused(headers, now)
        elif headers.retry_after is not None:
            self._throttled = max(self._throttled, self._named)
        elif headers.status < 400 and now >= self._throttled:
            self._refusals = 0
        for quota in headers.quotas:
            self._note(quota, now)

    def resume(self, now: float) -> None:
        """Forget every pause that the server asked for; its next answer may ask for another. Our own limits hold on."""
        self._seen(now)
        self._throttled, self._named, self._refusals = -inf, -inf, 0
        self._caps.clear()
        for window in self._windows:
            window.foreign, window.foreign_until = 0, -inf

    def throttled_until(self, now: float) -> float | None:
        """Until when the server wants no call (steady time); None when it wants them."""
        now = self._seen(now)
        until = max(self._throttled, self._used_up())
        return until if until > now else None

    def named_until(self, now: float) -> float | None:
        """The same without our own wait after a 429: until when the server has said that it wants no call."""
        now = self._seen(now)
        until = max(self._named, self._used_up())
        return until if until > now else None

    def usage(self, now: float) -> tuple[Usage, ...]:
        """How each window stands, the shortest first."""
        now = self._seen(now)
        return tuple(self._usage(window, now) for window in self._windows)

    def burst_left(self, now: float, fraction: float = 0.25) -> int:
        """Calls a first sweep may still take at once: what keeps the longest window's use below `fraction` of it.

        Windows shorter than an hour refill soon enough: of these everything may be taken.
        """
        if not self._windows:
            return self.concurrency - len(self._flying)
        longest = self.usage(now)[-1]
        if longest.limit.seconds < HOUR:
            return longest.remaining
        return max(0, min(longest.remaining, max(1, floor(fraction * self._windows[-1].allowed)) - longest.used))

    def forecast(self, now: float) -> Forecast:
        """The steadiest rate that can be kept up: min over h of (left now + calls expiring within h) / h.

        Over the windows of an hour or longer (or the longest there is) and what the server said remains;
        `wait` sees to the short ones. Calls in flight count as expiring with the window.
        """
        now = self._seen(now)
        if not self._windows:
            return Forecast(left=1, seconds=0.0)
        long = [window for window in self._windows if window.limit.seconds >= HOUR] or self._windows[-1:]
        horizons = [horizon for window in long for horizon in self._horizons(window, now)]
        horizons += [(max(0, cap.left), cap.until - now) for cap in self._caps.values() if cap.until > now]
        left, seconds = min(horizons, key=lambda horizon: horizon[0] / horizon[1])
        return Forecast(left=left, seconds=seconds)

    def _seen(self, now: float) -> float:
        self._now = max(self._now, now)
        self._purge(self._now)
        return self._now

    def _purge(self, now: float) -> None:
        longest = self._windows[-1].limit.seconds if self._windows else 0.0
        answered = self._answered
        if len(answered) > _PURGE and answered[_PURGE] + longest + _GUARD <= now:
            del answered[: bisect_right(answered, now - longest - _GUARD)]

    def _due(self, window: _Window) -> float:
        """When the window has room for one more call; `inf` where only an answer can make room."""
        due = self._due_within(window.allowed, window.limit.seconds)
        if self._now < window.foreign_until:
            room = max(0, window.limit.calls - window.foreign)
            due = max(due, min(window.foreign_until, self._due_within(room, window.limit.seconds)))
        return due

    def _due_within(self, calls: int, seconds: float) -> float:
        room = calls - len(self._flying)
        if room <= 0:
            return inf
        if len(self._answered) < room:
            return -inf
        return self._answered[-room] + seconds + _GUARD

    def _used(self, seconds: float, now: float) -> int:
        expired = bisect_right(self._answered, now - seconds - _GUARD)
        return len(self._answered) - expired + len(self._flying)

    def _usage(self, window: _Window, now: float) -> Usage:
        used = self._used(window.limit.seconds, now)
        room = min([window.room(used, now), *(max(0, cap.left) for cap in self._caps.values() if cap.until > now)])
        return Usage(
            limit=window.limit,
            used=used,
            remaining=room,
            foreign=window.foreign if now < window.foreign_until else 0,
        )

    def _horizons(self, window: _Window, now: float) -> list[tuple[int, float]]:
        """(calls, seconds) at moments when calls expire: the nearest ones and others spread evenly."""
        seconds = window.limit.seconds
        first = bisect_right(self._answered, now - seconds - _GUARD)
        count = len(self._answered) - first
        left = window.room(count + len(self._flying), now)
        horizons = [(left + count, seconds)]
        for rank in range(1, count + 1, max(1, count // _SAMPLES)):
            until = self._answered[first + rank - 1] + seconds + _GUARD - now
            horizons.append((left + rank, max(until, _GUARD)))
        return horizons

    def _used_up(self) -> float:
        return max((cap.until for cap in self._caps.values() if cap.left <= 0), default=-inf)

    def _capped(self, now: float) -> float:
        due = -inf
        for name, cap in list(self._caps.items()):
            if cap.until <= now:
                del self._caps[name]
            elif cap.left <= 0:
                due = max(due, cap.until)
            elif cap.left <= len(cap.unsure):
                due = inf  # those in flight may take what remains: their answers will tell
        return due

    def _note(self, quota: Quota, now: float) -> None:
        window = self._window_of(quota)
        untold = window.limit.seconds if window is not None else quota.window or _UNTOLD_RESET
        until = now + (untold if quota.reset_in is None else min(quota.reset_in, self._longest(quota.window)))
        if window is not None:
            limit = quota.limit if quota.limit is not None else window.limit.calls
            window.foreign = max(0, limit - quota.remaining - self._used(window.limit.seconds, now))
            window.foreign_until = until
        known = self._caps.get(quota.name)
        # Answers overtake each other: while a window lasts, what remains of it cannot have become more.
        same = known is not None and known.until > now and until <= known.until + 1.0
        left = min(known.left, quota.remaining) if known is not None and same else quota.remaining
        self._caps[quota.name] = _Cap(left, until, set(self._flying))

    def _longest(self, window: float | None = None) -> float:
        """Seconds that a server's word can hold calls back: then its window, or our longest, is over, and it is asked.

        An hour at least: a server may have windows that nobody here knows.
        """
        known = [one.limit.seconds for one in self._windows] if window is None else [window]
        return max(HOUR, *known)

    def _window_of(self, quota: Quota) -> _Window | None:
        """The window of ours that the server speaks of: of the same length, or with as many calls."""
        if quota.window is not None:
            return next((window for window in self._windows if window.limit.seconds == quota.window), None)
        alike = [window for window in self._windows if window.limit.calls == quota.limit]
        return alike[0] if len(alike) == 1 else None

    def _refused(self, headers: RateLimitHeaders, now: float) -> None:
        """Back off: several refusals while throttled already are one, of calls that were in flight together."""
        if now >= self._throttled:
            self._refusals += 1
        steps = self._refusals - (headers.retry_after is not None)
        first, longest = _BACKOFF
        backoff = min(longest, first * 2.0 ** (steps - 1)) * self._random.uniform(0.8, 1.2) if steps > 0 else 0.0
        self._throttled = max(self._throttled, now + max(backoff, min(headers.retry_after or 0.0, self._longest())))
