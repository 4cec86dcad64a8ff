"""The rates of all units at one instant, as arrays over the slots of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from poller.planner.learning import KERNEL_SPANS, PRIOR, QUIET

if TYPE_CHECKING:
    from poller.planner.models import Models
    from poller.planner.units import Floats, Table


def base_rates(table: Table, models: Models) -> Floats:
    """Changes per second of each unit without excitation, on average over the week."""
    top = table.top
    pooled = np.array([model.pooled for model in models])[table.source[:top]]
    rates: Floats = (PRIOR + table.changes[:top]) / (PRIOR / pooled + table.exposure[:top])
    return rates


def mean_rates(table: Table, models: Models) -> Floats:
    """The same with the further changes that changes bring: by all changes that were seen.

    The base rate divided by what no change excites would be too high: excitation that decays before the next poll
    is counted in the base rate.
    """
    top = table.top
    pooled = np.array([model.mean for model in models])[table.source[:top]]
    rates: Floats = (PRIOR + table.seen[:top]) / (PRIOR / pooled + table.exposure[:top])
    return rates


class Expected(msgspec.Struct, frozen=True):
    """What is expected of each unit. Of one that was never polled, the delay is NaN and the rate the base rate."""

    gathered: Floats  # delay that its unseen changes have accumulated
    rate: Floats  # changes per second now
    base: Floats  # changes per second without excitation, on average over the week
    never: NDArray[np.intp]  # slots of units that were never polled


def expected(table: Table, models: Models, now: float) -> Expected:
    """What is expected of the units now."""
    top = table.top
    last, source = table.last[:top], table.source[:top]
    tau = np.maximum(now - last, 0.0)
    base = base_rates(table, models)
    passed = np.array([model.rhythm.integral(now) for model in models])[source] - table.profile_integral[:top]
    gathered = base * np.maximum(passed, 0.0) * tau / 2
    rate = base * np.array([model.rhythm.at(now) for model in models])[source]
    for kind, held in enumerate((table.minutes[:top], table.hours[:top])):
        excited = (held > QUIET).nonzero()[0]
        if not excited.size:
            continue
        span, age = KERNEL_SPANS[kind], tau[excited]
        eta = np.array([model.eta[kind] for model in models])[source[excited]] * held[excited]
        fade = np.exp(-age / span)
        gathered[excited] += eta * (age - span * (1 - fade))
        rate[excited] += eta * fade / span
    never = np.isnan(last).nonzero()[0]
    if never.size:
        rate[never] = base[never]
    return Expected(gathered, rate, base, never)
