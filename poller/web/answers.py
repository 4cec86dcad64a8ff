"""Answers of the routes: JSON, and problems in place of what cannot be answered."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from poller.operations.log import OtherLog
from poller.operations.places import BadPlace
from poller.options.problems import NotNow, NotThere
from poller.web.context import Busy
from poller.web.problems import MEDIA_TYPE, Problem, problem
from state.errors import PollerError, StateError

Responses = dict[int | str, dict[str, Any]]
WHY = {
    400: "The request cannot be done as asked.",
    401: "A token is needed.",
    403: "The request comes from a page of another site.",
    404: "There is no such thing.",
    409: "It does not fit how things are now.",
    410: "The place is in another log: the state was restored or begun anew.",
    413: "The body is larger than 64 kB.",
    421: "The Host is not one that is answered.",
    422: "A parameter or the body is not valid.",
    503: "The state cannot be read or written, or too much is asked for at once.",
}
ALWAYS = (400, 401, 413, 421, 422, 503)


def as_json(body: Any, status: int = 200) -> Response:
    """A JSON answer; NaN and infinity become null."""
    return Response(orjson.dumps(body), status, media_type="application/json")


def problems(*statuses: int) -> Responses:
    """The problems that a route may answer, as OpenAPI describes them."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": WHY[status], "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


def handle_errors(api: FastAPI) -> None:
    """Answer every error with a problem."""

    def answered(status: int) -> Any:
        async def answer(_: Request, error: PollerError) -> Response:
            return _problem(status, str(error), error.hint)

        return answer

    kinds = {PollerError: 400, BadPlace: 400, NotThere: 404, NotNow: 409, OtherLog: 410, StateError: 503, Busy: 503}
    for kind, status in kinds.items():
        api.add_exception_handler(kind, answered(status))

    @api.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        answer = _problem(error.status_code, str(error.detail), "/openapi.json lists every route")
        answer.headers.update(error.headers or {})
        return answer

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        said = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()]
        return _problem(422, "; ".join(said)[:2000], "/openapi.json describes every parameter")

    @api.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return _problem(500, "an unexpected error", "the daemon's log has its traceback")


def describe_problem(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the schema of problems to an OpenAPI document."""
    schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    return schema


def _problem(status: int, detail: str, hint: str | None) -> Response:
    return Response(problem(status, detail, hint=hint), status, media_type=MEDIA_TYPE)
