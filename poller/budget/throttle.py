"""Pure: the pauses that a server asks for by `Retry-After` or 429, and our own wait where it does not say how long."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Final

_BACKOFF: Final = (1.0, 300.0)  # seconds, first and longest, after a 429 that does not say how long


class Throttle:
    """Until when no call may leave. Times are steady seconds."""

    def __init__(self, seed: int) -> None:
        self.until = -inf
        self.named = -inf  # until when a Retry-After of this run wants no call
        self._refusals = 0
        self._random = Random(seed)

    def obey(self, now: float, *, pause: float | None, is_refused: bool, went_well: bool) -> None:
        """Take what an answer says: `pause`, the seconds of its `Retry-After`, and whether it refuses the call."""
        if pause is not None:
            self.named = max(self.named, now + pause)
        if is_refused:
            self._back_off(now, pause)
        elif pause is not None:
            self.until = max(self.until, self.named)
        elif went_well and now >= self.until:
            self._refusals = 0

    def forget(self) -> None:
        """Forget every pause."""
        self.until, self.named, self._refusals = -inf, -inf, 0

    def _back_off(self, now: float, pause: float | None) -> None:
        """Wait: several refusals while throttled already are one, of calls that were in flight together."""
        if now >= self.until:
            self._refusals += 1
        steps = self._refusals - (pause is not None)
        first, most = _BACKOFF
        backoff = min(most, first * 2.0 ** (steps - 1)) * self._random.uniform(0.8, 1.2) if steps > 0 else 0.0
        self.until = max(self.until, now + max(backoff, pause or 0.0))
