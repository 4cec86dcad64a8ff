"""Times in HTTP headers from peers: `Retry-After`, resets and dates, each limited to a maximum. Pure.

Accepted are seconds from now (also fractions), the three forms of an HTTP date (RFC 9110, 5.6.7), and an instant
counted since 1970 in seconds, milliseconds, microseconds or nanoseconds, distinguished by its size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

LONGEST: Final = 86400.0  # seconds; the longest wait
_EPOCH: Final = 1e9  # larger numbers are instants: as a wait they would be longer than 31 years
_LARGEST_SECONDS: Final = 1e11  # larger instants are in milliseconds, microseconds or nanoseconds
_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,9})?")
_ISO: Final = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}[T ][0-9]{2}")
_LONGEST_TEXT: Final = 200


def retry_after(text: str | None, now: float, *, longest: float = LONGEST) -> float | None:
    """Seconds to wait by a `Retry-After` or reset header, from 0 to `longest`; None if it is absent or cannot be read.

    `now` is the wall clock in Unix seconds, or the answer's own `Date`.
    """
    if text is None or len(text) > _LONGEST_TEXT:
        return None
    seconds = _wait(text, now)
    if seconds is None and "," in text:  # a repeated header is joined by a comma: the longer wait counts
        waits = [wait for part in text.split(",") if (wait := _wait(part, now)) is not None]
        seconds = max(waits, default=None)
    return None if seconds is None else min(max(seconds, 0.0), longest)


def _wait(text: str, now: float) -> float | None:
    seconds = number(text)
    at = instant(text) if seconds is None else epoch(seconds)
    return seconds if at is None else at - now


def seconds_behind(headers: Mapping[str, str], now: float) -> float:
    """Seconds by which the clock of a server is behind `now`, by the `Date` and `Age` of its answer (RFC 9110, 6.6.1).

    0 if it is ahead, or says nothing that can be read.
    """
    date = headers.get("date")
    at = None if date is None else instant(date)
    return 0.0 if at is None else max(0.0, now - at - age(headers))


def age(headers: Mapping[str, str]) -> float:
    """Seconds for which an answer has been in a cache between the server and here (RFC 9111, 5.1); 0 if in none."""
    return min(number(headers.get("age", "")) or 0.0, LONGEST)


def number(text: str) -> float | None:
    """Parse a plain, non-negative decimal number: no sign, no exponent, ASCII digits only."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def epoch(value: float) -> float | None:
    """Unix seconds of an instant counted since 1970 in s, ms, us or ns; None if the number is a wait."""
    if value < _EPOCH:
        return None
    while value >= _LARGEST_SECONDS:
        value /= 1000.0
    return value


@lru_cache(maxsize=64)  # the answers of a second have the same date
def instant(text: str) -> float | None:
    """Unix seconds of an HTTP date in any of its three forms, or of ISO text (RFC 3339), which is UTC by default."""
    if _ISO.match(text.strip()):
        with suppress(ValueError, OverflowError):
            at = datetime.fromisoformat(text.strip())
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    try:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()  # an HTTP date is always GMT
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
