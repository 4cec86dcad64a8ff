"""Rates, durations and sizes of `poller.toml`, as annotated types for pydantic."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from poller.budget.limits import Limit

_UNITS: Final = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
}
_SIZES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

_RATE: Final = re.compile(r"(\d{1,12})\s*/\s*(\d{0,9})\s*([a-z]+)")
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([a-z]+)")
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*([A-Z]+)")


def parse_rate(text: Any) -> Limit:
    """Parse a rate: `"200/min"` to Limit(200, 60.0). Raises ValueError with an example."""
    if isinstance(text, Limit):
        return text
    found = _RATE.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    calls, count, unit = found.groups() if found else ("", "", "")
    if unit not in _UNITS or int(calls) < 1 or count.strip("0") == "" != count:
        raise ValueError('a rate is calls per window; write "5/s", "30/10s", "200/min", "5000/h" or "20000/day"')
    return Limit(int(calls), int(count or 1) * _UNITS[unit])


def parse_duration(text: Any) -> float:
    """Parse a duration: `"15m"` to 900.0 seconds. Raises ValueError with an example."""
    if isinstance(text, float):  # already parsed, or a default
        return text
    found = _DURATION.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if found is None or found[2] not in _UNITS:
        raise ValueError('a duration is a number and its unit; write "200ms", "90s", "15m", "2h" or "3d"')
    return float(found[1]) * _UNITS[found[2]]


def parse_size(text: Any) -> int:
    """Parse a size: `"32MB"` to 32,000,000 bytes. Raises ValueError with an example."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = _SIZE.fullmatch(text.strip().upper()) if isinstance(text, str) else None
    if found is None or found[2] not in _SIZES:
        raise ValueError('a size is a number and its unit; write "500kB", "32MB" or "1GiB"')
    return int(float(found[1]) * _SIZES[found[2]])


def rate_text(limit: Limit) -> str:
    """Format a limit: Limit(200, 60.0) as `"200/min"`, the shortest form that parses to the same limit."""
    for unit in ("day", "h", "min", "s"):
        count, rest = divmod(limit.seconds, _UNITS[unit])
        if count >= 1 and rest == 0:
            return f"{limit.calls}/{'' if count == 1 else int(count)}{unit}"
    return f"{limit.calls}/{round(limit.seconds * 1000)}ms"


def duration_text(seconds: float) -> str:
    """Format a duration: 900.0 as `"15m"`, in the largest unit that gives a whole number."""
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(seconds, _UNITS[unit])
        if count >= 1 and rest == 0:
            return f"{int(count)}{unit}"
    return f"{round(seconds * 1000)}ms"


def lasting(least: float, most: float = math.inf) -> AfterValidator:
    """The bounds of a duration in seconds, for `Annotated[Duration, lasting(...)]`."""
    bounds = f"between {duration_text(least)} and {duration_text(most)}" if most < math.inf else ""

    def checked(seconds: float) -> float:
        if not least <= seconds <= most:
            raise ValueError(f"this must be {bounds or f'at least {duration_text(least)}'}")
        return seconds

    return AfterValidator(checked)


def _written(*examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": list(examples)}, mode="validation")


Rate = Annotated[Limit, BeforeValidator(parse_rate), PlainSerializer(rate_text), _written("5/s", "200/min", "5000/h")]
Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(duration_text), _written("90s", "15m")]
Size = Annotated[
    int, BeforeValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["32MB"]})
]
