"""Sink `nats`: publishes each event to a NATS JetStream stream, under a subject made from the event.

`Nats-Msg-Id` is the event's id: within the stream's duplicate window (2 minutes by default) JetStream stores a
message with the same id once, so repeating an attempt whose answer was lost causes no duplicate.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client
from nats.errors import Error, MaxPayloadError
from nats.js.errors import APIError, NoStreamResponseError
from pydantic import BaseModel, ConfigDict, Field

from poller import Attempt, Event, Receipt, Rejected, RetryLater, hookimpl
from poller.events.cloudevents import CONTENT_TYPE, structured
from poller.options.quantities import Duration
from poller.options.secrets import Secret


class NatsOptions(BaseModel):
    """Keys of `[[subscriptions]]` with `plugin = "nats"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    servers: tuple[str, ...] = ("nats://localhost:4222",)
    token: Secret | None = None
    subject: str = "poller.{source}.{type}"  # also {subject}: "projects.201001"
    stream: str | None = None  # refuse to publish if the subject belongs to another stream
    timeout: Duration = Field(default=5.0, gt=0)


class NatsSink:
    """Sink with one connection to a NATS cluster, which reconnects by itself."""

    Options = NatsOptions

    def __init__(self, name: str, options: NatsOptions) -> None:
        self.name = name
        self._options = options
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:  # noqa: ARG002 - the contract's
        """Publish the events in order, and wait until JetStream has acknowledged each."""
        try:
            jetstream = (await self._connected()).jetstream(timeout=self._options.timeout)
            for event in events:
                stored = await jetstream.publish(
                    subject_of(self._options.subject, event),
                    structured(event),
                    stream=self._options.stream,
                    headers={"Nats-Msg-Id": event.id, "Content-Type": CONTENT_TYPE},
                )
        except MaxPayloadError as exc:
            raise Rejected(Receipt(status="too large", text=str(exc))) from exc
        except NoStreamResponseError as exc:
            hint = "no stream takes this subject: nats stream add --subjects 'poller.>'"
            raise RetryLater(None, Receipt(status="no stream", text=hint)) from exc
        except APIError as exc:
            raise RetryLater(None, Receipt(status=str(exc.code), text=str(exc.description))) from exc
        except (Error, OSError, TimeoutError) as exc:
            raise RetryLater(None, Receipt(status="unreachable", text=str(exc) or type(exc).__name__)) from exc
        known = ", known already" if stored.duplicate else ""
        return Receipt(status="stored", text=f"{stored.stream} no. {stored.seq}{known}")

    async def _connected(self) -> Client:
        """The connection, opened at the first event, so that Poller starts even if the server is down."""
        if self._client is None:
            token = None if self._options.token is None else self._options.token.reveal()
            client = Client()
            async with asyncio.timeout(self._options.timeout):
                await client.connect(
                    list(self._options.servers), name="poller", token=token, max_reconnect_attempts=-1, error_cb=_quiet
                )
            self._client = client
        return self._client


async def _quiet(error: Exception) -> None:
    """Ignore an error callback of the client: a failed publish raises the same error."""


def subject_of(template: str, event: Event) -> str:
    """The NATS subject of an event. Blanks and wildcards in its names become `_`, so they cannot change the target."""
    names = {
        "source": event.source.removeprefix("/sources/").strip("/"),
        "type": event.type,
        "subject": event.subject.replace(".", "_").replace("/", "."),
    }
    safe = {name: re.sub(r"[\s*>\x00-\x1f\x7f]|(?<![^.])(?=\.|$)", "_", text) for name, text in names.items()}
    return template.format_map(safe)


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("nats", NatsSink)
