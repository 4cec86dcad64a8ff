"""Routes of the event log: page by page, and as a stream."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

import poller.web.parameters as p
from poller.events.cloudevents import structured
from poller.operations.log import place, place_before, read_batch, read_newest
from poller.web.answers import Responses, as_json, problems
from poller.web.parameters import Context
from poller.web.schemas import EventPage
from poller.web.stream import stream
from state.records import EventQuery

STREAM_HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
STREAM: Responses = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events."},
    **problems(400, 410),
}

router = APIRouter()


@router.get("/api/v1/events", responses={200: {"model": EventPage}, **problems(400, 410)})
async def events(
    context: Context,
    after: p.After = None,
    before: p.Before = None,
    limit: p.Limit = 100,
    type_glob: p.TypeGlob = None,
    source: p.SourceName = None,
    subject: p.Subject = None,
    newest: p.Newest = False,
) -> Response:
    """The log after `after`, in order, as CloudEvents; continue with `next`.

    An answer ends after `limit` events or about 500 kB. 410: `after` is a position in another log, or a
    `LOGID-SEQ` whose next events are no longer kept.
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
    tail = orjson.dumps({"next": batch.next, "log_id": batch.log_id, "first": batch.first})
    return Response(b'{"events":[' + shown + b"]," + tail[1:], media_type="application/json")


@router.get("/api/v1/events/types", responses={200: {"model": list[str]}})
async def types(context: Context) -> Response:
    """Up to 20 of the event types in the log."""
    return as_json(await context.look(lambda reader: reader.log.types()))


@router.get("/api/v1/events/stream", response_class=StreamingResponse, responses=STREAM)
async def events_stream(
    context: Context,
    request: Request,
    after: p.After = None,
    type_glob: p.TypeGlob = None,
    source: p.SourceName = None,
    subject: p.Subject = None,
    last_event_id: p.LastEventId = None,
) -> Response:
    """Events as they are recorded, as server-sent events, beginning after `Last-Event-ID`, `after`, or now."""
    begin = await context.look(place, last_event_id or after, default=None)
    query = EventQuery(after=begin, type_glob=type_glob, source=source, subject=subject)
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers=STREAM_HEADERS)
    context.may_stream()
    listener, tail = request.state.listener, request.app.state.tail
    messages = stream(context, tail, query, lambda: bool(listener.closing))
    return StreamingResponse(messages, media_type="text/event-stream", headers=STREAM_HEADERS)
