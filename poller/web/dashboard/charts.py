"""Geometry of the small charts. Pure. The style sheet defines the colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LEVELS: Final = 4  # levels of a heat map, besides none


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a spark line, from the left and from the top."""

    x: float
    y: float
    height: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRow:
    """One row of a heat map: its name, and value and level (0 to LEVELS) of each cell."""

    name: str
    cells: tuple[tuple[float, int], ...]
    total: float


def bars(values: Sequence[float], *, step: float = 4.0, height: float = 22.0) -> list[Bar]:
    """A spark line: the highest value has the full height, and the lowest value above zero stays visible."""
    top = max(values, default=0.0)
    found = []
    for place, value in enumerate(values):
        tall = max(2.0, height * value / top) if value > 0 else 1.0
        found.append(Bar(x=place * step, y=round(height - tall, 1), height=round(tall, 1), value=value))
    return found


def heat(rows: Mapping[str, Sequence[float]], *, most: int) -> list[HeatRow]:
    """A heat map of the rows with the highest sums, in their own order."""
    top = max((value for values in rows.values() for value in values), default=0.0)
    chosen = set(sorted(rows, key=lambda name: -sum(rows[name]))[:most])
    return [
        HeatRow(name=name, cells=tuple((value, level(value, top)) for value in values), total=sum(values))
        for name, values in rows.items()
        if name in chosen
    ]


def level(value: float, top: float) -> int:
    """The colour level of a value: 0 for none, LEVELS for the highest; small values stay distinguishable."""
    if value <= 0 or top <= 0:
        return 0
    return min(LEVELS, 1 + int(LEVELS * (value / top) ** 0.5 - 1e-9))


def spread(spans: Iterable[tuple[int, float]], *, count: int) -> list[float]:
    """Values by span as a list of `count` values; values outside are left out."""
    found = [0.0] * count
    for place, value in spans:
        if 0 <= place < count:
            found[place] += value
    return found


def area(points: Sequence[tuple[float, float]], *, width: float, height: float, top: float) -> str:
    """The path of a filled line through points (0 to 1 from the left, a value). Values above `top` are cut off."""
    if not points:
        return ""
    placed = [(x * width, height - height * min(1.0, value / top if top else 0.0)) for x, value in points]
    line = " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    return f"M{placed[0][0]:.1f} {height:.1f} L{line} L{placed[-1][0]:.1f} {height:.1f} Z"
