"""Numbers of things in words. Pure."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Format a number of things: "1 call", "2 calls"."""
    return f"{count} {plural(noun, count)}"


def failing_of(count: int, whole: int, noun: str) -> str:
    """Say how many of things fail: "1 of 12 lists fails", "2 of 12 lists fail"."""
    return f"{count} of {counted(whole, noun)} {'fails' if count == 1 else 'fail'}"


def plural(noun: str, count: float) -> str:
    """The noun as it follows a number: "call" after 1, else "calls"; "delivery" or "deliveries"."""
    if count == 1:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("ery") else f"{noun}s"
