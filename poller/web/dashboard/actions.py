"""Forms and assets of the pages. A form executes a command and then shows its page again.

`poller.web.access` checks the token and the origin before a form gets here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from poller.options.problems import NotThere
from poller.web.dashboard.html import ASSETS, HEADERS, Outcome, Outcomes, asset
from poller.web.parameters import Context
from state.errors import PollerError

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {  # the fields that the form of each command may have
    "pause": ("subscription",),
    "resume": ("subscription", "budget"),
    "ping": ("subscription",),
    "replay": ("subscription", "after"),
    "redeliver": ("id", "subscription", "state"),
    "hold": ("endpoint",),
    "release": ("endpoint", "how"),
    "rebaseline": ("endpoint",),
    "inspect": ("endpoint",),
    "probe": (),
}
FOR_A_YEAR: Final = {"Cache-Control": "private, max-age=31536000, immutable"}

router = APIRouter(include_in_schema=False)


@router.post("/do/{command}")
async def do(context: Context, request: Request, command: str) -> Response:
    """Execute a command, and go back to the page of its form."""
    form = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20))
    if command not in FIELDS:
        raise NotThere(f"there is no command {command!r}", hint="go back, and load the page again")
    try:
        answer = await context.program.execute(command, arguments(command, form))
        outcome = Outcome(text=answer["summary"], hint=_more(answer))
    except PollerError as error:
        outcome = Outcome(text=str(error), hint=error.hint, is_done=False)
    outcomes: Outcomes = request.app.state.outcomes
    where = form.get("back", "/")
    back = where if where.startswith("/") and not where.startswith(("//", "/\\")) else "/"
    joint = "&" if "?" in back else "?"
    return RedirectResponse(f"{back}{joint}done={outcomes.keep(outcome)}", 303, headers=HEADERS)


@router.get("/assets/{name}")
async def assets(name: str) -> Response:
    """The style sheet, the script and the icon."""
    if name not in ASSETS:
        raise NotThere(f"there is no asset {name!r}")
    return Response(asset(name), media_type=ASSETS[name], headers=FOR_A_YEAR)


def arguments(command: str, form: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a command, from the fields of its form."""
    given: dict[str, Any] = {name: form[name] for name in FIELDS[command] if form.get(name)}
    if "id" in given:
        given["ids"] = [_number(given.pop("id"))]
    if "after" in given and given["after"].isdecimal():
        given["after"] = _number(given["after"])
    if (how := given.pop("how", None)) in ("accept", "emit"):
        given[how] = True
    return given


def _number(text: str) -> int | str:
    """A number; other text is left as it is, and the command refuses it."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def _more(answer: Mapping[str, Any]) -> str | None:
    """Further details of a command's result."""
    doubts = answer.get("doubts")
    return "; ".join(map(str, doubts)) if isinstance(doubts, list) and doubts else None
