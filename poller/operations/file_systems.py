"""The file system of a path, as Linux names it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")  # see proc_pid_mountinfo(5); there is none on macOS
# On other machines, or on the host of a virtual one. SQLite's write-ahead log needs memory that its processes share,
# and locks that hold: https://sqlite.org/wal.html
NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre"}
OF_HOST: Final = {"9p", "drvfs", "vboxsf", "prl_fs"}
FUSE: Final = {f"fuse.{name}" for name in ("sshfs", "glusterfs", "rclone", "s3fs", "gcsfuse", "davfs")}
REPLACED: Final = "this container has the file as it was mounted; the one outside was replaced since"
REPLACED_HINT: Final = "start the container again, and mount the file's folder instead of the file"
REMOTE: Final = NETWORK | OF_HOST | FUSE


def remote_file_system(path: Path) -> str | None:
    """The name of the file system of a path if that is on another machine; None if it is not, or not known."""
    kind = file_system(path.resolve(), _mounts())
    return kind if kind in REMOTE else None


def has_other_place(path: Path) -> str | None:
    """Why the files that SQLite keeps beside a file are not beside it for everybody; None if nothing is known."""
    path = path.resolve()
    if path.is_file() and path in (point for point, _ in _points(_mounts())):
        return "is mounted as a single file"
    return "has another name (a hard link)" if path.is_file() and path.stat().st_nlink > 1 else None


def was_replaced(path: Path) -> bool:
    """Whether a file that is mounted alone was replaced outside since, as most editors do: only the old one is seen."""
    path = path.resolve()
    return path.is_file() and path.stat().st_nlink == 0 and path in (point for point, _ in _points(_mounts()))


def file_system(path: Path, mounts: str) -> str | None:
    """The file system of an absolute path in a list of mounts. The latest of several at one place hides the others."""
    found, depth = None, 0
    for point, kind in _points(mounts):
        if len(point.parts) >= depth and path.is_relative_to(point):
            found, depth = kind, len(point.parts)
    return found


def _mounts() -> str:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _points(mounts: str) -> Iterator[tuple[Path, str]]:
    """Each place at which something is mounted, with the kind of its file system."""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.count(" ") >= 4 and rest:
            yield Path(_unescaped(fields.split(" ")[4])), rest.split(" ")[0]


def _unescaped(text: str) -> str:
    """A field in which blanks and backslashes are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
