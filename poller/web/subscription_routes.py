"""Routes of subscriptions and budgets: the commands that pause, resume, test and replay."""

from __future__ import annotations

from fastapi import APIRouter, Response

import poller.web.parameters as p
from poller.web.answers import Responses, as_json, problems
from poller.web.parameters import Context
from poller.web.schemas import Done

DONE: Responses = {200: {"model": Done}, **problems(403, 404, 409)}
QUEUED: Responses = {202: {"model": Done}, **problems(403, 404)}

router = APIRouter()


@router.post("/api/v1/subscriptions/{name}/replay", status_code=202, responses=QUEUED)
async def replay(context: Context, name: p.Subscription, given: p.ReplayFrom) -> Response:
    """Deliver again the events that the subscription has read after a position in the log."""
    return as_json(await context.execute("replay", subscription=name, after=given.after), 202)


@router.post("/api/v1/subscriptions/{name}/ping", status_code=202, responses=QUEUED)
async def ping(context: Context, name: p.Subscription) -> Response:
    """Send a test event; the delivery named in the answer shows the result."""
    return as_json(await context.execute("ping", subscription=name), 202)


@router.post("/api/v1/subscriptions/{name}/pause", responses=DONE)
async def pause(context: Context, name: p.Subscription) -> Response:
    """Stop delivering to a subscription; its events are kept."""
    return as_json(await context.execute("pause", subscription=name))


@router.post("/api/v1/subscriptions/{name}/resume", responses=DONE)
async def resume(context: Context, name: p.Subscription) -> Response:
    """Deliver to a paused or disabled subscription again."""
    return as_json(await context.execute("resume", subscription=name))


@router.post("/api/v1/subscriptions/{name}/rename", responses=DONE)
async def rename(context: Context, name: p.Subscription, given: p.NewName) -> Response:
    """Rename a subscription with its stored data to its new name in `poller.toml`, and apply that file."""
    return as_json(await context.execute("rename", kind="subscription", old=name, new=given.new))


@router.post("/api/v1/subscriptions/{name}/forget", responses=DONE)
async def forget(context: Context, name: p.Subscription) -> Response:
    """Forget a subscription that the configuration no longer names, with its deliveries."""
    return as_json(await context.execute("forget", kind="subscription", name=name))


@router.post("/api/v1/budgets/{name}/resume", responses=DONE)
async def resume_budget(context: Context, name: p.Budget) -> Response:
    """End the pause that a server asked for, and call at once; the budget's own limits still apply."""
    return as_json(await context.execute("resume", budget=name))
