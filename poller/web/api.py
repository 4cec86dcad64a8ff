"""The routes."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, StrictInt
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from poller.events.cloudevents import iso, structured
from poller.operations.commands import execute
from poller.operations.status import Row
from poller.options.problems import NotThere
from poller.options.quantities import parse_rate
from poller.planner.report import Changes, Report, parse_weight, rows
from poller.web.access import Guard
from poller.web.context import Site
from poller.web.dashboard import HEADERS, render
from poller.web.metrics import CONTENT_TYPE, exposition
from poller.web.stream import BadCursor, OtherLog, Wanted, place, read_batch, stream
from state.deliveries import AttemptRow, Delivery
from state.errors import PollerError, StateError
from state.sqlite.store import Reader

NEWEST = 20  # events on the page

After = Annotated[str | None, Query(description="A sequence number, or the id of an event of the stream.")]
TypeGlob = Annotated[str | None, Query(alias="type", description="A glob on the event type, such as *.deleted.")]
SourceName = Annotated[str | None, Query(description="The name of a source.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
STREAM = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}


class ReplayFrom(BaseModel):
    """Where a replay begins: behind a sequence number, or at a time (ISO text with its offset)."""

    model_config = ConfigDict(extra="forbid")
    after: StrictInt | str


def build(site: Site) -> ASGIApp:
    """The whole HTTP side, guarded."""
    api = FastAPI(
        title="Poller",
        summary="Events of APIs that have no webhooks, and how their delivery stands.",
        version="1",
        docs_url=None,  # they would load their scripts from elsewhere
        redoc_url=None,
    )
    _health(api, site)
    _looking(api, site)
    _events(api, site)
    _deliveries(api, site)
    _errors(api)
    return Guard(api, lambda: site.app.config.poller)


def _health(api: FastAPI, site: Site) -> None:
    @api.api_route("/healthz", methods=["GET", "HEAD"], operation_id="healthz")
    async def healthz() -> dict[str, str]:
        """Answers while the loop that polls is alive."""
        return {"status": "ok"}

    @api.api_route("/readyz", methods=["GET", "HEAD"], operation_id="readyz")
    async def readyz() -> Response:
        """200 once polling has begun and while the state can be read and written, else 503."""
        if not site.ready:
            return _json({"status": "not ready", "why": "starting or stopping"}, 503)
        if (outage := site.app.write.outage) is not None:
            return _json({"status": "not ready", "why": str(outage)}, 503)
        await site.look(lambda reader: reader.log.last_seq())
        return _json({"status": "ready"})


def _looking(api: FastAPI, site: Site) -> None:
    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        status = await site.status()
        newest = await site.look(lambda reader: reader.log.read(after=reader.log.last_seq() - NEWEST, limit=NEWEST))
        return Response(render(status, newest[::-1], site.app.config), media_type="text/html", headers=HEADERS)

    @api.get("/api/v1/status")
    async def status() -> Response:
        """Budgets, sources, endpoints and subscriptions as they stand."""
        return _json(await site.status())

    @api.get("/api/v1/plan")
    async def plan(
        share: Annotated[float | None, Query(gt=0, le=1, description="What if this share were used?")] = None,
        weight: Annotated[list[str], Query(description="What if? ENDPOINT=N, repeatable.")] = [],  # noqa: B006
        limits: Annotated[list[str], Query(description="What if these were the limits? Repeatable.")] = [],  # noqa: B006
    ) -> Response:
        """What is polled how often, and why: by budget, endpoint and unit; and what if."""
        found = site.plan(_changes(share, weight, limits))
        return _json(await asyncio.to_thread(_plan, found))

    @api.get("/metrics")
    async def metrics() -> Response:
        """The same in numbers, for Prometheus."""
        live, status = site.live(), await site.status()
        counts = await site.look(lambda reader: reader.sums.delivery_counts())
        return Response(exposition(status, live, counts), media_type=CONTENT_TYPE)


def _events(api: FastAPI, site: Site) -> None:
    @api.get("/api/v1/events")
    async def events(
        after: After = None, limit: Limit = 100, type_glob: TypeGlob = None, source: SourceName = None
    ) -> Response:
        """The log behind `after`, in order, as CloudEvents; go on with `next`. 410: `after` is of another log."""
        wanted = Wanted(type_glob=type_glob, source=source)
        begin = await site.look(place, after, default=0)
        batch = await site.look(read_batch, begin, limit, wanted)
        shown = b",".join(structured(event) for event in batch.events)
        tail = orjson.dumps({"next": batch.next, "log_id": batch.log_id})
        return Response(b'{"events":[' + shown + b"]," + tail[1:], media_type="application/json")

    @api.get("/api/v1/events/stream")
    async def events_stream(
        after: After = None,
        type_glob: TypeGlob = None,
        source: SourceName = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Events as they are recorded, as server-sent events; begins behind `Last-Event-ID`, `after`, or now."""
        begin = await site.look(place, last_event_id or after, default=None)
        told = stream(site, begin, Wanted(type_glob=type_glob, source=source))
        return StreamingResponse(told, media_type="text/event-stream", headers=STREAM)


