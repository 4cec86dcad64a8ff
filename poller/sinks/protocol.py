"""The contract of sink plugins: their arguments, and what they may return or raise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Protocol, Self

from pydantic import BaseModel

from poller.redaction import redacted
from poller.sinks.text import RECEIPT_BYTES, storable
from state.records import Event

_STATUS_BYTES = 256


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt of a delivery that is being made."""

    number: int  # from 1
    delivery_id: str
    last_reference: str | None = None  # reference of this object's latest receipt (a mail's id, a Slack ts)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receiver's answer. `status` is short ("200", "250 2.0.0"); `text` is the start of the answer, <= 4 KiB.

    All three texts come from the receiver. They are stored as valid Unicode of limited size, without secrets.
    """

    status: str
    text: str = ""
    reference: str | None = None  # how to refer to this delivery later (a mail's id, a Slack ts)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", _kept(self.status, _STATUS_BYTES))
        if self.text != "":
            object.__setattr__(self, "text", _kept(self.text, RECEIPT_BYTES))
        if self.reference is not None:
            object.__setattr__(self, "reference", _kept(self.reference, RECEIPT_BYTES))


def _kept(words: object, limit: int) -> str:
    """A receiver's text as it is stored: redacted first, so that the size limit cannot cut a secret in two."""
    return storable(redacted(str(words)[: 2 * RECEIPT_BYTES]), limit)


class DeliveryError(Exception):
    """A delivery that failed in a way that the sink can distinguish. Root of the five errors below."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(f"{receipt.status} {receipt.text[:200]}".strip())
        self.receipt = receipt


class RetryLater(DeliveryError):
    """Not now. `after` is the shortest wait in seconds that the receiver asked for; None if it named none."""

    def __init__(self, after: float | None, receipt: Receipt) -> None:
        super().__init__(receipt)
        self.after = after


class Rejected(DeliveryError):
    """Never in this form: a dead letter at once. Of several events, each half is tried, until only one is left."""


class TooLarge(Rejected):
    """More than the receiver accepts at once: a digest or batch is sent in halves, a single event becomes a dead
    letter.
    """


class Refused(DeliveryError):
    """The receiver refuses what it was sent, but may be fixed: 3 attempts, then a dead letter."""


class Gone(DeliveryError):
    """The receiver wants no more events: the subscription is disabled, and its events are kept."""


class Sink(Protocol):
    """Delivers events to a receiver. Opened once: `async with Sink(name, options) as sink`.

    `deliver` may be called again with the same events (same ids), and concurrently for different objects. Returning a
    Receipt means that the receiver has them. It may raise RetryLater, Refused, Rejected, TooLarge or Gone; any other
    exception is a failed attempt that follows the retry schedule. An attempt is given up after 60 s; a sink that needs
    longer sets `attempt_limit` to a number of seconds. A sink whose receiver accepts only so much at once sets
    `max_bytes`: a digest is split so that `len(event.raw)` of its events adds up to no more.
    """

    Options: ClassVar[type[BaseModel]]

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Deliver one event, or a digest of several."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
