"""Numbers of things in words. Pure."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Format a number of things: "1 call", "2 calls"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
