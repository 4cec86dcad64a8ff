"""Times as peers write them in HTTP headers: `Retry-After`, resets and dates, each with a bound. Pure.

Understood are seconds from now (also with a fraction), the three forms of an HTTP date (RFC 9110, 5.6.7), and an
instant as a count since 1970: in seconds, milliseconds, microseconds or nanoseconds, told apart by its size.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = 86400.0  # seconds; a peer that asks for more is asked again once a day
_EPOCH: Final = 1e9  # a number from here on is an instant: as a wait it would be longer than 31 years
_LARGEST_SECONDS: Final = 1e11  # an instant above it is counted in thousandths, millionths or billionths of a second
_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,9})?")
_LONGEST_TEXT: Final = 200


def retry_after(text: str | None, now: float, *, longest: float = LONGEST) -> float | None:
    """Seconds to wait by a `Retry-After` or reset header, 0 to `longest`; None if it is absent or cannot be read.

    `now` is Unix seconds of the wall clock, or the answer's own `Date` where it has one.
    """
    if text is None or len(text) > _LONGEST_TEXT:
        return None
    seconds = number(text)
    at = instant(text) if seconds is None else epoch(seconds)
    if at is not None:
        seconds = at - now
    return None if seconds is None else min(max(seconds, 0.0), longest)


def number(text: str) -> float | None:
    """A plain decimal number that is not negative: no sign, no exponent, no other script's digits."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def epoch(value: float) -> float | None:
    """Unix seconds of an instant that is counted since 1970 in s, ms, us or ns; None where it is a wait."""
    if value < _EPOCH:
        return None
    while value >= _LARGEST_SECONDS:
        value /= 1000.0
    return value


def instant(text: str) -> float | None:
    """Unix seconds of an HTTP date, in any of its three forms."""
    try:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()  # an HTTP date is GMT, named or not
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
