"""Lower bounds of mean detection delays: what policies that know every rate achieve.

The bounds are independent of the planner. Rates in changes per second, calls in calls per second, delays in seconds;
weights and costs per unit, 1 by default.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def optimum(rates: ArrayLike, calls: float, *, weights: ArrayLike = 1.0, costs: ArrayLike = 1.0) -> float:
    """Optimum D* = (sum sqrt(w l c))^2 / (2 B sum w l): the least weighted mean delay for Poisson changes at constant
    rates.

    Coffman, Liu & Weber 1998.
    """
    worth = np.asarray(weights) * np.asarray(rates, float)
    return float(np.sqrt(worth * costs).sum() ** 2 / (2 * calls * worth.sum()))


def intervals(rates: ArrayLike, calls: float, *, weights: ArrayLike = 1.0, costs: ArrayLike = 1.0) -> Floats:
    """Intervals of the square-root rule, which achieves D*: T_i proportional to sqrt(c_i / (w_i l_i)), sum c_i / T_i =
    B.
    """
    worth = np.asarray(weights) * np.asarray(rates, float)
    spread: Floats = np.sqrt(np.asarray(costs) / worth)
    spread *= np.sqrt(worth * costs).sum() / calls
    return spread


def in_turn(calls: float, *, units: int, costs: ArrayLike = 1.0) -> float:
    """Sum c / (2 B): the mean delay of polling in turn, at any rates."""
    return float(np.broadcast_to(np.asarray(costs, float), (units,)).sum() / (2 * calls))


def hourly(rates: ArrayLike, calls: float, *, weights: ArrayLike = 1.0, costs: ArrayLike = 1.0) -> float:
    """The least mean delay if the rates (a row per unit, a column per hour) are known and calls may be saved for later.

    Each hour costs S_h^2 / (2 B_h) with S_h = sum sqrt(w l c); the optimal B_h is proportional to S_h (Sia, Cho & Cho
    2007).
    """
    table = np.asarray(rates, float)
    worth = np.broadcast_to(np.asarray(weights, float), (table.shape[0],))[:, None] * table
    roots = np.sqrt(worth * np.broadcast_to(np.asarray(costs, float), (table.shape[0],))[:, None])
    return float(roots.sum(axis=0).mean() ** 2 / (2 * calls * worth.sum(axis=0).mean()))
