"""Routes of sources and their endpoints: names, objects, and the commands that hold, release and rebaseline."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

import poller.web.parameters as p
from poller.operations.documents import known_object, object_document
from poller.web.answers import Responses, as_json, problems
from poller.web.context import Reader
from poller.web.parameters import Context
from poller.web.schemas import Done, ObjectDocument

DONE: Responses = {200: {"model": Done}, **problems(403, 404, 409)}
ENDPOINT = "/api/v1/endpoints/{source}/{endpoint:path}"

router = APIRouter()


@router.get(f"{ENDPOINT}/object", responses={200: {"model": ObjectDocument}, **problems(404)})
async def one_object(context: Context, source: p.Source, endpoint: p.Endpoint, object_id: p.ObjectId) -> Response:
    """One object: its last known state and its latest events."""
    return as_json(await context.look(_object, source, endpoint, object_id))


@router.post("/api/v1/probe", responses=DONE)
async def probe(context: Context) -> Response:
    """Ask every source at once, including those that wait after a failure."""
    return as_json(await context.execute("probe"))


@router.post("/api/v1/sources/{source}/rename", responses=DONE)
async def rename(context: Context, source: p.Source, given: p.NewName) -> Response:
    """Rename a source with its stored data to its new name in `poller.toml`, and apply that file."""
    return as_json(await context.execute("rename", kind="source", old=source, new=given.new))


@router.post("/api/v1/sources/{source}/forget", responses=DONE)
async def forget(context: Context, source: p.Source) -> Response:
    """Forget a source that the configuration no longer names, with its objects; its events stay in the log."""
    return as_json(await context.execute("forget", kind="source", name=source))


@router.post(f"{ENDPOINT}/hold", responses=DONE)
async def hold(context: Context, source: p.Source, endpoint: p.Endpoint) -> Response:
    """Record nothing of an endpoint until it is released."""
    return as_json(await context.execute("hold", endpoint=f"{source}/{endpoint}"))


@router.post(f"{ENDPOINT}/release", responses=DONE)
async def release(
    context: Context, source: p.Source, endpoint: p.Endpoint, how: p.ReleaseHow | None = None
) -> Response:
    """End the hold of an endpoint."""
    way = {} if how is None else how.model_dump()
    return as_json(await context.execute("release", endpoint=f"{source}/{endpoint}", **way))


@router.post(f"{ENDPOINT}/inspect", responses=DONE)
async def inspect(context: Context, source: p.Source, endpoint: p.Endpoint) -> Response:
    """Ask an endpoint now and report its answer, without recording it."""
    return as_json(await context.execute("inspect", endpoint=f"{source}/{endpoint}"))


@router.post(f"{ENDPOINT}/rebaseline", responses=DONE)
async def rebaseline(context: Context, source: p.Source, endpoint: p.Endpoint) -> Response:
    """Take the next sweep of an endpoint as it is, without events."""
    return as_json(await context.execute("rebaseline", endpoint=f"{source}/{endpoint}"))


def _object(reader: Reader, source: str, endpoint: str, object_id: str) -> dict[str, Any]:
    snapshot = known_object(reader, source, endpoint, object_id)
    return object_document(source, endpoint, snapshot, reader.log.history(source, f"{endpoint}/{object_id}"))
