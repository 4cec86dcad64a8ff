"""Notices: what the program says of itself on its own bus, before the log has given them a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import msgspec

from state.records import NewEvent

SOURCE: Final = "/poller"  # the source of events in which the program speaks of itself

_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What an operator must know; the store counts its version, per subject, and makes the event."""

    kind: str  # "source.failing": the event's type without "poller."
    subject: str  # "sources/acme", "endpoints/acme/projects", "subscriptions/crm"
    summary: str  # one sentence
    detail: Mapping[str, Any]
    time: float


def notice_event(notice: Notice, version: int) -> NewEvent:
    """The event of a notice. Its id is a digest of what it says, so the same notice has the same id."""
    identity = ["notice", notice.kind, notice.subject, version]
    return NewEvent(
        id=blake2b(_encode([identity, notice.detail]), digest_size=16).hexdigest(),
        source=SOURCE,
        type=f"poller.{notice.kind}",
        subject=notice.subject,
        time=notice.time,
        observed_after=None,
        raw=_encode({"summary": notice.summary, "version": version, "detail": notice.detail}),
    )


def is_operational(event: NewEvent) -> bool:
    """Whether this is an operational event of Poller itself."""
    return event.source == SOURCE
