"""Pure: what a server says about its limits, read from the status and headers of an answer.

Understood are `Retry-After` (RFC 9110, 10.2.3: seconds or a date), `RateLimit` with `RateLimit-Policy`
(draft-ietf-httpapi-ratelimit-headers: structured fields since -08, `limit=, remaining=, reset=` in -07),
`RateLimit-Limit`, `-Remaining` and `-Reset` (-06 and before) and the same with `X-`. Nothing here raises:
what cannot be read is left out and told in `notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = 86400.0  # seconds; a server that asks for more is asked again once a day
_EPOCH: Final = 1e9  # a reset above it is an instant, below it seconds from now
_ITEM: Final = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^\s;,"]+)\s*((?:;[^,"]*(?:"[^"]*")?)*)')
_PARAMETER: Final = re.compile(r";\s*([a-z*][a-z0-9_.*-]*)\s*=\s*(\"[^\"]*\"|[^;\s]+)", re.IGNORECASE)
_MILLISECONDS: Final = 1e11  # an epoch above it is counted in milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left of one of the server's windows."""

    name: str = ""
    remaining: int
    reset_in: float | None = None  # seconds until there is more
    limit: int | None = None  # calls in a whole window
    window: float | None = None  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerWord:
    """What an answer says about the calls to come."""

    status: int = 200
    retry_after: float | None = None  # seconds from now, at most LONGEST
    quotas: tuple[Quota, ...] = ()
    notes: tuple[str, ...] = ()  # what could not be read, for the operator
