"""What a planner has learned, as it is saved across a restart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from poller.planner.learning import SourceModel
from poller.planner.unit import Unit

if TYPE_CHECKING:
    from poller.planner.models import Models
    from poller.planner.pacing import Pacing
    from poller.planner.units import Units

_LEARNED = ("last", "changes", "seen", "exposure", "minutes", "hours", "ready")  # statistics that are saved


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved, read."""

    units: list[Unit]
    columns: dict[str, list[float]]
    sources: dict[str, SourceModel]
    pace: list[float | None]


def dumped(units: Units, models: Models, pacing: Pacing) -> bytes:
    """The learned values as JSON."""
    used = units.slots()
    slots = [slot for slot, _ in used]
    return orjson.dumps(
        {
            "version": 1,
            "units": [[unit.source, unit.endpoint, unit.key] for _, unit in used],
            # NaN and infinity become null: a unit in flight is ready after a restart.
            "columns": {name: list(map(getattr(units.table, name).__getitem__, slots)) for name in _LEARNED},
            "sources": models.dump(),
            "pace": pacing.dump(),
        }
    )


def restore(saved: Learned, units: Units, models: Models, pacing: Pacing) -> None:
    """Restore what was saved, for the units that still exist."""
    pairs = [(slot, at) for at, unit in enumerate(saved.units) if (slot := units.slot(unit)) is not None]
    for name, values in saved.columns.items():
        column = getattr(units.table, name)
        for slot, at in pairs:
            column[slot] = values[at]
    models.load(saved.sources)
    pacing.load(saved.pace)


def read(saved: bytes, *, moved: float) -> Learned:
    """Parse what `dumped` gave, with all times shifted by `moved` seconds. Raises ValueError for other data."""
    try:
        return _read(orjson.loads(saved), moved)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"this is not a saved planner: {error}") from error


def renamed(saved: bytes, old: str, new: str) -> bytes:
    """What `dumped` gave, with one source under another name. Raises ValueError for other data."""
    try:
        data = orjson.loads(saved)
        data["units"] = [[new if source == old else source, *rest] for source, *rest in data["units"]]
        data["sources"] = {new if source == old else source: model for source, model in data["sources"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"this is not a saved planner: {error}") from error
    return orjson.dumps(data)


def _read(data: Any, moved: float) -> Learned:
    if data["version"] != 1:
        raise ValueError(f"version {data['version']!r} is not supported, only 1")
    units = [_unit(*identity) for identity in data["units"]]
    saved = {"seen": data["columns"]["changes"], **data["columns"]}  # earlier versions saved no `seen`
    columns = {name: [math.nan if value is None else float(value) for value in saved[name]] for name in _LEARNED}
    for name, values in columns.items():
        if len(values) != len(units):
            raise ValueError(f"{name} has {len(values)} values for {len(units)} units")
    for name in ("changes", "seen", "exposure", "minutes", "hours"):
        if not all(value >= 0 for value in columns[name]):
            raise ValueError(f"{name} must be numbers of at least 0")
    columns["ready"] = [-math.inf if math.isnan(value) else value + moved for value in columns["ready"]]
    columns["last"] = [value + moved for value in columns["last"]]
    sources = {}
    for name, model in data["sources"].items():
        sources[name] = SourceModel(0.0)
        sources[name].load(model)
        sources[name].refitted += moved
    calls, began, answered, swell, swelled = data["pace"]
    pace = [float(calls), _time(began, moved), float(answered) + moved, float(swell), _time(swelled, moved)]
    return Learned(units=units, columns=columns, sources=sources, pace=pace)


def _time(value: float | None, moved: float) -> float | None:
    return None if value is None else float(value) + moved


def _unit(source: object, endpoint: object, key: object) -> Unit:
    if not (isinstance(source, str) and isinstance(endpoint, str) and isinstance(key, str)):
        raise TypeError(f"{source!r}, {endpoint!r}, {key!r} do not name a unit")
    return Unit(source, endpoint, key)
