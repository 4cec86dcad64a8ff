"""Commands posted to the process that holds the state, and their results."""

from __future__ import annotations

from typing import Any

import msgspec


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """A command that waits to be executed."""

    id: int
    name: str
    args: dict[str, Any]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a command, or an error's message and hint."""

    result: dict[str, Any] | None = None
    error: str | None = None
    hint: str | None = None
