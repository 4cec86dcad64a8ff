"""Numbers of things in words. Pure."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Format a number of things: "1 call", "2 calls"."""
    return f"{count} {plural(noun, count)}"


def plural(noun: str, count: float) -> str:
    """The noun as it follows a number: "call" after 1, else "calls"; "delivery" or "deliveries"."""
    if count == 1:
        return noun
    return f"{noun[:-1]}ies" if noun.endswith("ery") else f"{noun}s"
