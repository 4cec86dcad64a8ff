"""Pages of the event log: the log, and one event with the history of its object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from poller.config.models import Config
from poller.documents.diff import Rules, diff
from poller.events.cloudevents import structured
from poller.operations.log import place, place_before
from poller.options.problems import NotThere
from poller.planner.report import Report
from poller.rendering.event_view import EventView
from poller.web.context import Reader
from poller.web.dashboard.html import Shown
from poller.web.parameters import Context
from state.deliveries import Delivery, DeliveryQuery
from state.records import Event, EventQuery, FieldChange

PAGE: Final = 50  # events
DELIVERIES: Final = 50  # deliveries of one event
Text = Annotated[str, Query(max_length=200)]

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLook:
    """One event as read from the state."""

    event: Event
    history: list[Event]  # events of its object, oldest first
    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions of an object and their differences."""

    a: Event
    b: Event
    fields: tuple[FieldChange, ...]


@router.get("/events")
async def events(
    context: Context,
    page: Shown,
    type: Text = "",
    source: Text = "",
    subject: Text = "",
    after: Text = "",
    before: Text = "",
) -> Response:
    """The log, the latest first."""
    query = EventQuery(
        after=await context.look(place, after or None, default=0),
        before=await context.look(place_before, before or None),
        type_glob=type or None,
        source=source or None,
        subject=subject or None,
    )
    found = await context.look(lambda reader: reader.log.find(query, limit=PAGE + 1, newest=True))
    shown = found[-PAGE:][::-1]
    filters = {"type": type, "source": source, "subject": subject, "after": after, "before": before}
    return page.render(
        "events.html.j2",
        events=[EventView(event, page.zone) for event in shown],
        older=shown[-1].seq if len(found) > PAGE else None,
        types=_types(context.plan(), context.program.config),
        sources=list(context.program.config.sources),
        filters=filters,
    )


@router.get("/events/{seq}")
async def event(context: Context, page: Shown, seq: int, a: int | None = None, b: int | None = None) -> Response:
    """One event."""
    look = await context.look(_look, seq)
    view = EventView(look.event, page.zone)
    return page.render(
        "event.html.j2",
        event=look.event,
        view=view,
        endpoint=look.event.subject.partition("/")[0],
        changes=changes_of(look.event),
        history=[EventView(one, page.zone) for one in reversed(look.history)],
        comparison=None if a is None or b is None else compared(look.history, a, b),
        deliveries=look.deliveries,
        raw=structured(look.event, limit=None).decode(),
    )


def _types(plan: Report, config: Config) -> list[str]:
    """Globs on the event types of all endpoints, to choose from."""
    known = [one for one in plan.endpoints if one.source in config.sources]
    return sorted({f"{config.sources[one.source].namespace}.{one.endpoint}.*" for one in known})


def changes_of(event: Event) -> list[FieldChange]:
    """The fields that an event reports as changed."""
    listed = event.data.get("changes")
    return [
        FieldChange(
            path=str(one.get("path", "")),
            before=one.get("before"),
            after=one.get("after"),
            had_before="before" in one,
            has_after="after" in one,
        )
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict)
    ]


def compared(history: Sequence[Event], a: int, b: int) -> Comparison:
    """The versions of an object after two of its events. Raises NotThere."""
    found = {one.seq: one for one in history}
    for seq in (a, b):
        if seq not in found:
            raise NotThere(f"event {seq} is not in the history of this object", hint="choose two of its versions")
    before, after = _object(found[a]), _object(found[b])
    return Comparison(a=found[a], b=found[b], fields=diff(before, after, Rules()).fields)


def _object(event: Event) -> Mapping[str, Any]:
    found = event.data.get("object")
    return found if isinstance(found, dict) else {}


def _look(reader: Reader, seq: int) -> EventLook:
    event = reader.log.event(seq) if abs(seq) < 2**63 else None
    if event is None:
        raise NotThere(f"there is no event {seq} in the log", hint="it may be older than the retention")
    source = event.source.removeprefix("/sources/")
    history = reader.log.history(source, event.subject) if source != event.source else []
    deliveries = reader.deliveries.find(DeliveryQuery(seq=seq), limit=DELIVERIES)
    return EventLook(event=event, history=history, deliveries=deliveries)
