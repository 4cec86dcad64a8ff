"""Commands that wait for whoever holds the state, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A command that waits to be done."""

    id: int
    name: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a command: either a result, or an error's message and hint."""

    result: dict[str, Any] | None = None
    error: str | None = None
    hint: str | None = None
