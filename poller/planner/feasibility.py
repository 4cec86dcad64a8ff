"""Feasibility of `max_staleness`: whether a budget has enough calls for it, and which limits would suffice. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from poller.budget.limits import Limit, allowed, share_of
from poller.options.problems import Problem, dotted
from poller.options.quantities import duration_text, rate_text
from poller.planner.unit import Unit

DAY = 86400.0


class Infeasible(msgspec.Struct, frozen=True, kw_only=True):
    """Infeasible budget: the `max_staleness` of its units requires more calls than it has. In calls per second."""

    budget: str
    limits: tuple[Limit, ...]
    share: float
    asked: Mapping[tuple[str, str], float]  # by source and endpoint, the most demanding first
    shortest: float  # `max_staleness` of the most demanding endpoint, seconds

    @property
    def least(self) -> tuple[Limit, ...]:
        """The limits, each raised where it is too low to the smallest sufficient one."""
        return tuple(_raised(limit, self.share, sum(self.asked.values())) for limit in self.limits)

    def __str__(self) -> str:
        most = list(self.asked.items())[:3]
        parts = ", ".join(f"{source}/{endpoint} {_daily(calls)}" for (source, endpoint), calls in most)
        return (
            f"max_staleness requires {_daily(sum(self.asked.values()))} calls a day ({parts}), and budget {self.budget}"
            f" allows {math.floor(allowed(self.limits, self.share) * DAY)}"
        )

    @property
    def problem(self) -> Problem:
        """The configuration problem: the key of the most demanding endpoint, and limits that would suffice."""
        source, endpoint = next(iter(self.asked))
        raised = [new for new, old in zip(self.least, self.limits, strict=True) if new != old]
        hint = f"it requires at least {', '.join(map(rate_text, raised))}"
        if any(share_of(limit, self.share) < 1 for limit in raised):
            hint += f" with share = {self.share:g}"
        longer = self._longer()
        return Problem(
            key=dotted(("sources", source, "endpoints", endpoint, "max_staleness")),
            what=f"cannot be kept: {self}",
            hint=hint if longer is None else f"{hint}, or a max_staleness of {longer}",
        )

    def _longer(self) -> str | None:
        """A `max_staleness` of the most demanding endpoint that the budget can keep; None if the other endpoints leave
        no calls.
        """
        mine, *others = self.asked.values()
        left = allowed(self.limits, self.share) - sum(others)
        if left <= 0:
            return None
        seconds = self.shortest * mine / left
        step = next((size for size in (86400, 3600, 60) if seconds > 2 * size), 1)
        return duration_text((math.floor(seconds / step) + 1) * step)


def infeasible(units: Iterable[Unit], *, budget: str, limits: Iterable[Limit], share: float) -> Infeasible | None:
    """Return why the budget is infeasible; None if sum c / max_staleness is below its calls per second."""
    asked: dict[tuple[str, str], float] = {}
    shortest: dict[tuple[str, str], float] = {}
    for unit in units:
        if unit.max_staleness is not None:
            name = unit.source, unit.endpoint
            asked[name] = asked.get(name, 0.0) + unit.cost / unit.max_staleness
            shortest[name] = unit.max_staleness
    limits = tuple(limits)
    if sum(asked.values()) < allowed(limits, share):
        return None
    ordered = dict(sorted(asked.items(), key=lambda item: -item[1]))
    return Infeasible(budget=budget, limits=limits, share=share, asked=ordered, shortest=shortest[next(iter(ordered))])


def _raised(limit: Limit, share: float, calls: float) -> Limit:
    needed = math.floor(calls * limit.seconds + 1e-9) + 1
    return Limit(max(limit.calls, math.ceil(needed / share_of(limit, share) - 1e-9)), limit.seconds)


def _daily(calls: float) -> int:
    return math.ceil(calls * DAY - 1e-6)
