"""Basic records. Every time is Unix seconds (float, UTC); only the edges use text."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec


class Kind(enum.StrEnum):
    """What happened to an object: the last word of an event's type."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """One field before and after. `path` is a JSON Pointer into the new object; a side on which the field is absent is
    left out.
    """

    path: str
    before: Any = None
    after: Any = None
    had_before: bool = True  # False: the field was absent, which is not the same as null
    has_after: bool = True


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The difference between an object's snapshot and what a poll saw."""

    kind: Kind
    object_id: str
    version: int  # counts an object's events from 1; the baseline is 0
    object: Mapping[str, Any]  # current object; for a deletion its last known state
    fields: tuple[FieldChange, ...] = ()
    observed_after: float | None = None  # a time at which the change had certainly not happened; None: not known
    observed_at: float = 0.0  # when the answer that showed it had arrived
    truncated: bool = False  # more fields changed than are listed


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event that is not in the log yet."""

    id: str
    source: str  # CloudEvents source: "/sources/acme", or "/poller" for events about Poller itself
    type: str
    subject: str
    time: float
    observed_after: float | None
    raw: bytes  # the whole `data` member as JSON

    @cached_property
    def data(self) -> dict[str, Any]:
        """The event's data, parsed on first use. Integers keep all their digits."""
        return msgspec.json.decode(self.raw, type=dict[str, Any])  # orjson makes floats of integers beyond 64 bits


@dataclass(frozen=True, kw_only=True)
class Event(NewEvent):
    """An event in the log. `seq` is its number there: assigned once, rising, never reused."""

    seq: int

    @property
    def sequence(self) -> str:
        """The number as the event's CloudEvent has it: 16 digits."""
        return f"{self.seq:016d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """A query for events of the log: those between two numbers that match all given attributes."""

    after: int = 0  # higher numbers only
    before: int | None = None  # lower numbers only
    type_glob: str | None = None
    source: str | None = None  # its name, or the `source` of its events
    subject: str | None = None  # exactly, or as a glob

    @property
    def source_uri(self) -> str | None:
        """The `source` of the events that are asked for; None: any."""
        return self.source if self.source is None or self.source.startswith("/") else source_uri(self.source)


def source_uri(source: str) -> str:
    """The CloudEvents `source` of a configured source."""
    return f"/sources/{source}"
