"""Errors of the routes, each answered with a problem."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from poller.operations.log import OtherLog
from poller.operations.places import BadPlace
from poller.options.problems import NotNow, NotThere
from poller.web.answers import problem_answer
from poller.web.context import Busy
from state.errors import PollerError, StateError

LONGEST: Final = 2000  # characters of what is said about invalid parameters
STATUSES: Final[dict[type[PollerError], int]] = {
    PollerError: 400,
    BadPlace: 400,
    NotThere: 404,
    NotNow: 409,
    OtherLog: 410,
    StateError: 503,
    Busy: 503,
}


def handle_errors(api: FastAPI) -> None:
    """Answer every error with a problem."""
    for kind, status in STATUSES.items():
        api.add_exception_handler(kind, _answered(status))
    api.add_exception_handler(HTTPException, _refused)  # type: ignore[arg-type]
    api.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    api.add_exception_handler(Exception, _failed)


def _answered(status: int) -> Any:
    async def answer(_: Request, error: PollerError) -> Response:
        return problem_answer(status, str(error), hint=error.hint)

    return answer


async def _refused(_: Request, error: HTTPException) -> Response:
    answer = problem_answer(error.status_code, str(error.detail), hint="/openapi.json lists every route")
    answer.headers.update(error.headers or {})
    return answer


async def _invalid(_: Request, error: RequestValidationError) -> Response:
    found = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()]
    return problem_answer(422, "; ".join(found)[:LONGEST], hint="/openapi.json describes every parameter")


async def _failed(_: Request, __: Exception) -> Response:
    return problem_answer(500, "an unexpected error", hint="the daemon's log has its traceback")
