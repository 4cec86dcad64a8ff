"""The unit of polling."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of polling: the smallest thing that one poll can ask for. Source, endpoint and key identify it."""

    source: str
    endpoint: str
    key: str
    cost: int = field(default=1, compare=False)
    weight: float = field(default=1.0, compare=False)
    max_staleness: float | None = field(default=None, compare=False)
