"""Pure: windows and calls spent -> when may the next call leave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `calls` calls in any window of `seconds` seconds."""

    calls: int
    seconds: float
