"""Operational events: notices as the log stores them, once the store has counted their version."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

from state.notices import Notice
from state.records import NewEvent

SOURCE: Final = "/poller"  # the source of events about Poller itself

_encode = msgspec.json.Encoder(order="sorted").encode


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
    """Whether this is an event about Poller itself."""
    return event.source == SOURCE
