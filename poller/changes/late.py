"""Changes that queries of recent changes cannot show: only complete sweeps find them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from poller.documents.diff import parse
from poller.http_dates import epoch, instant
from poller.rendering.counting import counted
from poller.sources.paths import reader
from poller.sources.protocol import Endpoint
from state.polls import Presence, Snapshot

LARGEST: Final = 1e30  # a number of which no reading is a time

_reader = lru_cache(maxsize=1024)(reader)


def late_changes(endpoint: Endpoint, changed: Iterable[Snapshot], since_at: float | None) -> str | None:
    """A note on objects that a sweep found changed, and whose modification time no query asks for any more.

    `since_at`: when the latest such query was made, by the server's clock. None: there is no such object.
    """
    if endpoint.since_field is None or since_at is None:
        return None
    until = since_at - endpoint.overlap
    found = [one.object_id for one in changed if one.presence is Presence.PRESENT and _modified(endpoint, one) < until]
    if not found:
        return None
    return (
        f"{counted(len(found), 'change')} found by a complete sweep only ({', '.join(found[:3])}):"
        f" `{endpoint.since_field}` is older than what queries of recent changes ask for. Either the edit did not set"
        " it, or the server's times are not UTC, or `overlap` is too short"
    )


def _modified(endpoint: Endpoint, snapshot: Snapshot) -> float:
    """The object's modification time in Unix seconds; infinite if it has none that can be read."""
    value: Any = _reader(endpoint.since_field or "")(parse(snapshot.body))
    if isinstance(value, str):
        at = instant(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value < LARGEST:
        at = epoch(float(value))
    else:
        at = None
    return float("inf") if at is None else at
