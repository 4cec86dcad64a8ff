"""Routes of deliveries: lists, attempts, and sending again."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

import poller.web.parameters as p
from poller.operations.documents import books_document, delivery_document, delivery_with_attempts
from poller.operations.places import parse_place
from poller.options.problems import NotThere
from poller.web.answers import Responses, as_json, problems
from poller.web.context import Reader
from poller.web.parameters import Context
from poller.web.schemas import Books, DeliveryDocument, DeliveryPage, Done
from state.deliveries import DeliveryQuery

QUEUED: Responses = {202: {"model": Done}, **problems(403, 404)}

router = APIRouter()


@router.get("/api/v1/deliveries", responses={200: {"model": DeliveryPage}, **problems(400)})
async def deliveries(
    context: Context,
    state: p.States = None,
    subscription: p.SubscriptionName = None,
    subject: p.Subject = None,
    status: p.DeliveryStatus = None,
    seq: p.EventNumber = None,
    after: p.DeliveryAfter = None,
    before: p.DeliveryBefore = None,
    limit: p.Limit = 100,
) -> Response:
    """Deliveries, the latest first; read on with `before` = the `next` of this answer, which is null at the end."""
    query = DeliveryQuery(
        states=tuple(state.split(",")) if state else (),
        subscription=subscription,
        subject=subject,
        status=status,
        seq=seq,
        after=parse_place(after, what="after") if after is not None else None,
        before=parse_place(before, what="before") if before is not None else None,
    )
    found = await context.look(lambda reader: reader.deliveries.find(query, limit=limit))
    next_ = found[-1].id if len(found) == limit else None
    return as_json({"deliveries": [delivery_document(one) for one in found], "next": next_})


@router.get("/api/v1/deliveries/{number}", responses={200: {"model": DeliveryDocument}, **problems(404)})
async def delivery(context: Context, number: p.DeliveryId) -> Response:
    """One delivery with all of its attempts."""
    return as_json(await context.look(_one_delivery, number))


@router.get("/api/v1/ledger", responses={200: {"model": list[Books]}})
async def ledger(context: Context) -> Response:
    """The books of every subscription: each event is delivered, pending, dead, dropped or not matching."""
    return as_json([books_document(one) for one in await context.look(lambda reader: reader.deliveries.ledger())])


@router.post("/api/v1/redeliver", status_code=202, responses=QUEUED)
async def redeliver_many(context: Context, which: p.RedeliverWhich) -> Response:
    """Deliver again by number, or all in a state: dead letters themselves, delivered ones as copies."""
    return as_json(await context.execute("redeliver", **which.model_dump()), 202)


@router.post("/api/v1/deliveries/{number}/redeliver", status_code=202, responses=QUEUED)
async def redeliver(context: Context, number: p.DeliveryId) -> Response:
    """Deliver again: a dead letter itself, a delivered one as a copy."""
    return as_json(await context.execute("redeliver", ids=[number]), 202)


def _one_delivery(reader: Reader, number: int) -> dict[str, Any]:
    found = reader.deliveries.delivery(number)
    if found is None:
        raise NotThere(f"there is no delivery {number}", hint="poller deliveries, or /api/v1/deliveries, lists them")
    return delivery_with_attempts(found, reader.deliveries.attempts(number))
