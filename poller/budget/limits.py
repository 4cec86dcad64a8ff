"""Pure: the limit that an API sets on the calls of a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_UNITS: Final = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "day"}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `calls` calls in any window of `seconds` seconds."""

    calls: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.calls}/{_UNITS.get(self.seconds) or f'{self.seconds:g}s'}"
