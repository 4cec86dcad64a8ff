"""Whether a figure grows: its median at the end, compared with that after it has warmed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

WARM: Final = 1 / 3  # of the time, which is not judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """How a figure went."""

    name: str
    first: float  # the median of the first quarter that is judged
    last: float  # and of the last one
    highest: float
    most: float

    @property
    def added(self) -> float:
        """By how much it grew."""
        return self.last - self.first

    @property
    def is_too_much(self) -> bool:
        """Whether it grew by more than it may."""
        return self.added > self.most

    def __str__(self) -> str:
        verdict = "GREW" if self.is_too_much else "flat"
        return (
            f"{self.name}: {verdict}, {self.first:.2f} to {self.last:.2f}, "
            f"at most {self.highest:.2f} (may grow by {self.most:g})"
        )


def grown(name: str, times: Sequence[float], values: Sequence[float], *, most: float) -> Grown:
    """Compare the median of the first quarter after the warm-up with that of the last one."""
    at, found = np.asarray(times), np.asarray(values)
    warm = found[at >= at[0] + WARM * (at[-1] - at[0])]
    quarter = max(1, warm.size // 4)
    return Grown(
        name=name,
        first=float(np.median(warm[:quarter])),
        last=float(np.median(warm[-quarter:])),
        highest=float(warm.max()),
        most=most,
    )
