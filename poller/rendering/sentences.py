"""Words of others inside our sentences. Pure."""

from __future__ import annotations


def clause(text: str) -> str:
    """A text as part of a sentence that goes on or ends after it: without the period at its own end."""
    return text[:-1] if text.endswith(".") and not text.endswith("..") else text
