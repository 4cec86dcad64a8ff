"""The first page: problems, then endpoints, subscriptions, budgets and the latest events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fastapi import APIRouter, Response

from poller.config.models import Config
from poller.operations.doctor import Finding, Level, of_status
from poller.operations.status import EndpointStatus, Status
from poller.rendering.event_view import EventView
from poller.web.context import Reader
from poller.web.dashboard import charts
from poller.web.dashboard.html import Shown, endpoint_url, plural
from poller.web.parameters import Context
from state.records import Event
from state.status import Activity

NEWEST: Final = 12  # events on the page
DAY: Final = 86400.0
HOURS: Final = 24

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One problem, and everything that it affects."""

    level: Level
    about: tuple[str, ...]
    what: str
    hint: str | None
    links: tuple[str | None, ...]  # links to the page of each affected thing


@router.get("/")
async def overview(context: Context, page: Shown) -> Response:
    """The overview."""
    status = await context.status()
    since = context.program.now() - DAY
    events, activity = await context.look(_look, since)
    config = context.program.config
    return page.render(
        "overview.html.j2",
        status=status,
        causes=causes(status, config),
        endpoints=sorted(status.endpoints, key=lambda one: one.state == "ok"),
        broken={one.name: one for one in status.sources if one.state != "ok"},
        promises=promises(config),
        sparks=_sparks(status.endpoints, activity),
        recent=sum(one.events for one in activity),
        subscriptions=sorted(status.subscriptions, key=lambda one: one.state == "active" and not one.dead),
        events=[EventView(event, page.zone) for event in reversed(events)],
        plugins={one.name: one.plugin for one in config.subscriptions},
    )


def causes(status: Status, config: Config) -> list[Cause]:
    """Problems, the worst first: one line for each cause, however much it affects."""
    broken = {one.name for one in status.sources if one.state != "ok"}
    hidden = {
        f"endpoint {one.label}"
        for one in status.endpoints
        if one.source in broken and one.state in ("blocked", "failing")
    }
    wrong = [one for one in of_status(status, config) if one.level is not Level.OK and one.about not in hidden]
    merged: dict[tuple[Level, str, str | None], list[Finding]] = {}
    for one in _joined(wrong):
        merged.setdefault((one.level, one.what, one.hint), []).append(one)
    found = [_cause(together) for together in merged.values()]
    counts = {name: sum(one.source == name for one in status.endpoints) for name in broken}
    found = [_with_endpoints(one, counts) for one in found]
    return sorted(found, key=lambda one: one.level is not Level.BAD)


def _joined(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of one thing combined, the worst first."""
    found: dict[str, Finding] = {}
    for one in sorted(findings, key=lambda one: one.level is not Level.BAD):
        first = found.get(one.about)
        found[one.about] = one if first is None else replace(first, what=f"{first.what}; {one.what}")
    return list(found.values())


def _cause(together: Sequence[Finding]) -> Cause:
    first = together[0]
    about = tuple(one.about for one in together)
    return Cause(
        level=first.level, about=about, what=first.what, hint=first.hint, links=tuple(_link(one) for one in about)
    )


def _with_endpoints(cause: Cause, counts: dict[str, int]) -> Cause:
    """A failing source, with the number of its endpoints."""
    kind, _, name = cause.about[0].partition(" ")
    if kind != "source" or not counts.get(name):
        return cause
    return replace(cause, what=f"{cause.what} ({plural(counts[name], 'endpoint')} not polled)")


def _link(about: str) -> str | None:
    """The page that a finding is about."""
    kind, _, name = about.partition(" ")
    match kind:
        case "endpoint":
            return endpoint_url(*name.split("/", 1)) if "/" in name else None
        case "subscription":
            return f"/subscriptions/{name}"
        case "budget":
            return f"/budgets#{name}"
    return None


def promises(config: Config) -> dict[str, float]:
    """`max_staleness` in seconds, by SOURCE/ENDPOINT."""
    return {
        f"{source.name}/{name}": endpoint.max_staleness
        for source in config.sources.values()
        for name, endpoint in source.endpoints.items()
        if endpoint.max_staleness is not None
    }


def _look(reader: Reader, since: float) -> tuple[list[Event], list[Activity]]:
    events = reader.log.read(after=max(0, reader.log.last_seq() - NEWEST), limit=NEWEST)
    return events, reader.sums.activity(since=since, width=DAY / HOURS)


def _sparks(endpoints: Iterable[EndpointStatus], activity: Iterable[Activity]) -> dict[str, list[charts.Bar]]:
    """Events an hour of the last day, for every endpoint."""
    spans: dict[str, list[tuple[int, float]]] = {one.label: [] for one in endpoints}
    for one in activity:
        spans.setdefault(f"{one.source}/{one.endpoint}", []).append((one.span, one.events))
    return {name: charts.bars(charts.spread(found, count=HOURS)) for name, found in spans.items()}
