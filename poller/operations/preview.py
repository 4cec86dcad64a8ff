"""What a subscription would be sent for an event, without sending it."""

from __future__ import annotations

from poller.config.models import SubscriptionConfig
from poller.hooks.loading import attempted
from poller.redaction import redacted
from poller.rendering.templates import RenderError
from state.errors import PollerError
from state.records import Event


def rendered(settings: SubscriptionConfig, event: Event) -> str:
    """The request or message that would be sent, without secrets. Raises PollerError."""
    where = f"subscription {settings.name} (plugin {settings.plugin})"
    sink, error = attempted(settings.build)
    if sink is None:
        raise PollerError(f"{where} cannot be set up: {error}", hint="poller check")
    render = getattr(sink, "render", None)
    if render is None:
        raise PollerError(f"{where}: the plugin offers no preview", hint=f"poller ping {settings.name} sends a test")
    try:
        text, error = attempted(lambda: str(render([event])))
    except RenderError as refused:
        raise PollerError(f"{where}: {refused}", hint="fix its template in the configuration") from refused
    if text is None:
        raise PollerError(f"{where}: the preview failed: {error}", hint="poller plugins says where it comes from")
    return redacted(text)  # the path of a callback may be its secret
