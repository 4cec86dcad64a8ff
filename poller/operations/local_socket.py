"""The Unix socket beside a state, through which commands reach the daemon that runs on it.

Whoever may open the socket may use it: it is made for its owner alone (mode 0600). A Unix socket's path has 107 bytes
at most, so it is reached through the folder's file descriptor, however long the folder's path is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

BACKLOG: Final = 64
LONGEST: Final = 80  # bytes of a name that still fits behind /proc/self/fd/N/

log = structlog.get_logger("poller")


def socket_path(state: Path) -> Path:
    """Where the socket of a state is: `poller.db.sock` beside `poller.db`."""
    name = f"{state.name}.sock"
    if len(os.fsencode(name)) > LONGEST:
        name = f"{hashlib.sha256(os.fsencode(state.name)).hexdigest()[:32]}.sock"
    return state.with_name(name)


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """A path to the same file that is short enough for a socket's address. Raises OSError."""
    if len(os.fsencode(path)) < LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def listening(state: Path) -> Iterator[socket.socket | None]:
    """The socket, listening; removed at the end. The caller holds the state's lock, so one that is there is stale.

    None, and a warning in the log, where there can be no socket: commands then reach the daemon through the state.
    """
    path = socket_path(state)
    try:
        made = _made(path)
    except OSError as error:
        log.warning("socket.not_made", path=str(path), error=error.strerror, hint="commands go through the state")
        yield None
        return
    ours = path.lstat().st_ino
    try:
        yield made
    finally:
        made.close()
        with contextlib.suppress(OSError):
            if path.lstat().st_ino == ours:
                path.unlink()


def _made(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(17, "another file has this name", str(path))
        path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short(path) as address:
            made.bind(address)
        path.chmod(0o600)  # nobody can connect before it listens
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
