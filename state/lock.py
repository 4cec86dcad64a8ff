"""The lock of the process that runs on a state. The kernel releases it when the process ends, even after kill -9."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from state.errors import Held, StateError, Unavailable
from state.private import make_folder, opened


class StateLock:
    """An flock next to the state file, in a file that only this user can open, because others could hold it for
    ever.
    """

    def __init__(self, state: Path) -> None:
        self._path = state.with_name(state.name + ".lock")

    def holder(self) -> int | None:
        """Process id of the daemon that runs on this state, or None."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            what = "is a link, not a lock" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
            raise StateError(f"{self._path} {what}", hint="run as the user of the daemon, or as root") from error
        with os.fdopen(fd) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0)
        return None

    def since(self) -> float:
        """When its current or latest holder took it, in Unix seconds."""
        return self._path.stat().st_mtime

    @contextlib.contextmanager
    def held(self) -> Iterator[TextIO]:
        """Hold the lock, which is that of this open file. Raises Held if another process holds it, and StateError if
        it cannot be created.
        """
        make_folder(self._path.parent)
        with os.fdopen(opened(self._path), "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                pid = file.read().strip() or "unknown"
                raise Held(
                    f"{self._path}: a running poller (process {pid}) holds this state",
                    hint="stop it first, or use the commands that work beside it",
                ) from None
            self._sign(file.fileno())
            yield file

    def _sign(self, fd: int) -> None:
        """Write the holder into the file. Unbuffered, because text that a full disk refused must not fail again on
        close.
        """
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise Unavailable(
                f"{self._path} cannot be written: {error.strerror}", hint="free space on its disk"
            ) from error
