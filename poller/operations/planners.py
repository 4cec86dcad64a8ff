"""The planner of every budget, read from the state beside a running daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from poller.config.models import Config, SourceConfig
from poller.hooks.loading import attempted
from poller.options.problems import ConfigError
from poller.planner.feasibility import Infeasible, infeasible
from poller.planner.planner import Planner
from poller.planner.report import PlannerState
from poller.planner.units import Unit
from poller.polling.unit_keys import key_of
from state.errors import Outdated
from state.open import is_there, open_reader
from state.status import UnitRow
from state.store import StatusReader


def planner_states(config: Config, sums: StatusReader | None, *, now: float) -> list[PlannerState]:
    """The planners as the daemon saved them, at most a minute ago.

    Without `sums` nothing has run yet: each endpoint counts as one unit that was never polled.
    """
    rows = sums.units() if sums is not None else []
    found = []
    for name, budget in config.budgets.items():
        planner = Planner(_units(config, name, rows), now=now)
        if sums is not None:
            _recall(planner, sums.learned(f"planner:{name}"), rows)
        found.append(PlannerState(budget=name, limits=budget.limits, share=budget.share, planner=planner, now=now))
    return found


def infeasible_budgets(config: Config, rows: Sequence[UnitRow]) -> list[Infeasible]:
    """The `max_staleness` that each budget cannot keep, for the units known so far."""
    found = [
        infeasible(_units(config, name, rows), budget=name, limits=budget.limits, share=budget.share)
        for name, budget in config.budgets.items()
    ]
    return [one for one in found if one is not None]


def check_promises(config: Config) -> None:
    """Check that every budget can keep its `max_staleness`. Raises ConfigError if not, or StateError."""
    found = infeasible_budgets(config, _known(config))
    if found:
        raise ConfigError(config.path, [one.problem for one in found])


def _known(config: Config) -> list[UnitRow]:
    if not is_there(config.poller.state):
        return []
    try:
        with open_reader(config.poller.state) as reader:
            return reader.sums.units()
    except Outdated:  # the next daemon brings it up to date
        return []


def _units(config: Config, budget: str, rows: Sequence[UnitRow]) -> list[Unit]:
    """The units of one budget, and one unit for each endpoint without known units."""
    sources = [source for source in config.sources.values() if source.budget == budget]
    return [unit for source in sources for unit in _units_of(source, rows)]


def _units_of(source: SourceConfig, rows: Sequence[UnitRow]) -> list[Unit]:
    known = [
        _unit(source, row.endpoint, row.key, cost=max(1, row.calls))
        for row in rows
        if row.source == source.name and source.watches(row.endpoint)
    ]
    polled = {unit.endpoint for unit in known}
    return known + [_unit(source, name, key) for name, key in _offered(source) if name not in polled]


def _offered(source: SourceConfig) -> list[tuple[str, str]]:
    """Every chosen endpoint, and the key of its first unit."""
    found, _ = attempted(lambda: [(one.name, key_of(one.first)) for one in source.chosen(source.build().endpoints())])
    return found if found is not None else [(name, "list") for name in source.endpoints]


def _unit(source: SourceConfig, endpoint: str, key: str, cost: int = 1) -> Unit:
    settings = source.endpoint(endpoint)
    return Unit(source.name, endpoint, key, cost=cost, weight=settings.weight, max_staleness=settings.max_staleness)


def _recall(planner: Planner, saved: bytes | None, rows: Sequence[UnitRow]) -> None:
    if saved is not None:
        with contextlib.suppress(ValueError):  # the daemon reports it
            planner.load(saved)
    for row in rows:
        unit = Unit(row.source, row.endpoint, row.key)
        if row.answered_at is not None:
            planner.polled(unit, row.answered_at)
        if row.retry_at is not None:
            planner.defer(unit, row.retry_at)
