"""Units and their statistics, stored as one array per statistic, and how these are saved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from poller.planner.learning import Floats, SourceModel

LEARNED = ("last", "changes", "exposure", "minutes", "hours", "ready")  # statistics that are saved across a restart


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of polling: the smallest thing that one poll can ask for. Source, endpoint and key identify it."""

    source: str
    endpoint: str
    key: str
    cost: int = field(default=1, compare=False)
    weight: float = field(default=1.0, compare=False)
    max_staleness: float | None = field(default=None, compare=False)


class Table:
    """Statistics of all units, one column each; slots of removed units are reused."""

    columns = (
        "last",
        "profile_integral",
        "changes",
        "exposure",
        "minutes",
        "hours",
        "ready",
        "weight",
        "cost",
        "limit",
        "place",
    )

    def __init__(self, capacity: int) -> None:
        self.rows = np.zeros((len(self.columns), max(capacity, 16)))
        self.source = np.zeros(max(capacity, 16), np.intp)
        self.top = 0
        self.free: list[int] = []
        self._name()

    def take(self) -> int:
        """Allocate a slot."""
        if self.free:
            return self.free.pop()
        if self.top == self.source.size:
            self.rows = np.concatenate((self.rows, np.zeros_like(self.rows)), axis=1)
            self.source = np.concatenate((self.source, np.zeros_like(self.source)))
            self._name()
        self.top += 1
        return self.top - 1

    def _name(self) -> None:
        self.last, self.profile_integral, self.changes, self.exposure, self.minutes, self.hours = self.rows[:6]
        self.ready, self.weight, self.cost, self.limit, self.place = self.rows[6:]


def plain(values: Floats) -> list[float | None]:
    """The values as JSON, with null for NaN and infinity: a unit in flight is ready after a restart."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def read(
    saved: bytes, *, moved: float = 0.0
) -> tuple[list[Unit], dict[str, Floats], dict[str, SourceModel], list[Any]]:
    data = orjson.loads(saved)
    if data["version"] != 1:
        raise ValueError(f"version {data['version']!r} is not supported, only 1")
    units = [_unit(*identity) for identity in data["units"]]
    columns = {name: np.array(data["columns"][name], float) for name in LEARNED}
    for name, values in columns.items():
        if values.shape != (len(units),):
            raise ValueError(f"{name} has {values.size} values for {len(units)} units")
    for name in ("changes", "exposure", "minutes", "hours"):
        if not (columns[name] >= 0).all():
            raise ValueError(f"{name} must be numbers of at least 0")
    columns["ready"] = np.where(np.isnan(columns["ready"]), -math.inf, columns["ready"]) + moved
    columns["last"] = columns["last"] + moved
    sources = {}
    for name, model in data["sources"].items():
        sources[name] = SourceModel(0.0)
        sources[name].load(model)
        sources[name].refitted += moved
    calls, began, answered, swell, swelled = data["pace"]
    pace = [float(calls), _time(began, moved), float(answered) + moved, float(swell), _time(swelled, moved)]
    return units, columns, sources, pace


def _time(value: float | None, moved: float) -> float | None:
    return None if value is None else float(value) + moved


def _unit(source: object, endpoint: object, key: object) -> Unit:
    if not (isinstance(source, str) and isinstance(endpoint, str) and isinstance(key, str)):
        raise TypeError(f"{source!r}, {endpoint!r}, {key!r} do not name a unit")
    return Unit(source, endpoint, key)
