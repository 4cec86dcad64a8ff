"""Rate windows and spent calls: when the next call may be sent. Pure.

A server counts a call when it arrives, at some moment between writing it down here and its answer. A call therefore
counts from when it is spent until `seconds` after its answer: whatever that moment was, no window of the server,
sliding or fixed, holds more calls than this count. Of a window W, W/(W + latency) can be used.

Times are seconds of a steady clock (`poller.clock`) that never goes back; an earlier `now` is replaced by the latest
seen. Times of answers never go back either, so the answers are a sorted list, and each question about a window needs
one index or one bisection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor, inf
from typing import Final

import msgspec

from poller.budget.counted_calls import CountedCalls
from poller.budget.headers import RateLimitHeaders, is_throttled, word_of
from poller.budget.limits import HOUR, Limit
from poller.budget.remaining import Remaining
from poller.budget.throttle import Throttle
from poller.budget.windows import Usage, Window, longest_pause, window_of, windows_of

ON_ITS_WAY: Final = 1.0  # seconds that the answer of a call sent by another worker may lie ahead


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """`left` calls for the next `seconds` seconds: the tightest horizon, whose rate can be sustained."""

    left: int
    seconds: float
    least: float = 0.0  # calls per second below which calls of the window would be lost


class Budget:
    """The limits of one API key and the calls already spent.

    Call `wait`, then `spend` (and write the call down) before it is sent, `answered` when its answer is complete or it
    failed, then `obey` with the answer's headers. Not thread-safe.
    """

    def __init__(
        self, name: str, limits: Sequence[Limit], *, share: float = 0.9, concurrency: int = 4, seed: int = 0
    ) -> None:
        """`share` applies to windows of an hour or longer; at least one call of each is available."""
        self.name = name
        self.share = share
        self.concurrency = concurrency
        self.word = ""  # text of the latest answer that asked for a pause
        self._windows = windows_of(limits, share)
        self._calls = CountedCalls(max((limit.seconds for limit in limits), default=0.0))
        self._remaining = Remaining()
        self._throttle = Throttle(seed)
        self._now = -inf

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits, shortest window first."""
        return tuple(window.limit for window in self._windows)

    @property
    def in_flight(self) -> int:
        """Calls spent and not yet answered."""
        return len(self._calls.in_flight)

    def wait(self, now: float) -> float:
        """Seconds until the next call may be sent: 0.0 means now, `inf` not before a call in flight is answered."""
        now = self._seen(now)
        if len(self._calls.in_flight) >= self.concurrency:
            return inf
        due = max(self._throttle.until, self._remaining.due(now))
        for window in self._windows:
            due = max(due, window.due(self._calls, now))
        return max(0.0, due - now)

    def spend(self, now: float) -> int:
        """Count one call as in flight and return its number. Raises ValueError when `wait(now)` is not 0."""
        if self.wait(now) > 0:
            raise ValueError(f"budget {self.name}: no call may leave now")
        self._remaining.spent()
        return self._calls.spend()

    def answered(self, call: int, now: float) -> None:
        """Note that the call's answer is complete, or that it failed. A number that is not in flight is ignored."""
        now = self._seen(now)
        if self._calls.answered(call, now):
            self._remaining.answered(call)

    def restore(
        self, calls: Iterable[tuple[float, float | None]], now: float, *, throttled_until: float | None = None
    ) -> None:
        """Replace the known calls by those (sent at, answered at) of an earlier run.

        An unanswered call counts as answered now. A call that another worker has sent may still be under way, and has a
        time slightly ahead. No later time is accepted.
        """
        now = self._seen(now)
        self._calls.restore(now if answered is None else min(answered, now + ON_ITS_WAY) for _, answered in calls)
        self._throttle.until = -inf if throttled_until is None else throttled_until
        self._calls.forget(now)

    def obey(self, headers: RateLimitHeaders, now: float) -> None:
        """Apply the rate limit headers of the latest answer; they can only lower what is left."""
        now = self._seen(now)
        self.word = word_of(headers) or self.word
        pause = None if headers.retry_after is None else min(headers.retry_after, longest_pause(self._windows))
        self._throttle.obey(now, pause=pause, is_refused=is_throttled(headers), went_well=headers.status < 400)
        for quota in headers.quotas:
            longest = longest_pause(self._windows, quota.window)
            self._remaining.note(quota, window_of(self._windows, quota), self._calls, now, longest=longest)

    def resume(self, now: float) -> None:
        """Forget every pause that the server asked for; its next answer may ask for another. Configured limits still
        apply.
        """
        self._seen(now)
        self._throttle.forget()
        self._remaining.forget()
        for window in self._windows:
            window.forget_foreign()

    def throttled_until(self, now: float) -> float | None:
        """Until when the server wants no call (steady time); None if calls are welcome."""
        now = self._seen(now)
        until = max(self._throttle.until, self._remaining.used_up_until())
        return until if until > now else None

    def named_until(self, now: float) -> float | None:
        """The same without the wait that Poller chooses after a 429: the end of the pause that the server named."""
        now = self._seen(now)
        until = max(self._throttle.named, self._remaining.used_up_until())
        return until if until > now else None

    def usage(self, now: float) -> tuple[Usage, ...]:
        """Use of each window, the shortest first."""
        now = self._seen(now)
        left = [calls for calls, _ in self._remaining.horizons(now)]
        return tuple(window.usage(self._calls, left, now) for window in self._windows)

    def burst_left(self, now: float, fraction: float = 0.25) -> int:
        """Calls that a first sweep may still make at once, which keeps the use of the longest window below `fraction`.

        Windows shorter than an hour refill soon, so they may be used completely.
        """
        if not self._windows:
            return self.concurrency - len(self._calls.in_flight)
        longest = self.usage(now)[-1]
        if longest.limit.seconds < HOUR:
            return longest.remaining
        return max(0, min(longest.remaining, max(1, floor(fraction * self._windows[-1].allowed)) - longest.used))

    def forecast(self, now: float) -> Forecast:
        """The highest rate that can be sustained: min over h of (left now + calls expiring within h) / h.

        It considers windows of an hour or longer (or else the longest) and what the server said remains; `wait` covers
        the short ones. Calls in flight count as expiring with the window.
        """
        now = self._seen(now)
        if not self._windows:
            return Forecast(left=1, seconds=0.0)
        long = [window for window in self._windows if window.limit.seconds >= HOUR] or self._windows[-1:]
        horizons: list[tuple[int, float, Window | None]] = [
            (*horizon, window) for window in long for horizon in window.horizons(self._calls, now)
        ]
        horizons += [(*horizon, None) for horizon in self._remaining.horizons(now)]
        left, seconds, window = min(horizons, key=lambda horizon: horizon[0] / horizon[1])
        least = 0.0 if window is None else window.least(left / seconds, self._calls, now)
        return Forecast(left=left, seconds=seconds, least=least)

    def _seen(self, now: float) -> float:
        self._now = max(self._now, now)
        self._calls.forget(self._now)
        return self._now
