"""What polling can reach at best: mean detection delays of policies that know every rate.

Nothing here knows the planner. Rates in changes per second, calls in calls per second, delays in seconds; weights and
costs per unit, 1 where left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def optimum(rates: ArrayLike, calls: float, *, weights: ArrayLike = 1.0, costs: ArrayLike = 1.0) -> float:
    """D* = (sum sqrt(w l c))^2 / (2 B sum w l): the least weighted mean delay on Poisson changes of constant rates.

    Coffman, Liu & Weber 1998.
    """
    worth = np.asarray(weights) * np.asarray(rates, float)
    return float(np.sqrt(worth * costs).sum() ** 2 / (2 * calls * worth.sum()))


def intervals(rates: ArrayLike, calls: float, *, weights: ArrayLike = 1.0, costs: ArrayLike = 1.0) -> Floats:
    """The square-root rule, which reaches D*: T_i in proportion to sqrt(c_i / (w_i l_i)), sum c_i / T_i = B."""
    worth = np.asarray(weights) * np.asarray(rates, float)
    spread: Floats = np.sqrt(np.asarray(costs) / worth)
    spread *= np.sqrt(worth * costs).sum() / calls
    return spread


def in_turn(calls: float, *, units: int, costs: ArrayLike = 1.0) -> float:
    """Sum c / (2 B): the mean delay of polling one after the other, whatever the rates."""
    return float(np.broadcast_to(np.asarray(costs, float), (units,)).sum() / (2 * calls))


def hourly(rates: ArrayLike, calls: float, *, weights: ArrayLike = 1.0, costs: ArrayLike = 1.0) -> float:
    """The least mean delay where rates (a row per unit, a column per hour) are known and calls may wait.

    Each hour costs S_h^2 / (2 B_h) with S_h = sum sqrt(w l c); the best B_h is in proportion to S_h
    (Sia, Cho & Cho 2007).
    """
    table = np.asarray(rates, float)
    worth = np.broadcast_to(np.asarray(weights, float), (table.shape[0],))[:, None] * table
    roots = np.sqrt(worth * np.broadcast_to(np.asarray(costs, float), (table.shape[0],))[:, None])
    return float(roots.sum(axis=0).mean() ** 2 / (2 * calls * worth.sum(axis=0).mean()))
