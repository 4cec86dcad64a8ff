"""Values: what an answer shows, compared with what its unit showed before, and the times of its requests. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from poller.documents.diff import parse

CONTENT = "content"  # the id of objects that are identified by their content

# 16 bytes of an answer or an object as it came (XXH3). Collisions are no risk: a server that could make them could
# as well hide a change. A cryptographic digest takes nine times as long, more than the rest of an unchanged poll.
digest_of = xxh3_128_digest


class RequestTimes(msgspec.Struct, frozen=True, kw_only=True):
    """When a poll's first request was sent and its last answer arrived, by the wall clock and in order."""

    at: float  # earlier by its age if the answer comes from a cache: it shows what was so then
    answered_at: float
    order: int = 0  # order of the request among all requests and answers of the endpoint
    answered_order: int = 0
    age: float = 0.0  # seconds for which an answer may have been in a cache; 0: in none
    behind: float = 0.0  # seconds by which the server's clock is behind this one, by the `Date` of the first answer


class ShownObject(msgspec.Struct, frozen=True, gc=False):
    """An object that this unit has not shown in exactly these bytes before."""

    object_id: str
    digest: bytes
    body: bytes  # the object as JSON

    def parsed(self) -> dict[str, Any]:
        """The object, parsed. Most objects are only stored and never parsed."""
        value: dict[str, Any] = parse(self.body)
        return value


class PageComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer shows, compared with what its unit showed before."""

    members: Mapping[bytes, str]  # digest of bytes -> id, of all objects shown, in order
    fresh: Sequence[ShownObject]
    missing: Sequence[str] = ()  # shown before, but not now
    unsure: Sequence[str] = ()  # ids whose state cannot be told from this answer
    doubles: Sequence[str] = ()  # the ids among them under which it shows several different objects
    is_partial: bool = False  # it shows objects without a known id, so nothing is certainly missing
    notes: Sequence[str] = ()  # what was set aside, and why