def _deliveries(api: FastAPI, site: Site) -> None:
    @api.get("/api/v1/deliveries")
    async def deliveries(
        state: Annotated[str | None, Query(description="pending, delivered, dead, or several with commas.")] = None,
        subscription: str | None = None,
        limit: Limit = 100,
        before: Annotated[int | None, Query(description="The `next` of the answer before.")] = None,
    ) -> Response:
        """Deliveries, the latest first."""
        states = [one.strip() for one in (state or "").split(",") if one.strip()]
        if unknown := set(states) - {"pending", "delivered", "dead"}:
            raise PollerError(f"state: {min(unknown)!r} is none", hint="pending, delivered or dead")
        found = await site.look(
            lambda reader: reader.deliveries.deliveries(
                states=states, subscription=subscription, limit=limit, before=before
            )
        )
        next_ = found[-1].id if len(found) == limit else None
        return _json({"deliveries": [_delivery(one) for one in found], "next": next_})

    @api.get("/api/v1/deliveries/{number}")
    async def delivery(number: int) -> Response:
        """One delivery with all of its attempts."""
        return _json(await site.look(_one_delivery, number))

    @api.post("/api/v1/deliveries/{number}/redeliver", status_code=202)
    async def redeliver(number: int) -> Response:
        """Deliver it again: a dead letter as it is, a delivered one as a copy."""
        return _json(await execute(site.app, "redeliver", {"ids": [number]}), 202)

    @api.post("/api/v1/subscriptions/{name}/replay", status_code=202)
    async def replay(name: str, given: ReplayFrom) -> Response:
        """Deliver again what the subscription has read from some place in the log on."""
        return _json(await execute(site.app, "replay", {"subscription": name, "after": given.after}), 202)


def _one_delivery(reader: Reader, number: int) -> Row:
    found = reader.deliveries.delivery(number)
    if found is None:
        raise NotThere(f"there is no delivery {number}", hint="/api/v1/deliveries lists them")
    return {**_delivery(found), "tries": [_attempt(one) for one in reader.deliveries.attempts(number)]}


def _delivery(one: Delivery) -> Row:
    times = {name: None if (at := getattr(one, name)) is None else iso(at) for name in ("queued_at", "finished_at")}
    due = None if one.due is None else iso(one.due)
    return {**asdict(one), **times, "due": due}


def _attempt(one: AttemptRow) -> Row:
    return {**asdict(one), "at": iso(one.at)}


def _changes(share: float | None, weights: list[str], limits: list[str]) -> Changes | None:
    if share is None and not weights and not limits:
        return None
    try:
        return Changes(share=share, limits=tuple(map(parse_rate, limits)), weights=dict(map(parse_weight, weights)))
    except ValueError as error:
        raise PollerError(str(error), hint="?share=1&weight=projects=5&limits=200/min") from error


def _plan(found: Report) -> Row:
    answer: Row = {"budgets": [], "endpoints": [], "units": []}
    for row in rows(found):
        answer[f"{row.pop('kind')}s"].append(row)
    return answer


def _errors(api: FastAPI) -> None:
    """Every error is JSON: `error` says what, `hint` what to do."""

    def told(status: int) -> Any:
        async def answer(_: Request, error: PollerError) -> Response:
            return _json({"error": str(error), "hint": error.hint}, status)

        return answer

    for kind, status in ((PollerError, 400), (BadCursor, 400), (NotThere, 404), (OtherLog, 410), (StateError, 503)):
        api.add_exception_handler(kind, told(status))

    @api.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _json({"error": error.detail, "hint": "/openapi.json lists what there is"}, error.status_code)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        said = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()]
        return _json({"error": "; ".join(said), "hint": "/openapi.json describes every parameter"}, 422)


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")  # orjson writes NaN and infinity as null
