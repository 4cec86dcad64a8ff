"""Events made from changes and from the program's notices.

An event's id is a digest of its content, not of the time: reporting the same content again gives the same id, and other
content under the same version gives another id.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from poller.documents.diff import dump, dump_sorted
from state.records import Change, FieldChange, Kind, NewEvent, source_uri


def change_event(change: Change, *, source: str, namespace: str, endpoint: str) -> NewEvent:
    """The event that reports a change. Its `raw` is the complete data, of any size."""
    data: dict[str, Any] = {"object": change.object, "version": change.version}
    if change.kind is Kind.UPDATED:
        data["changes"] = [_told(field) for field in change.fields]
    if change.truncated:
        data["truncated"] = True
    return NewEvent(
        id=_digest(["change", source, endpoint, change.object_id, change.version, change.kind.value], data),
        source=source_uri(source),
        type=f"{namespace}.{endpoint}.{change.kind.value}",
        subject=f"{endpoint}/{change.object_id}",
        time=change.observed_at,
        observed_after=change.observed_after,
        raw=dump(data),
    )


def _told(field: FieldChange) -> dict[str, Any]:
    told: dict[str, Any] = {"path": field.path}
    if field.had_before:
        told["before"] = field.before
    if field.has_after:
        told["after"] = field.after
    return told


def _digest(identity: list[str | int], told: Mapping[str, Any]) -> str:
    """128 bits as 32 hexadecimal digits, without a dot, which separates the parts of a signed webhook id."""
    return blake2b(dump_sorted([identity, told]), digest_size=16).hexdigest()
