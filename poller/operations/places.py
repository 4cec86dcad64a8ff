"""Positions in the log and in the list of deliveries, as people write them: a number, or a time with its offset."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from state.errors import PollerError

HIGHEST: Final = 2**53 - 1  # beyond it, JSON numbers are not exact everywhere


class BadPlace(PollerError):
    """Text that is not a position: neither a number nor a time."""


def parse_place(text: str, *, what: str) -> int | float:
    """A number (int), or a time in Unix seconds (float). Raises BadPlace, which names `what` the text was given for."""
    if text.isascii() and text.isdecimal():
        if len(text) > 19 or int(text) > HIGHEST:
            raise BadPlace(f"{what}: {text[:60]} is too large", hint=f"numbers end at {HIGHEST}")
        return int(text)
    hint = "a number such as 1200, or a time with its offset such as 2026-11-23T08:00:00Z"
    try:
        when = datetime.fromisoformat(text.upper())
        seconds = when.timestamp()
    except (ValueError, OverflowError) as error:
        raise BadPlace(f"{what}: {text[:60]!r} is neither a number nor a time", hint=hint) from error
    if when.tzinfo is None:
        raise BadPlace(f"{what}: the time {text} needs its offset", hint=f"{text}Z is UTC")
    return seconds
