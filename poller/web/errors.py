"""Errors of the routes: each is answered with a problem, or with a page if a browser asked for one."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from poller.operations.log import Forgotten, OtherLog
from poller.operations.places import BadPlace
from poller.options.problems import NotNow, NotThere
from poller.options.validation import words_of
from poller.web.answers import problem_answer, storable
from poller.web.context import Busy
from poller.web.dashboard.html import Page
from state.errors import PollerError, StateError

LONGEST: Final = 2000  # characters of the text about invalid parameters
STATUSES: Final[dict[type[PollerError], int]] = {
    PollerError: 400,
    BadPlace: 400,
    NotThere: 404,
    NotNow: 409,
    OtherLog: 410,
    Forgotten: 410,
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
    async def answer(request: Request, error: PollerError) -> Response:
        return _answer(request, status, str(error), error.hint)

    return answer


def _answer(request: Request, status: int, detail: str, hint: str | None) -> Response:
    """A problem as JSON, or as a page for a browser that asked for one."""
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return problem_answer(status, detail, hint=hint)
    title = HTTPStatus(status).phrase
    return Page(request).render(
        "problem.html.j2", code=status, status=status, title=title, detail=storable(detail), hint=hint
    )


async def _refused(request: Request, error: HTTPException) -> Response:
    answer = _answer(request, error.status_code, str(error.detail), "/openapi.json lists every route")
    answer.headers.update(error.headers or {})
    return answer


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    found = [_said(one) for one in error.errors()]
    return _answer(request, 422, "; ".join(found)[:LONGEST], "/openapi.json describes every parameter")


def _said(one: Any) -> str:
    if one["type"] == "json_invalid":  # its place is a number of characters
        return f"the body is not valid JSON: {one['ctx']['error']} (character {one['loc'][-1]})"
    return f"{_place(one['loc'])}: {words_of(one)[0]}"


def _place(loc: tuple[str | int, ...]) -> str:
    """The name of a parameter or a member of the body; "body" for the whole."""
    return ".".join(str(part) for part in loc[1:] or loc)


async def _failed(_: Request, __: Exception) -> Response:
    return problem_answer(500, "an unexpected error", hint="the daemon's log has its traceback")
