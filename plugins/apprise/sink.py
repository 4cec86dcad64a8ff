"""A sink that notifies a list of services, through a separate process (`plugins.apprise.child`)."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from plugins.apprise.notifier import PATIENCE, Notifier, Outcome
from plugins.apprise.options import AppriseOptions
from poller import Attempt, Event, Receipt, RetryLater
from poller.rendering.counting import counted
from poller.rendering.event_view import EventView
from poller.rendering.rendered import rendered
from poller.rendering.templates import RenderError, render, render_default
from poller.sinks.unrendered import unrendered

DIGEST_BYTES: Final = 256 * 1024  # bytes of events' data in one notification
_REMEMBERED: Final = 1000  # deliveries for which some services are still to be notified
_TYPES: Final = {
    "deleted": "warning",
    "failing": "failure",
    "disabled": "failure",
    "held": "warning",
    "recovered": "success",
}


class AppriseSink:
    """Notifies a list of services. A service that failed is notified again without repeating it to the others."""

    Options = AppriseOptions
    attempt_limit = 600.0  # seconds: notifications are sent one after the other
    max_bytes = DIGEST_BYTES

    def __init__(self, name: str, options: AppriseOptions, *, patience: float = PATIENCE) -> None:
        self.name = name
        self._notifier = Notifier(allow_private=options.allow_private, patience=patience)
        self._options = options
        self._done: dict[str, set[int]] = {}  # delivery id -> indexes in `urls`

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._notifier.close()

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Notify every service that has not accepted this delivery yet."""
        try:
            body = await rendered(lambda: self.render(events), events, self._options.template)
        except RenderError as exc:
            raise unrendered(events, exc) from exc
        done = self._done.pop(attempt.delivery_id, set())
        failed = []
        for place, secret in enumerate(self._options.urls):
            if place not in done:
                outcome = await self._notifier.notify(
                    url=secret.reveal(), title=_title(events), body=body, kind=_kind(events)
                )
                if outcome.ok:
                    done.add(place)
                else:
                    failed.append(_named(place, outcome))
        if failed:
            self._remember(attempt.delivery_id, done)
            raise RetryLater(None, Receipt(status="failed", text=f"not accepted by the services {', '.join(failed)}"))
        return Receipt(status="sent", text=counted(len(done), "service"))

    def render(self, events: Sequence[Event]) -> str:
        """The notification's text."""
        if self._options.template is not None:
            return render(self._options.template, events, zone=self._options.zone)
        return render_default("text.j2", events, zone=self._options.zone)

    def _remember(self, delivery_id: str, done: set[int]) -> None:
        self._done[delivery_id] = done
        while len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]


def _named(place: int, outcome: Outcome) -> str:
    """The service by its index in `urls`, because its URL holds its token, and the reason if it is known."""
    if outcome.refused is not None:
        return f"number {place + 1} ({outcome.refused}; allow it with `allow_private = true`)"
    return f"number {place + 1}" + (f" ({outcome.error})" if outcome.error else "")


def _title(events: Sequence[Event]) -> str:
    return EventView(events[0]).headline if len(events) == 1 else f"{len(events)} events"


def _kind(events: Sequence[Event]) -> str:
    return "info" if len(events) > 1 else _TYPES.get(EventView(events[0]).kind, "info")
