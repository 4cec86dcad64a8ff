"""Faults on demand: wrong answers that the sandbox gives to the next calls."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

FaultKind = Literal["status", "html", "truncated", "body", "delay", "drop", "cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of wrong answer.

    `status`: that status with an error body; `html`: a page of HTML with 200; `truncated`: the first half of the right
    JSON, as if it were complete; `body`: `body` with `status` (200 if none); `delay`: the right answer after `seconds`;
    `drop`: the connection is closed without an answer; `cut`: it is closed in the middle of the body.
    """

    kind: FaultKind
    path: str = "*"  # glob over path or path?query below the base URL: "time_entries", "invoices/*", "*page=2"
    times: int | None = 1  # None: until cleared
    after: int = 0  # this many calls of that path are answered correctly first
    status: int | None = None
    seconds: float = 0.0
    body: str = ""
    retry_after: str | None = None


class Faults:
    """The waiting faults. The first one that matches a call is used."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, list[int]]] = []  # [calls to let pass, answers left]

    def add(self, kind: FaultKind, path: str = "*", **fields: Any) -> None:
        """Add a fault; `fields` as in Fault."""
        if kind not in get_args(FaultKind):
            raise ValueError(f"no fault {kind!r}; known: {', '.join(get_args(FaultKind))}")
        fault = Fault(kind=kind, path=path.strip("/"), **fields)
        self._waiting.append((fault, [fault.after, -1 if fault.times is None else fault.times]))

    def take(self, path: str, query: str = "") -> Fault | None:
        """The fault for this call, if one is due."""
        for fault, left in self._waiting:
            fits = fnmatchcase(path, fault.path) or fnmatchcase(f"{path}?{query}", fault.path)
            if left[1] == 0 or not fits:
                continue
            if left[0] > 0:
                left[0] -= 1
                continue
            left[1] -= 1
            return fault
        return None

    def clear(self) -> None:
        self._waiting.clear()
