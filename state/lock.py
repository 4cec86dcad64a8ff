"""The lock that says which process runs on a state. The kernel frees it with the process: kill -9 leaves nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from state.errors import Held


class StateLock:
    """An flock beside the state file."""

    def __init__(self, state: Path) -> None:
        self._path = state.with_name(state.name + ".lock")

    def holder(self) -> int | None:
        """Process id of the daemon that runs on this state, or None."""
        try:
            with self._path.open("r") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read().strip() or 0)
        except FileNotFoundError:
            pass
        return None

    def since(self) -> float:
        """When its present or latest holder took it, Unix seconds."""
        return self._path.stat().st_mtime

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises Held when another process does."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                pid = file.read().strip() or "unknown"
                raise Held(
                    f"{self._path}: a running poller (process {pid}) holds this state",
                    hint="stop it first, or use the commands that work beside it",
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
