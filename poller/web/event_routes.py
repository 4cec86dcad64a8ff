"""Routes of the event log: page by page, as a stream, and one object with its history."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

import poller.web.parameters as p
from poller.events.cloudevents import structured
from poller.operations.documents import object_document
from poller.operations.log import place, place_before, read_batch, read_newest
from poller.options.problems import NotThere
from poller.web.answers import as_json, problems
from poller.web.context import Reader, WebContext
from poller.web.schemas import EventPage, ObjectDocument
from poller.web.stream import stream
from state.records import EventQuery

STREAM = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events."}
}


def event_routes(api: FastAPI, context: WebContext) -> None:
    """Add the routes."""

    @api.get("/api/v1/events", responses={200: {"model": EventPage}, **problems(400, 410)})
    async def events(
        after: p.After = None,
        before: p.Before = None,
        limit: p.Limit = 100,
        type_glob: p.TypeGlob = None,
        source: p.SourceName = None,
        subject: p.Subject = None,
        newest: p.Newest = False,
    ) -> Response:
        """The log after `after`, in order, as CloudEvents; read on with `next`.

        An answer ends after `limit` events or about 500 kB. 410: `after` is a place in another log.
        """
        query = EventQuery(
            after=await context.look(place, after, default=0),
            before=await context.look(place_before, before),
            type_glob=type_glob,
            source=source,
            subject=subject,
        )
        batch = await context.look(read_newest if newest else read_batch, query, limit)
        shown = b",".join(structured(event) for event in batch.events)
        tail = orjson.dumps({"next": batch.next, "log_id": batch.log_id})
        return Response(b'{"events":[' + shown + b"]," + tail[1:], media_type="application/json")

    @api.get("/api/v1/events/types", responses={200: {"model": list[str]}})
    async def types() -> Response:
        """Up to 20 of the event types that are in the log."""
        return as_json(await context.look(lambda reader: reader.log.types()))

    @api.get(
        "/api/v1/events/stream", response_class=StreamingResponse, responses={**EVENT_STREAM, **problems(400, 410)}
    )
    async def events_stream(
        request: Request,
        after: p.After = None,
        type_glob: p.TypeGlob = None,
        source: p.SourceName = None,
        subject: p.Subject = None,
        last_event_id: p.LastEventId = None,
    ) -> Response:
        """Events as they are recorded, as server-sent events; begins after `Last-Event-ID`, `after`, or now."""
        begin = await context.look(place, last_event_id or after, default=None)
        query = EventQuery(after=begin, type_glob=type_glob, source=source, subject=subject)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=STREAM)
        context.may_stream()
        listener = request.state.listener
        told = stream(context, query, lambda: bool(listener.closing))
        return StreamingResponse(told, media_type="text/event-stream", headers=STREAM)

    @api.get(
        "/api/v1/endpoints/{source}/{endpoint:path}/object",
        responses={200: {"model": ObjectDocument}, **problems(404)},
    )
    async def one_object(source: p.Source, endpoint: p.Endpoint, object_id: p.ObjectId) -> Response:
        """One object: its last known state and its latest events."""
        return as_json(await context.look(_object, source, endpoint, object_id))


def _object(reader: Reader, source: str, endpoint: str, object_id: str) -> dict[str, Any]:
    snapshot = reader.polls.object(source, endpoint, object_id)
    if snapshot is None:
        raise NotThere(f"{source}/{endpoint} has no object {object_id!r}", hint="its id is the end of a subject")
    return object_document(source, endpoint, snapshot, reader.log.history(source, f"{endpoint}/{object_id}"))
