"""Commands posted to the process that holds the state, and their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A command that waits to be executed."""

    id: int
    name: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a command, or an error's message and hint."""

    result: dict[str, Any] | None = None
    error: str | None = None
    hint: str | None = None
