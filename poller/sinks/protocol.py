"""What a sink plugin is: it delivers. What it returns or raises goes into the log of attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Protocol, Self

from pydantic import BaseModel

from state.records import Event


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which try of which delivery this is."""

    number: int  # from 1
    delivery_id: str
    last_reference: str | None = None  # of this object's latest receipt (a mail's id, a Slack ts)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the receiver answered. `status` is short ("200", "250 2.0.0"); `text` the start of the answer, <= 4 KiB."""

    status: str
    text: str = ""
    reference: str | None = None  # how to refer to this delivery later (a mail's id, a Slack ts)


class DeliveryError(Exception):
    """A delivery that did not happen, in a way that the sink can tell apart. Root of the four below."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(f"{receipt.status} {receipt.text[:200]}".strip())
        self.receipt = receipt


class RetryLater(DeliveryError):
    """Not now. `after` is the least wait in seconds that the receiver asked for, None if it did not say."""

    def __init__(self, after: float | None, receipt: Receipt) -> None:
        super().__init__(receipt)
        self.after = after


class Rejected(DeliveryError):
    """Never, as it is: a dead letter at once."""


class Refused(DeliveryError):
    """The receiver says no to what it was sent, but may yet be put right: got 3 attempts, then dead."""


class Gone(DeliveryError):
    """The receiver wants no more: the subscription is disabled, its events are kept."""


class Sink(Protocol):
    """Where events leave. Opened once: `async with Sink(name, options) as sink`.

    `deliver` may be called again with the same events (same ids), and concurrently for different objects.
    Returning means that the receiver has them. It may raise RetryLater, Refused, Rejected or Gone; anything else
    raised is a failed attempt that follows the retry schedule. An attempt is given up after 60 s; a sink that has to
    wait longer has a number of seconds as `attempt_limit`.
    """

    Options: ClassVar[type[BaseModel]]

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Deliver one event, or a digest of several."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
