"""The pace of messages to one channel: a second apart, and none while Slack says to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakValueDictionary

INTERVAL: Final = 1.0  # seconds between two messages to one channel (docs.slack.dev: rate limits)


class Pace:
    """The turns of one channel, whichever subscription the messages come from."""

    def __init__(self) -> None:
        self._free_at = float("-inf")  # when the next turn is
        self._held_until = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next free moment; the seconds until then."""
        at = max(now, self._free_at)
        self._free_at = at + INTERVAL
        return at - now

    def hold(self, now: float, seconds: float) -> None:
        """No message for so long, not even from those who have reserved a turn."""
        self._held_until = max(self._held_until, now + seconds)
        self._free_at = max(self._free_at, self._held_until)

    async def turn(
        self, clock: Callable[[], float], pause: Callable[[float], Awaitable[None]], *, until: float
    ) -> float | None:
        """Wait for a turn, and for another one if the channel is held meanwhile.

        None once it is there; where it would come after `until`, the seconds that are left, at once.
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
    """The one pace of a channel: of a webhook's URL, or of a token and a channel's name."""
    return _paces.setdefault(place, Pace())
