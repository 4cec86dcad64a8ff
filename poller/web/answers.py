"""Answers of routes: JSON, and problem details (RFC 9457) if a request cannot be served."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Response
from pydantic import BaseModel, Field
from starlette.types import Send

Responses = dict[int | str, dict[str, Any]]

PROBLEM: Final = "application/problem+json"
CHALLENGES: Final = (b"Bearer", b'Basic realm="poller"')
ALWAYS: Final = (400, 401, 413, 421, 422, 503)  # problems that every route may return
WHY: Final = {
    400: "The request cannot be done as asked.",
    401: "A token is needed.",
    403: "The request comes from a page of another site.",
    404: "It does not exist.",
    409: "It conflicts with the current state.",
    410: "The position is in another log (the state was restored or replaced), or its next events are not kept.",
    413: "The body is larger than 64 kB.",
    421: "This server does not answer for the Host of the request.",
    422: "A parameter or the body is not valid.",
    503: "The state cannot be read or written, or there are too many requests at once.",
}


class Problem(BaseModel):
    """What is wrong with a request, or with the program that answers it."""

    type: str = Field(default="about:blank", description="Always about:blank: the status names the kind of problem.")
    title: str = Field(description="The name of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, in one sentence.")
    hint: str | None = Field(default=None, description="What to do about it.")


def as_json(body: Any, status: int = 200) -> Response:
    """A JSON answer; NaN and infinity become null."""
    return Response(orjson.dumps(body), status, media_type="application/json")


def problem(status: int, detail: str, *, hint: str | None = None) -> bytes:
    """A problem as JSON."""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": storable(detail),
    }
    return orjson.dumps(found if hint is None else {**found, "hint": storable(hint)})


def problem_answer(status: int, detail: str, *, hint: str | None = None) -> Response:
    """A problem as the answer of a route."""
    return Response(problem(status, detail, hint=hint), status, media_type=PROBLEM)


async def send_problem(send: Send, status: int, detail: str, *, hint: str | None = None, close: bool = False) -> None:
    """Answer with a problem from ASGI middleware; `close` ends the connection."""
    body = problem(status, detail, hint=hint)
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] if close else []
    headers += [(b"www-authenticate", one) for one in CHALLENGES] if status == 401 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def problems(*statuses: int) -> Responses:
    """The problems that a route may answer with, as OpenAPI describes them."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": WHY[status], "content": {PROBLEM: {"schema": schema}}} for status in statuses}


def storable(text: str) -> str:
    """Text without lone surrogates: a request may contain them, but no answer can."""
    return text.encode("utf-8", "replace").decode()
