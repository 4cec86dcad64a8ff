"""What a server says remains of its windows; it can only lower what is left. Pure."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:  # only for annotations
    from poller.budget.counted_calls import CountedCalls
    from poller.budget.headers import Quota
    from poller.budget.windows import Window

_UNTOLD_RESET: Final = 60.0  # seconds that "nothing remains" holds if the server names neither reset nor window


class _Cap(msgspec.Struct):
    """The server's limit of `left` more calls before `until`."""

    left: int
    until: float
    unsure: set[int] = msgspec.field(
        default_factory=set
    )  # calls in flight at that moment, which may or may not be counted in it


class Remaining:
    """What remains of each window that the server names, until that window is over."""

    def __init__(self) -> None:
        self._caps: dict[str, _Cap] = {}

    def spent(self) -> None:
        """Count one more spent call in every window."""
        for cap in self._caps.values():
            cap.left -= 1

    def answered(self, call: int) -> None:
        """A call is answered: later answers of the server have counted it."""
        for cap in self._caps.values():
            cap.unsure.discard(call)

    def note(self, quota: Quota, window: Window | None, calls: CountedCalls, now: float, *, longest: float) -> None:
        """Note what the server says about one of its windows, for at most `longest` seconds.

        `window` is the configured window that it matches, if any; the window learns what other users have used.
        """
        untold = window.limit.seconds if window is not None else quota.window or _UNTOLD_RESET
        until = now + (untold if quota.reset_in is None else min(quota.reset_in, longest))
        if window is not None:
            limit = quota.limit if quota.limit is not None else window.limit.calls
            window.foreign = max(0, limit - quota.remaining - calls.used(window.limit.seconds, now))
            window.foreign_until, window.server_limit = until, limit
        known = self._caps.get(quota.name)
        # Answers may arrive out of order: within a window, the remaining number cannot rise.
        same = known is not None and known.until > now and until <= known.until + 1.0
        left = min(known.left, quota.remaining) if known is not None and same else quota.remaining
        self._caps[quota.name] = _Cap(left, until, set(calls.in_flight))

    def due(self, now: float) -> float:
        """When one more call may be sent; `inf` if only an answer can tell."""
        due = -inf
        for name, cap in list(self._caps.items()):
            if cap.until <= now:
                del self._caps[name]
            elif cap.left <= 0:
                due = max(due, cap.until)
            elif cap.left <= len(cap.unsure):
                due = inf  # calls in flight may use what remains; their answers will show
        return due

    def used_up_until(self) -> float:
        """Until when nothing remains of some window."""
        return max((cap.until for cap in self._caps.values() if cap.left <= 0), default=-inf)

    def horizons(self, now: float) -> list[tuple[int, float]]:
        """(calls, seconds): how many calls may be spent within so many seconds, for each current window."""
        return [(max(0, cap.left), cap.until - now) for cap in self._caps.values() if cap.until > now]

    def forget(self) -> None:
        """Forget everything that the server has said."""
        self._caps.clear()
