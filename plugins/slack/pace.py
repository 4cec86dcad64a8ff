"""The pace of messages to one channel: one a second, and none while Slack asks to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakValueDictionary

INTERVAL: Final = 1.0  # seconds between two messages to one channel (docs.slack.dev: rate limits)


class Pace:
    """The turns of one channel, for all subscriptions that post to it."""

    def __init__(self) -> None:
        self._free_at = float("-inf")  # time of the next turn
        self._held_until = float("-inf")

    def reserve(self, now: float) -> float:
        """Reserve the next free turn; returns the seconds until then."""
        at = max(now, self._free_at)
        self._free_at = at + INTERVAL
        return at - now

    def hold(self, now: float, seconds: float) -> None:
        """Allow no message for so long, including reserved turns."""
        self._held_until = max(self._held_until, now + seconds)
        self._free_at = max(self._free_at, self._held_until)

    async def turn(
        self, clock: Callable[[], float], pause: Callable[[float], Awaitable[None]], *, until: float
    ) -> float | None:
        """Wait for a turn, and for another one if the channel is held meanwhile.

        Returns None at the turn. If it would come after `until`, returns at once the seconds until then.
        """
        while True:
            now = clock()
            if max(now, self._free_at) > until:
                return max(self._free_at, self._held_until) - now
            wait = self.reserve(now)
            if wait > 0:
                await pause(wait)
            if clock() >= self._held_until:
                return None


_paces: WeakValueDictionary[tuple[str, str], Pace] = WeakValueDictionary()


def pace_of(place: tuple[str, str]) -> Pace:
    """The pace of a channel, identified by a webhook's URL, or by a token and a channel's name."""
    return _paces.setdefault(place, Pace())
