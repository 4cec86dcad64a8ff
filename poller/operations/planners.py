"""The planner of every budget, read from the state beside a running daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from poller.config.load import refusal
from poller.config.models import Config, SourceConfig
from poller.hooks.loading import attempted
from poller.late import late
from poller.planner.feasibility import Infeasible, infeasible
from poller.planner.unit import Unit
from poller.polling.unit_keys import key_of
from state.errors import Outdated
from state.open import is_there, open_reader
from state.status import UnitRow
from state.store import StatusReader

if TYPE_CHECKING:
    import poller.planner.planner as planning
    import poller.planner.report as reports
else:  # a status of a poller that does not run needs no planner, and numpy is slow to import
    planning, reports = late("poller.planner.planner"), late("poller.planner.report")


def planner_states(config: Config, sums: StatusReader | None, *, now: float) -> list[reports.PlannerState]:
    """The planners as the daemon saved them, at most a minute ago.

    Without `sums` nothing has run yet: each endpoint counts as one unit that was never polled.
    """
    rows = sums.units() if sums is not None else []
    found = []
    for name, budget in config.budgets.items():
        planner = planning.Planner(_units(config, name, rows), now=now)
        if sums is not None:
            _recall(planner, sums.learned(f"planner:{name}"), rows)
        limits, share = budget.limits, budget.share
        found.append(reports.PlannerState(budget=name, limits=limits, share=share, planner=planner, now=now))
    return found


def infeasible_budgets(config: Config, sums: StatusReader | None) -> list[Infeasible]:
    """The `max_staleness` that each budget cannot keep, for the units known so far."""
    promising = {source.budget for source in config.sources.values() if _promises(source)}
    rows = sums.units() if sums is not None and promising else []
    found = [
        infeasible(_units(config, name, rows), budget=name, limits=budget.limits, share=budget.share)
        for name, budget in config.budgets.items()
        if name in promising
    ]
    return [one for one in found if one is not None]


def _promises(source: SourceConfig) -> bool:
    return any(endpoint.max_staleness is not None for endpoint in source.endpoints.values())


def check_promises(config: Config) -> None:
    """Check that every budget can keep its `max_staleness`. Raises ConfigError if not, or StateError."""
    if found := _broken(config):
        raise refusal(config.path, [one.problem for one in found])


def _broken(config: Config) -> list[Infeasible]:
    if is_there(config.poller.state):
        with contextlib.suppress(Outdated), open_reader(config.poller.state) as reader:
            return infeasible_budgets(config, reader.sums)
    return infeasible_budgets(config, None)  # the units of an earlier version are known once a daemon has updated it


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


def _recall(planner: planning.Planner, saved: bytes | None, rows: Sequence[UnitRow]) -> None:
    if saved is not None:
        with contextlib.suppress(ValueError):  # the daemon reports it
            planner.load(saved)
    for row in rows:
        unit = Unit(row.source, row.endpoint, row.key)
        if row.answered_at is not None:
            planner.polled(unit, row.answered_at)
        if row.retry_at is not None:
            planner.defer(unit, row.retry_at)
