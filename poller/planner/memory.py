"""What a planner has learned, as it is saved across a restart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson

from poller.planner.learning import SourceModel
from poller.planner.unit import Unit

if TYPE_CHECKING:
    from poller.planner.models import Models
    from poller.planner.pacing import Pacing
    from poller.planner.units import Floats, Units

_LEARNED = ("last", "changes", "seen", "exposure", "minutes", "hours", "ready")  # statistics that are saved


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved, read."""

    units: list[Unit]
    columns: dict[str, Floats]
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
            "columns": {name: getattr(units.table, name)[slots].tolist() for name in _LEARNED},
            "sources": models.dump(),
            "pace": pacing.dump(),
        }
    )


def restore(saved: Learned, units: Units, models: Models, pacing: Pacing) -> None:
    """Restore what was saved, for the units that still exist."""
    pairs = [(slot, at) for at, unit in enumerate(saved.units) if (slot := units.slot(unit)) is not None]
    slots, places = [slot for slot, _ in pairs], [at for _, at in pairs]
    for name, values in saved.columns.items():
        getattr(units.table, name)[slots] = values[places]
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
    columns = {name: np.array(saved[name], float) for name in _LEARNED}
    for name, values in columns.items():
        if values.shape != (len(units),):
            raise ValueError(f"{name} has {values.size} values for {len(units)} units")
    for name in ("changes", "seen", "exposure", "minutes", "hours"):
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
    return Learned(units=units, columns=columns, sources=sources, pace=pace)


def _time(value: float | None, moved: float) -> float | None:
    return None if value is None else float(value) + moved


def _unit(source: object, endpoint: object, key: object) -> Unit:
    if not (isinstance(source, str) and isinstance(endpoint, str) and isinstance(key, str)):
        raise TypeError(f"{source!r}, {endpoint!r}, {key!r} do not name a unit")
    return Unit(source, endpoint, key)
