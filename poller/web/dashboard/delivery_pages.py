"""Pages of deliveries and subscriptions: requests, answers, and the commands to send again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query, Response

from poller.config.models import Config, SubscriptionConfig
from poller.operations.places import parse_place
from poller.operations.preview import rendered
from poller.options.problems import NotThere, nearest
from poller.web.context import Reader
from poller.web.dashboard.html import Shown
from poller.web.parameters import Context
from state.deliveries import AttemptRow, Delivery, DeliveryQuery
from state.errors import PollerError
from state.records import Event

PAGE: Final = 50  # deliveries
STATES: Final = ("pending", "delivered", "dead")
RECENT: Final = 15  # deliveries on the page of a subscription
Text = Annotated[str, Query(max_length=200)]

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLook:
    """One delivery as read from the state."""

    delivery: Delivery
    attempts: list[AttemptRow]
    event: Event | None  # None: it is older than the retention


@router.get("/deliveries")
async def deliveries(
    context: Context,
    page: Shown,
    state: Annotated[list[str], Query(max_length=3)] = [],  # noqa: B006
    subscription: Text = "",
    status: Text = "",
    subject: Text = "",
    after: Text = "",
    before: Text = "",
) -> Response:
    """The deliveries, the latest first."""
    query = DeliveryQuery(
        states=tuple(one for one in state if one in STATES),
        subscription=subscription or None,
        status=status or None,
        subject=subject or None,
        after=place_of(after, "after", page.zone),
        before=place_of(before, "before", page.zone),
    )
    found = await context.look(lambda reader: reader.deliveries.find(query, limit=PAGE + 1))
    texts = {"subscription": subscription, "status": status, "subject": subject, "after": after, "before": before}
    return page.render(
        "deliveries.html.j2",
        deliveries=found[:PAGE],
        older=found[PAGE - 1].id if len(found) > PAGE else None,
        filters={"state": query.states, **texts},
        states=STATES,
        names=[one.name for one in context.program.config.subscriptions],
    )


@router.get("/deliveries/{number}")
async def delivery(context: Context, page: Shown, number: int) -> Response:
    """One delivery: its request, and every attempt."""
    look = await context.look(_look, number)
    settings = _settings(context.program.config, look.delivery.subscription)
    request, unknown = None, "the subscription is no longer configured"
    if look.event is None:
        unknown = "the event is older than the retention"
    elif settings is not None:
        try:
            request = readable(await asyncio.to_thread(rendered, settings, look.event))
        except PollerError as error:
            unknown = str(error)
    return page.render("delivery.html.j2", look=look, request=request, unknown=unknown)


@router.get("/subscriptions/{name}")
async def subscription(context: Context, page: Shown, name: str) -> Response:
    """One subscription: its state, its latest deliveries, and its commands."""
    status = await context.status()
    row = next((one for one in status.subscriptions if one.name == name), None)
    if row is None:
        known = [one.name for one in status.subscriptions]
        raise NotThere(f"no subscription is named {name!r}", hint=nearest(name, known))
    recent = await context.look(_recent, name)
    settings = _settings(context.program.config, name)
    return page.render("subscription.html.j2", row=row, settings=settings, recent=recent, last_seq=status.last_seq)


def readable(request: str) -> str:
    """A request with its JSON indented; other text unchanged."""
    head, blank, body = request.partition("\n\n")
    try:
        return head + blank + orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2).decode()
    except ValueError:
        return request


def place_of(text: str, what: str, zone: tzinfo) -> int | float | None:
    """A delivery's number, or a time; a time without an offset is in the configured zone. Raises BadPlace."""
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return parse_place(text, what=what)
    if text.isdecimal() or when.tzinfo is not None:
        return parse_place(text, what=what)
    return when.replace(tzinfo=zone).timestamp()


def _settings(config: Config, name: str) -> SubscriptionConfig | None:
    return next((one for one in config.subscriptions if one.name == name), None)


def _look(reader: Reader, number: int) -> DeliveryLook:
    found = reader.deliveries.delivery(number)
    if found is None:
        raise NotThere(f"there is no delivery {number}", hint="it may be older than the retention")
    return DeliveryLook(delivery=found, attempts=reader.deliveries.attempts(number), event=reader.log.event(found.seq))


def _recent(reader: Reader, name: str) -> list[Delivery]:
    return reader.deliveries.find(DeliveryQuery(subscription=name), limit=RECENT)
