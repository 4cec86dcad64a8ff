"""Sink `apprise`: any of the services of the apprise library, one notification per event or digest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Annotated, Any, Final, Self

import apprise
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from poller import Attempt, Event, Receipt, Rejected, RetryLater, hookimpl
from poller.options.secrets import Secret, SecretError
from poller.rendering.templates import RenderError, Templated, Told, render, render_default

_REMEMBERED: Final = 1000  # deliveries of which some services are still to be told
_TYPES: Final = {
    "deleted": apprise.NotifyType.WARNING,
    "failing": apprise.NotifyType.FAILURE,
    "disabled": apprise.NotifyType.FAILURE,
    "held": apprise.NotifyType.WARNING,
    "recovered": apprise.NotifyType.SUCCESS,
}


def _known(secret: Secret) -> Secret:
    try:
        url = secret.reveal()
    except SecretError:  # let pass by the secret's own check: this command only looks
        return secret
    if apprise.Apprise.instantiate(url, suppress_exceptions=True) is None:
        # The URL is left out: it holds the service's token.
        raise PydanticCustomError("apprise", "not a URL of a service that apprise knows, or a part of it is missing")
    return secret


def _listed(given: object) -> object:
    return given if isinstance(given, list | tuple) else (given,)


ServiceUrl = Annotated[Secret, AfterValidator(_known)]


class AppriseOptions(Templated):
    """`[[subscriptions]]` with `plugin = "apprise"`."""

    urls: Annotated[tuple[ServiceUrl, ...], BeforeValidator(_listed), Field(min_length=1)]


class AppriseSink:
    """A list of services that are all told. One that failed is told again without repeating it to the others."""

    Options = AppriseOptions

    def __init__(self, name: str, options: AppriseOptions) -> None:
        self.name = name
        self._options = options
        self._told: dict[str, set[int]] = {}  # delivery id -> places in `urls`

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Notify every service that has not been told of this delivery yet."""
        try:
            body = self.render(events)
        except RenderError as exc:
            raise Rejected(Receipt(status="template", text=str(exc))) from exc
        told = self._told.pop(attempt.delivery_id, set())
        failed = []
        for place, secret in enumerate(self._options.urls):
            if place not in told:
                service = apprise.Apprise()
                service.add(secret.reveal())
                if await _notified(service, _title(events), body, _kind(events)):
                    told.add(place)
                else:
                    failed.append(f"{service[0].service_name} (number {place + 1})")
        if failed:
            self._remember(attempt.delivery_id, told)
            raise RetryLater(None, Receipt(status="failed", text=f"not accepted by {', '.join(failed)}"))
        return Receipt(status="sent", text=f"{len(told)} services")

    def render(self, events: Sequence[Event]) -> str:
        """The notification's text."""
        if self._options.template is not None:
            return render(self._options.template, events)
        return render_default("text.j2", events)

    def _remember(self, delivery_id: str, told: set[int]) -> None:
        self._told[delivery_id] = told
        while len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]


async def _notified(service: apprise.Apprise, title: str, body: str, kind: apprise.NotifyType) -> bool:
    return bool(
        await service.async_notify(body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
    )


def _title(events: Sequence[Event]) -> str:
    return Told(events[0]).headline if len(events) == 1 else f"{len(events)} events"


def _kind(events: Sequence[Event]) -> apprise.NotifyType:
    if len(events) > 1:
        return apprise.NotifyType.INFO
    return _TYPES.get(Told(events[0]).kind, apprise.NotifyType.INFO)


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("apprise", AppriseSink)
