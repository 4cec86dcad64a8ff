"""Sink `jsonl`: appends events to a file, one CloudEvent a line, and reports each as delivered only when it is on the
disk.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from poller import Attempt, Event, Receipt, hookimpl
from poller.events.cloudevents import structured
from poller.options.quantities import Size

_STEP: Final = 64 * 1024
_BEGIN: Final = b'{"specversion":'  # start of each line


class JsonlOptions(BaseModel):
    """`[[subscriptions]]` with `plugin = "jsonl"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    rotate: Size | None = None

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path, info: ValidationInfo) -> Path:
        return Path((info.context or {}).get("root") or ".") / path.expanduser()


@dataclass(slots=True)
class _Batch:
    """Lines that are written to the disk together, with one sync."""

    lines: list[bytes] = field(default_factory=list)
    written: bool = False


class JsonlSink:
    """One file, to which only this process appends."""

    Options = JsonlOptions

    def __init__(self, name: str, options: JsonlOptions) -> None:
        self.name = name
        self._options = options
        self._turn = asyncio.Lock()
        self._batch = _Batch()
        self._file: LineFile | None = None

    async def __aenter__(self) -> Self:
        self._file = await asyncio.to_thread(LineFile, self._options.path, self._options.rotate)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            await asyncio.to_thread(self._file.close)
            self._file = None

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:  # noqa: ARG002 - the contract's
        """Append the events. Raises OSError if they are not all on the disk."""
        if self._file is None:
            raise RuntimeError("deliver was called outside of `async with`")
        batch = self._batch
        batch.lines += (line(event) for event in events)
        async with self._turn:
            if batch is self._batch:  # the first caller with the turn writes for all that came meanwhile
                self._batch = _Batch()
                await asyncio.to_thread(self._file.append, b"".join(batch.lines))
                batch.written = True
        if not batch.written:
            raise OSError(f"{self._options.path}: not written, because the line before it was not")
        return Receipt(status="written", text=str(self._options.path))

    def render(self, events: Sequence[Event]) -> str:
        """The lines as they are appended."""
        return b"".join(line(event) for event in events).decode()


class LineFile:
    """A file of whole lines. A last line that a crash left incomplete is removed when the file is opened."""

    def __init__(self, path: Path, rotate: int | None) -> None:
        self._path, self._rotate = path, rotate
        self._lock = threading.Lock()
        _make_folder(path.parent)
        self._fd = _opened(path)

    def append(self, lines: bytes) -> None:
        """Write and sync; a failed write leaves the file as it was. Raises OSError."""
        with self._lock:
            self._follow(len(lines))
            size = os.fstat(self._fd).st_size
            try:
                _write(self._fd, lines)
                os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, size)
                raise

    def close(self) -> None:
        with self._lock:
            os.close(self._fd)

    def _follow(self, coming: int) -> None:
        """Begin a new file if this one is full, or another program moved it away."""
        size = os.fstat(self._fd).st_size
        if not self._is_in_place():
            self._reopen()
        elif self._rotate is not None and size and size + coming > self._rotate:
            os.rename(self._path, _next_free(self._path))
            self._reopen()

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        fresh = _opened(self._path)
        if os.fstat(fresh).st_size == 0:
            os.fchmod(fresh, stat.S_IMODE(os.fstat(self._fd).st_mode))  # keep the file's permissions
        os.close(self._fd)
        self._fd = fresh


def line(event: Event) -> bytes:
    """The event on one line. Line ends in JSON are white space, because those in texts are escaped."""
    return structured(event).replace(b"\n", b" ") + b"\n"


def _opened(path: Path) -> int:
    """A descriptor of the file, created for this user only. Raises OSError for a link, a foreign or an
    irregular file.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(f"{path} is a link: name the file that it leads to") from error
        raise
    try:
        _refuse_foreign(fd, path)
        os.ftruncate(fd, _end_of_whole_lines(fd))
        _sync_folder(path.parent)  # else the file itself may be missing after a power cut
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_foreign(fd: int, path: Path) -> None:
    """Raise OSError for a file that belongs to another user than this one or root, or holds anything but events."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is not a regular file")
    if found.st_uid not in (os.geteuid(), 0):
        raise OSError(f"{path} belongs to another user: chown it, or name another file")
    begin = os.pread(fd, len(_BEGIN), 0).strip(b"\0")  # a power cut may leave empty blocks
    if not _BEGIN.startswith(begin):
        raise OSError(f"{path} is not a file of events: name another file, or move this one away")


def _end_of_whole_lines(fd: int) -> int:
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _STEP)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _next_free(path: Path) -> Path:
    """The next free name for a rotated file; events.jsonl.1 is the oldest, also where it was packed as .1.gz."""
    begin = f"{path.name}."
    try:
        names = os.listdir(path.parent)
    except PermissionError as error:
        raise OSError(f"{path.parent} may not be listed: rotate needs that, to find the next number") from error
    taken = (name.removeprefix(begin).partition(".")[0] for name in names if name.startswith(begin))
    number = max((int(suffix) for suffix in taken if suffix.isdecimal()), default=0) + 1
    return path.with_name(f"{path.name}.{number}")


def _make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, each on the disk."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # one may write where one may not look
        os.sync()
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("jsonl", JsonlSink)
