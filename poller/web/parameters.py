"""Parameters of the routes with their bounds, as OpenAPI describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import Depends, Header, Path, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, WithJsonSchema

from poller.operations.places import HIGHEST
from poller.options.forms import TextForm

TEXT: Final = 200  # characters of a name, a glob or a place
STATE: Final = "(pending|delivered|dead)"
STATES: Final = TextForm(f"^{STATE}(,{STATE})*$", "this must be pending, delivered or dead, or several with commas")

TIME: Final = {"type": "string", "format": "date-time"}
NUMBER: Final = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,14})$"}
CURSOR: Final = {"type": "string", "pattern": "^[0-9a-f]{8,40}-(0|[1-9][0-9]{0,14})$"}
RATE: Final = TextForm(
    r"^[1-9][0-9]{0,8}/([1-9][0-9]{0,5})?(ms|s|min|h|day)$",
    "a rate is calls per window, such as 5/s, 30/10s, 200/min, 5000/h or 20000/day",
)
WEIGHT: Final = TextForm(
    r"^[^=]{1,200}=([1-9][0-9]{0,5}(\.[0-9]{1,6})?|0\.[0-9]{0,5}[1-9][0-9]{0,5})$",
    "a weight is an endpoint and a number above 0, such as projects=5",
)

# OpenAPI describes positions as text; `parse_place` refuses invalid ones with a message.
LogPlace = Annotated[str, WithJsonSchema({"anyOf": [NUMBER, CURSOR, TIME]})]
Place = Annotated[str, WithJsonSchema({"anyOf": [NUMBER, TIME]})]
After = Annotated[
    LogPlace | None, Query(max_length=TEXT, description="A sequence number, an id of the stream, or a time.")
]
Before = Annotated[Place | None, Query(max_length=TEXT, description="A sequence number, or a time with its offset.")]
TypeGlob = Annotated[
    str | None, Query(alias="type", max_length=TEXT, description="A glob on the event type, such as *.deleted.")
]
SourceName = Annotated[
    str | None, Query(max_length=TEXT, description="The name of a source, or the `source` of its events.")
]
Subject = Annotated[
    str | None, Query(max_length=TEXT, description="A subject such as projects/201001, or a glob such as projects/*.")
]
Newest = Annotated[bool, Query(description="Return the latest matching events instead of the first.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
LastEventId = Annotated[LogPlace | None, Header(max_length=TEXT, description="The id of the last event received.")]

DeliveryId = Annotated[int, Path(ge=1, le=HIGHEST, description="The number of a delivery.")]
DeliveryAfter = Annotated[
    Place | None, Query(max_length=TEXT, description="A delivery's number, or a time with its offset: later ones only.")
]
DeliveryBefore = Annotated[
    Place | None,
    Query(max_length=TEXT, description="A delivery's number (the `next` of the previous answer), or a time."),
]
States = Annotated[
    Annotated[str, STATES] | None,
    Query(description="pending, delivered, dead, or several of them with commas."),
]
DeliveryStatus = Annotated[
    str | None, Query(max_length=TEXT, description="The status of the latest attempt, such as 500, or a glob: 5??.")
]
EventNumber = Annotated[int | None, Query(ge=1, le=HIGHEST, description="The sequence number of an event.")]
SubscriptionName = Annotated[str | None, Query(max_length=TEXT, description="The name of a subscription.")]

TableName = Annotated[
    Literal["events", "changes", "objects", "deliveries", "polls"], Path(description="One of the open tables.")
]
RowPlace = Annotated[str | None, Query(max_length=4096, description="The `next` of the page before.")]
Subscription = Annotated[str, Path(max_length=TEXT, description="The name of a subscription.")]
Budget = Annotated[str, Path(max_length=TEXT, description="The name of a budget.")]
Source = Annotated[str, Path(max_length=TEXT, description="The name of a source.")]
Endpoint = Annotated[str, Path(max_length=TEXT, description="The name of one of its endpoints.")]
ObjectId = Annotated[str, Query(alias="id", max_length=4096, description="The object's id within its endpoint.")]


def _whole(given: Any) -> Any:
    """30.0 as the whole number 30, because JSON has one kind of number."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Sequence = Annotated[StrictInt, Field(ge=0, le=HIGHEST), BeforeValidator(_whole)]


class ReplayFrom(_Body):
    """Where a replay begins: after a sequence number, or at a time (ISO text with its offset)."""

    after: (
        Annotated[StrictInt, Field(ge=0, le=HIGHEST), BeforeValidator(_whole)]
        | Annotated[Place, Field(max_length=TEXT)]
    )


Number = Annotated[StrictInt, Field(ge=1, le=HIGHEST), BeforeValidator(_whole)]
OneState = Literal["pending", "delivered", "dead"]


class RedeliverNumbers(_Body):
    """Deliveries by number."""

    ids: tuple[Number, ...] = Field(min_length=1, max_length=1000)


class RedeliverOf(_Body):
    """All deliveries of one subscription in a state."""

    subscription: Annotated[str, Field(min_length=1, max_length=TEXT)]
    state: OneState = "dead"


class RedeliverAll(_Body):
    """All deliveries of every subscription in a state."""

    all: Literal[True]
    state: OneState = "dead"


RedeliverWhich = RedeliverNumbers | RedeliverOf | RedeliverAll


class NewName(_Body):
    """The name that the configuration has in place of the old one."""

    new: Annotated[str, Field(min_length=1, max_length=TEXT)]


class Accept(_Body):
    """Record the current objects without events."""

    accept: Literal[True]


class Emit(_Body):
    """Report the differences as events."""

    emit: Literal[True]


class AsItWas(_Body):
    """Count the endpoint again, as before the hold."""


ReleaseHow = Accept | Emit | AsItWas


async def _context_of(request: Request) -> Any:
    return request.app.state.context


if TYPE_CHECKING:
    from poller.web.context import WebContext

    Context = WebContext
else:  # a route's first parameter
    Context = Annotated[Any, Depends(_context_of)]
