"""Pauses that a server asks for by `Retry-After` or 429, and the default wait if it names none. Pure."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Final

_BACKOFF: Final = (1.0, 300.0)  # seconds, first and longest, after a 429 that names no wait


class Throttle:
    """Until when no call may be sent. Times are steady seconds."""

    def __init__(self, seed: int) -> None:
        self.until = -inf
        self.named = -inf  # until when a Retry-After of this run allows no call
        self._refusals = 0
        self._random = Random(seed)

    def obey(self, now: float, *, pause: float | None, is_refused: bool, went_well: bool) -> None:
        """Apply an answer: `pause` is the seconds of its `Retry-After`, and it may refuse the call."""
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
        """Back off. Several refusals while throttled already count as one, because those calls were in flight
        together.
        """
        if now >= self.until:
            self._refusals += 1
        steps = self._refusals - (pause is not None)
        first, most = _BACKOFF
        backoff = min(most, first * 2.0 ** (steps - 1)) * self._random.uniform(0.8, 1.2) if steps > 0 else 0.0
        self.until = max(self.until, now + max(backoff, pause or 0.0))
