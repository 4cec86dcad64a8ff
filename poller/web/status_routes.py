"""Routes that show how everything is, and the commands of sources and endpoints."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import StringConstraints

import poller.web.parameters as p
from poller.operations.commands import execute
from poller.operations.status import Status, document
from poller.options.quantities import parse_rate
from poller.planner.report import Report, WhatIf, parse_weight, rows
from poller.web.answers import as_json, problems
from poller.web.context import WebContext
from poller.web.dashboard import HEADERS, render
from poller.web.metrics import CONTENT_TYPE, exposition
from poller.web.problems import MEDIA_TYPE, problem
from poller.web.schemas import ConfigurationDocument, Done, Plan
from state.errors import PollerError

NEWEST = 20  # events on the page
Weights = list[Annotated[str, StringConstraints(pattern=p.WEIGHT)]]
Rates = list[Annotated[str, StringConstraints(pattern=p.RATE)]]


def health_routes(api: FastAPI, context: WebContext) -> None:
    """Add the routes for probes; they need no token."""

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answers while the loop that polls is alive."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> Response:
        """200 once polling has begun and while the state can be read and written, else 503."""
        why = "starting or stopping" if not context.ready else context.app.write.outage
        if why is not None:
            return Response(problem(503, str(why)), 503, media_type=MEDIA_TYPE)
        await context.look(lambda reader: reader.log.last_seq())
        return as_json({"status": "ready"})


def status_routes(api: FastAPI, context: WebContext) -> None:
    """Add the routes that look."""

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        status = await context.status()
        newest = await context.look(lambda reader: reader.log.read(after=reader.log.last_seq() - NEWEST, limit=NEWEST))
        return Response(render(status, newest[::-1], context.app.config), media_type="text/html", headers=HEADERS)

    @api.get("/api/v1/status", responses={200: {"model": Status}})
    async def status() -> Response:
        """Budgets, sources, endpoints and subscriptions as they are now."""
        return as_json(document(await context.status()))

    @api.get("/api/v1/configuration", responses={200: {"model": ConfigurationDocument}})
    async def configuration() -> Response:
        """Which configuration the daemon runs, and since when."""
        config = context.app.config
        read_at = datetime.fromtimestamp(config.read_at, UTC).isoformat(timespec="seconds")
        return as_json(
            {
                "path": str(config.path),
                "digest": config.digest,
                "read_at": read_at,
                "process": os.getpid(),
                "timezone": config.poller.timezone,
                "subscriptions": [one.name for one in config.subscriptions],
                "budgets": list(config.budgets),
            }
        )

    @api.get("/api/v1/plan", responses={200: {"model": Plan}, **problems(404)})
    async def plan(
        share: Annotated[float | None, Query(gt=0, le=1, description="What if this share were used?")] = None,
        weight: Annotated[Weights, Query(max_length=50, description="What if? ENDPOINT=N, repeatable.")] = [],  # noqa: B006
        limits: Annotated[Rates, Query(max_length=50, description="What if these were the limits? Repeatable.")] = [],  # noqa: B006
    ) -> Response:
        """What is polled how often, and why: by budget, endpoint and unit; and what if."""
        found = context.plan(_what_if(share, weight, limits))
        return as_json(await asyncio.to_thread(_plan, found))

    @api.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """The same in numbers, for Prometheus."""
        live, status = context.live(), await context.status()
        counts = await context.look(lambda reader: reader.sums.delivery_counts())
        return Response(exposition(status, live, counts), media_type=CONTENT_TYPE)


def endpoint_commands(api: FastAPI, context: WebContext) -> None:
    """Add the routes that change something."""
    done: dict[int | str, dict[str, Any]] = {200: {"model": Done}, **problems(403, 404, 409)}

    @api.post("/api/v1/probe", responses=done)
    async def probe() -> Response:
        """Ask every source at once, also where a failure makes it wait."""
        return as_json(await execute(context.app, "probe", {}))

    @api.post("/api/v1/budgets/{name}/resume", responses=done)
    async def resume(name: p.Budget) -> Response:
        """End the pause that a server asked for, and call at once; the budget's own limits hold on."""
        return as_json(await execute(context.app, "resume", {"budget": name}))

    @api.post("/api/v1/endpoints/{source}/{endpoint:path}/hold", responses=done)
    async def hold(source: p.Source, endpoint: p.Endpoint) -> Response:
        """Record nothing of an endpoint until it is released."""
        return as_json(await execute(context.app, "hold", {"endpoint": f"{source}/{endpoint}"}))

    @api.post("/api/v1/endpoints/{source}/{endpoint:path}/release", responses=done)
    async def release(source: p.Source, endpoint: p.Endpoint, how: p.ReleaseHow | None = None) -> Response:
        """End the hold of an endpoint."""
        way = {} if how is None else how.model_dump()
        return as_json(await execute(context.app, "release", {"endpoint": f"{source}/{endpoint}", **way}))

    @api.post("/api/v1/endpoints/{source}/{endpoint:path}/inspect", responses=done)
    async def inspect(source: p.Source, endpoint: p.Endpoint) -> Response:
        """Ask an endpoint now, and say what came; nothing of it is recorded."""
        return as_json(await execute(context.app, "inspect", {"endpoint": f"{source}/{endpoint}"}))

    @api.post("/api/v1/endpoints/{source}/{endpoint:path}/rebaseline", responses=done)
    async def rebaseline(source: p.Source, endpoint: p.Endpoint) -> Response:
        """Take the next sweep of an endpoint as it is, without events."""
        return as_json(await execute(context.app, "rebaseline", {"endpoint": f"{source}/{endpoint}"}))


def _what_if(share: float | None, weights: list[str], limits: list[str]) -> WhatIf | None:
    if share is None and not weights and not limits:
        return None
    try:
        return WhatIf(share=share, limits=tuple(map(parse_rate, limits)), weights=dict(map(parse_weight, weights)))
    except (ValueError, OverflowError) as error:
        raise PollerError(str(error), hint="?share=1&weight=projects=5&limits=200/min") from error


def _plan(found: Report) -> dict[str, Any]:
    answer: dict[str, Any] = {"budgets": [], "endpoints": [], "units": []}
    for row in rows(found):
        answer[f"{row.pop('kind')}s"].append(row)
    return answer
