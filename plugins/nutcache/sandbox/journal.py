"""The journal of the sandbox's office: what really changed, to compare a poller's events with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import orjson

ChangeKind = Literal["created", "updated", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change of one record that a reader of its list can see."""

    n: int  # counts from 1 without gaps
    at: float  # Unix seconds of the server's clock, not of the office's
    resource: str
    id: int | tuple[Any, ...]  # a tuple where the record has no id of its own
    kind: ChangeKind
    changed: tuple[str, ...] = ()  # fields, of an update
    parent: int | None = None  # of a child record
    soft: bool = False  # a deletion that leaves the record listed, with a status that says so


class Journal:
    """Grows with every change; with a path each entry is also a line of a JSONL file. `clock` gives Unix seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.time, path: Path | None = None) -> None:
        self.entries: list[Entry] = []
        self.clock = clock
        self._file: IO[bytes] | None = path.open("ab", buffering=0) if path else None
        self.open = False  # nothing is recorded while the office is set up

    def write(
        self,
        resource: str,
        record_id: int | tuple[Any, ...],
        kind: ChangeKind,
        *,
        changed: tuple[str, ...] = (),
        parent: int | None = None,
        soft: bool = False,
    ) -> None:
        if not self.open:
            return
        entry = Entry(
            n=len(self.entries) + 1,
            at=self.clock(),
            resource=resource,
            id=record_id,
            kind=kind,
            changed=changed,
            parent=parent,
            soft=soft,
        )
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(orjson.dumps(asdict(entry)) + b"\n")

    def after(self, n: int) -> list[Entry]:
        """Every entry with a number above `n`."""
        return self.entries[max(n, 0) :]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
