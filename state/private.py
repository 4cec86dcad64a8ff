"""Files of this user only: created with mode 0600, and never opened through a link that another user may have
created.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

from state.errors import StateError

MODE: Final = 0o600


def make_folder(path: Path) -> None:
    """Create a folder and its parents, each synced to disk, so that a power failure cannot lose files in it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    with contextlib.suppress(PermissionError):  # a folder may be writable, but not readable
        sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file, or a folder's list of files, to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: Path) -> None:
    """Create an empty file. Raises FileExistsError if the name exists, even as a dangling link."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, MODE))


def opened(path: Path) -> int:
    """A descriptor to read and write a file, which is created if needed.

    Raises StateError for a link and for a file that belongs neither to this user nor to root, and OSError if it cannot
    be created.
    """
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StateError(f"{path} is a link, not a file", hint=f"rm {path}") from error
        raise  # the error names the reason, for example the folder
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
            raise StateError(f"{path} does not belong to this user", hint=f"rm {path}")
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != MODE:
            os.fchmod(fd, MODE)  # the file of an earlier version may have another mode
    except BaseException:
        os.close(fd)
        raise
    return fd
