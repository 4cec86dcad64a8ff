"""The page of one endpoint: its staleness, where its changes happen, its units, and its latest polls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Response

from poller.operations.documents import known_object
from poller.operations.status import EndpointStatus, Status
from poller.options.problems import NotThere, nearest
from poller.planner.explanation import Explanation
from poller.rendering.event_view import EventView
from poller.web.context import Reader
from poller.web.dashboard import charts
from poller.web.dashboard.html import Shown
from poller.web.parameters import Context
from state.polls import Snapshot
from state.records import Event, EventQuery
from state.status import Activity, UnitProgress

SPANS: Final = 48  # spans of the heat map
WIDTH: Final = 1800.0  # seconds of one span
MOST_UNITS: Final = 30  # rows of the heat map and of the table
NEWEST: Final = 10  # events
RECENT: Final = 10_000  # newest events of the log that are searched
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One endpoint as read from the state."""

    units: list[UnitProgress]
    activity: list[Activity]
    events: list[Event]


@router.get("/endpoints/{source}/{endpoint:path}/object")
async def one_object(context: Context, page: Shown, source: str, endpoint: str, id: str) -> Response:
    """One object with its latest state and its events."""
    snapshot, events = await context.look(_object, source, endpoint, id)
    return page.render(
        "object.html.j2",
        source=source,
        endpoint=endpoint,
        snapshot=snapshot,
        events=[EventView(event, page.zone) for event in reversed(events)],
    )


@router.get("/endpoints/{source}/{endpoint:path}")
async def endpoint_page(context: Context, page: Shown, source: str, endpoint: str) -> Response:
    """The page."""
    status = await context.status()
    row = found_endpoint(status, source, endpoint)
    began = context.program.now() - SPANS * WIDTH
    look = await context.look(_look, source, endpoint, began)
    report = context.plan()
    plan = next((one for one in report.endpoints if (one.source, one.endpoint) == (source, endpoint)), None)
    units = {one.unit.key: one for one in report.units if (one.unit.source, one.unit.endpoint) == (source, endpoint)}
    settings = context.program.config.sources.get(source)
    return page.render(
        "endpoint.html.j2",
        row=row,
        source=next((one for one in status.sources if one.name == source), None),
        max_staleness=None if settings is None else settings.endpoint(endpoint).max_staleness,
        plan=plan,
        rhythm=None if plan is None or plan.busiest == "even" else _week(plan.rhythm),
        heat=_heat(look),
        units=_ordered(look.units, units),
        explained=units,
        polls=context.program.history.polls(source, endpoint),
        events=[EventView(event, page.zone) for event in reversed(look.events)],
    )


def found_endpoint(status: Status, source: str, endpoint: str) -> EndpointStatus:
    """The endpoint of that name. Raises NotThere."""
    for one in status.endpoints:
        if (one.source, one.endpoint) == (source, endpoint):
            return one
    known = [one.label for one in status.endpoints]
    raise NotThere(f"no endpoint is named {source}/{endpoint}", hint=nearest(f"{source}/{endpoint}", known))


def _look(reader: Reader, source: str, endpoint: str, since: float) -> Look:
    query = EventQuery(after=max(0, reader.log.last_seq() - RECENT), source=source, subject=f"{endpoint}/*")
    return Look(
        units=reader.polls.units(source, endpoint),
        activity=reader.sums.unit_activity(source, endpoint, since=since, width=WIDTH),
        events=reader.log.find(query, limit=NEWEST, newest=True),
    )


def _object(reader: Reader, source: str, endpoint: str, object_id: str) -> tuple[Snapshot, list[Event]]:
    snapshot = known_object(reader, source, endpoint, object_id)
    return snapshot, reader.log.history(source, f"{endpoint}/{object_id}")


def _heat(look: Look) -> list[charts.HeatRow]:
    """Changes of every unit by half hours; the last row is for objects that no unit shows any more."""
    spans: dict[str, list[tuple[int, float]]] = {one.key: [] for one in look.units}
    for one in look.activity:
        spans.setdefault(one.unit or "elsewhere", []).append((one.span, one.events))
    return charts.heat({key: charts.spread(found, count=SPANS) for key, found in spans.items()}, most=MOST_UNITS)


def _week(levels: tuple[float, ...]) -> list[charts.HeatRow]:
    """The learned weekly profile, one cell an hour."""
    top = max(3.0, *levels)
    return [
        charts.HeatRow(
            name=day,
            cells=tuple((value, charts.level(value, top)) for value in levels[24 * at : 24 * at + 24]),
            total=sum(levels[24 * at : 24 * at + 24]),
        )
        for at, day in enumerate(DAYS)
    ]


def _ordered(units: list[UnitProgress], explained: dict[str, Explanation]) -> list[UnitProgress]:
    """Failing units first, then those that are polled next."""
    return sorted(
        units,
        key=lambda one: (one.failures == 0, explained[one.key].rank if one.key in explained else len(units)),
    )[:MOST_UNITS]
