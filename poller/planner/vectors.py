"""The columns of a planner's table as numpy arrays, for what is computed over all units.

numpy is imported when something is first computed so: a sweep on command of a few endpoints computes nothing.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, TypeAlias

from poller.late import late

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Slots: TypeAlias = NDArray[np.intp]
else:
    np = late("numpy")

__all__ = ["floats", "np", "numbers"]


def floats(column: array[float], top: int) -> Floats:
    """The first `top` values of a column, over the same memory."""
    return np.frombuffer(column, np.float64, top)


def numbers(column: array[int], top: int) -> Slots:
    """The same of a column of whole numbers."""
    return np.frombuffer(column, np.int64, top)
