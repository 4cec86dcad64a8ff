"""Pure: what an answer shows, held against what its unit showed before, and when it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from poller.documents.diff import parse

CONTENT = "content"  # the id of objects that are told apart by what they hold

# 16 bytes of an answer or an object as it came (XXH3). Nobody gains by two that collide: whoever could make them may
# as well leave a change out. A cryptographic digest takes nine times as long, more than all the rest of a quiet poll.
digest_of = xxh3_128_digest


class RequestTimes(msgspec.Struct, frozen=True, kw_only=True):
    """When a poll's first request left, and when its last answer had arrived: by the wall clock, and in order."""

    at: float
    answered_at: float
    order: int = 0  # of the request among all requests and answers of the endpoint
    answered_order: int = 0


class ShownObject(msgspec.Struct, frozen=True, gc=False):
    """An object that this unit has not shown in just these bytes before."""

    object_id: str
    digest: bytes
    body: bytes  # the object as JSON

    def parsed(self) -> dict[str, Any]:
        """The object. Most are never looked at: they are only kept."""
        value: dict[str, Any] = parse(self.body)
        return value


class PageComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer shows, held against what its unit showed before."""

    members: dict[bytes, str]  # digest of bytes -> id, of all objects shown, in order
    fresh: Sequence[ShownObject]
    missing: Sequence[str] = ()  # shown before, not now
    unsure: Sequence[str] = ()  # how these are cannot be told from this answer
    is_partial: bool = False  # it shows objects that cannot be told apart: nothing is missing for sure
    notes: Sequence[str] = ()  # what was set aside, and why
