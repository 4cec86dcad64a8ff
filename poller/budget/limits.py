"""Limits that an API sets on the calls of a key. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor
from typing import Final

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
_UNITS: Final = {1.0: "s", MINUTE: "min", HOUR: "h", DAY: "day"}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `calls` calls in any window of `seconds` seconds."""

    calls: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.calls}/{_UNITS.get(self.seconds) or f'{self.seconds:g}s'}"


def share_of(limit: Limit, share: float) -> float:
    """The part of a window that Poller uses: `share` of one of an hour or longer; short ones completely."""
    return share if limit.seconds >= HOUR else 1.0


def allowed(limits: Iterable[Limit], share: float) -> float:
    """Calls per second that all windows together allow in the long run."""
    return min(calls_allowed(limit, share) / limit.seconds for limit in limits)


def calls_allowed(limit: Limit, share: float) -> int:
    """Calls of one window that Poller may use; at least one."""
    return max(1, floor(limit.calls * share_of(limit, share) + 1e-9))
