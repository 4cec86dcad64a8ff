"""Parameters of the routes, each with its bounds: what a request may say, as OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from poller.operations.places import HIGHEST

TEXT: Final = 200  # characters of a name, a glob or a place
STATE: Final = "(pending|delivered|dead)"

After = Annotated[
    str | None,
    Query(max_length=TEXT, description="A sequence number, an id of the stream, or a time with its offset."),
]
Before = Annotated[str | None, Query(max_length=TEXT, description="A sequence number, or a time with its offset.")]
TypeGlob = Annotated[
    str | None, Query(alias="type", max_length=TEXT, description="A glob on the event type, such as *.deleted.")
]
SourceName = Annotated[str | None, Query(max_length=TEXT, description="The name of a source.")]
Subject = Annotated[
    str | None, Query(max_length=TEXT, description="A subject such as projects/201001, or a glob such as projects/*.")
]
Newest = Annotated[bool, Query(description="The latest events that match, instead of the first ones.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
LastEventId = Annotated[str | None, Header(max_length=TEXT, description="The id of the last event received.")]

DeliveryId = Annotated[int, Path(ge=1, le=HIGHEST, description="The number of a delivery.")]
DeliveryAfter = Annotated[
    str | None, Query(max_length=TEXT, description="A delivery's number, or a time with its offset: later ones only.")
]
DeliveryBefore = Annotated[
    str | None,
    Query(max_length=TEXT, description="A delivery's number (the `next` of the previous answer), or a time."),
]
States = Annotated[
    str | None,
    Query(pattern=f"^{STATE}(,{STATE})*$", description="pending, delivered, dead, or several of them with commas."),
]
SubscriptionName = Annotated[str | None, Query(max_length=TEXT, description="The name of a subscription.")]

Subscription = Annotated[str, Path(max_length=TEXT, description="The name of a subscription.")]
Source = Annotated[str, Path(max_length=TEXT, description="The name of a source.")]
Endpoint = Annotated[str, Path(max_length=TEXT, description="The name of one of its endpoints.")]
ObjectId = Annotated[str, Query(alias="id", max_length=4096, description="The object's id within its endpoint.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReplayFrom(_Body):
    """Where a replay begins: after a sequence number, or at a time (ISO text with its offset)."""

    after: Annotated[StrictInt, Field(ge=0, le=HIGHEST)] | Annotated[str, Field(max_length=TEXT)]


class RedeliverWhich(_Body):
    """Deliveries by number, or all of a state: of one subscription, or with `all` of every one."""

    ids: tuple[Annotated[StrictInt, Field(ge=1, le=HIGHEST)], ...] = Field(default=(), max_length=1000)
    subscription: Annotated[str, Field(max_length=TEXT)] | None = None
    state: Annotated[str, Field(pattern=f"^{STATE}$")] = "dead"
    all: StrictBool = False


class ReleaseHow(_Body):
    """How a hold ends: `accept` records what is there silently, `emit` reports it; neither: as it was before."""

    accept: StrictBool = False
    emit: StrictBool = False
