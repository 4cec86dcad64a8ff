"""Routes that show the state of the program: probes, status, configuration, plan and metrics."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

import poller.web.parameters as p
from poller.operations.status import Status, document
from poller.options.quantities import parse_rate
from poller.planner.report import Report, WhatIf, parse_weight, rows
from poller.web.answers import as_json, problem_answer, problems
from poller.web.context import Reader
from poller.web.metrics import CONTENT_TYPE, exposition
from poller.web.parameters import Context
from poller.web.schemas import ConfigurationDocument, Plan, TableDocument
from state.errors import PollerError
from state.status import SeenDelay

DELAYS: Final = 10_000  # delays read at once
Weights = list[Annotated[str, p.WEIGHT]]
Rates = list[Annotated[str, p.RATE]]

router = APIRouter()


@router.get("/api/v1/tables/{table}", responses={200: {"model": TableDocument}, **problems(400)})
async def table(context: Context, table: p.TableName, after: p.RowPlace = None, limit: p.Limit = 100) -> Response:
    """Rows of one of the open tables, as `poller export` has them; columns of JSON are text. Read on with `next`.

    An answer ends after `limit` rows or about 500 kB.
    """
    found = await context.look(lambda reader: reader.tables.page(table, after=after, limit=limit))
    return as_json({"columns": found.columns, "rows": found.rows, "next": found.next})


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answers as long as the polling loop is alive. Needs no token."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(context: Context) -> Response:
    """200 once polling has begun, as long as the state can be read and written; else 503. Needs no token."""
    why = "starting or stopping" if not context.ready else context.program.outage
    if why is not None:
        return problem_answer(503, str(why))
    await context.look(lambda reader: reader.log.last_seq())
    return as_json({"status": "ready"})


@router.get("/api/v1/status", responses={200: {"model": Status}})
async def status(context: Context) -> Response:
    """Current state of budgets, sources, endpoints and subscriptions."""
    return as_json(document(await context.status()))


@router.get("/api/v1/configuration", responses={200: {"model": ConfigurationDocument}})
async def configuration(context: Context) -> Response:
    """Which configuration the daemon runs, and when it was read."""
    config = context.program.config
    read_at = datetime.fromtimestamp(config.read_at, UTC).isoformat(timespec="seconds")
    return as_json(
        {
            "path": str(config.path),
            "digest": config.digest,
            "read_at": read_at,
            "process": os.getpid(),
            "timezone": config.poller.timezone,
            "sources": list(config.sources),
            "subscriptions": [one.name for one in config.subscriptions],
            "budgets": list(config.budgets),
        }
    )


@router.get("/api/v1/plan", responses={200: {"model": Plan}, **problems(404)})
async def plan(
    context: Context,
    share: Annotated[float | None, Query(gt=0, le=1, description="What if this share were used?")] = None,
    weight: Annotated[Weights, Query(max_length=50, description="What if? ENDPOINT=N, repeatable.")] = [],  # noqa: B006
    limits: Annotated[Rates, Query(max_length=50, description="What if these were the limits? Repeatable.")] = [],  # noqa: B006
) -> Response:
    """How often units are polled, and why: by budget, endpoint and unit, also with hypothetical settings."""
    found = context.plan(_what_if(share, weight, limits))
    return as_json(await asyncio.to_thread(_plan, found))


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(context: Context) -> Response:
    """The status as metrics for Prometheus."""
    live, status, delays = context.live(), await context.status(), context.program.delays
    while new := await context.look(_new_delays, delays.seen_upto or 0):
        delays.count(new)
    return Response(exposition(status, live, delays), media_type=CONTENT_TYPE)


def _new_delays(reader: Reader, after: int) -> list[SeenDelay]:
    return reader.sums.seen_delays(after=after, limit=DELAYS)


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
