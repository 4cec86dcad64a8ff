"""The Unix socket next to a state, through which commands reach the daemon that runs on it.

Anybody who can open the socket may use it, so it is created for its owner only (mode 0600). The path of a Unix socket
has at most 107 bytes, so it is reached through the folder's file descriptor, however long the folder's path is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from poller.late import late

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")  # clients need none

BACKLOG: Final = 64
LONGEST: Final = 80  # bytes of a name that fits after /proc/self/fd/N/


def socket_path(state: Path) -> Path:
    """The path of a state's socket: `poller.db.sock` next to `poller.db`."""
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
    """The listening socket, removed at the end. The caller holds the state's lock, so an existing socket is stale.

    None, with a warning in the log, if there can be no socket: commands then reach the daemon through the state.
    """
    path = socket_path(state)
    try:
        made = _made(path)
    except OSError as error:
        log = structlog.get_logger("poller")
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
        path.chmod(0o600)  # clients cannot connect before it listens
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
