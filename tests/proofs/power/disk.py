"""A disk that has lost its power: what of a recorded run's files is there afterwards.

What was synced is there. Of what was written since, any part may be: none of it, all of it, some writes and not others,
some sectors of a write and not others. A file that was made or deleted is so once its folder was synced, which SQLite
does with the first sync of a new journal.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Create:
    """A file was opened, and made where it was not there."""

    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """A file was deleted."""

    name: str
    is_synced: bool


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes were written."""

    name: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file was cut to a size."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """What was written to a file is on the disk."""

    name: str


Operation = Create | Delete | Write | Truncate | Sync
Image = dict[str, bytes]  # files by name


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)

    def sync(self) -> None:
        for one in self.pending:
            _apply(self.durable, one)
        self.pending.clear()


class Disk:
    """The files of a run, operation by operation."""

    def __init__(self) -> None:
        self._entries: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}

    def do(self, operation: Operation) -> None:
        """Let the run go on by one operation."""
        name = operation.name
        match operation:
            case Create():
                self._entries.setdefault(name, _File())
            case Delete():
                self._entries.pop(name, None)
                if operation.is_synced:
                    self._durable = dict(self._entries)
            case Sync():
                self._entries[name].sync()
                if name.endswith(("-wal", "-journal")):
                    self._durable = dict(self._entries)
            case _:
                self._entries[name].pending.append(operation)

    def least(self) -> Image:
        """Only what was synced."""
        return {name: bytes(file.durable) for name, file in self._durable.items()}

    def most(self) -> Image:
        """Everything that was written."""
        return {name: _with(file, file.pending) for name, file in self._entries.items()}

    def some(self, chance: random.Random) -> Image:
        """What was synced, and any part of the rest; now and then all of it, as a process that is killed leaves it."""
        if chance.random() < 0.2:
            return self.most()
        entries = chance.choice((self._entries, self._durable))
        share = chance.choice((0.2, 0.5, 0.8, 1.0))
        return {name: _with(file, _chosen(file.pending, share, chance)) for name, file in entries.items()}


def _with(file: _File, operations: list[Write | Truncate]) -> bytes:
    content = bytearray(file.durable)
    for one in operations:
        _apply(content, one)
    return bytes(content)


def _apply(content: bytearray, operation: Write | Truncate) -> None:
    end = operation.size if isinstance(operation, Truncate) else operation.offset + len(operation.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if isinstance(operation, Truncate):
        del content[end:]
    else:
        content[operation.offset : end] = operation.data


def _chosen(pending: list[Write | Truncate], share: float, chance: random.Random) -> list[Write | Truncate]:
    found: list[Write | Truncate] = []
    for one in pending:
        if chance.random() < share:
            found += [one] if isinstance(one, Truncate) or chance.random() < 0.7 else _torn(one, chance)
    return found


def _torn(write: Write, chance: random.Random) -> Iterator[Write]:
    """Some of its sectors."""
    at = 0
    while at < len(write.data):
        end = at + SECTOR - (write.offset + at) % SECTOR
        if chance.random() < 0.5:
            yield Write(write.name, write.offset + at, write.data[at:end])
        at = end
