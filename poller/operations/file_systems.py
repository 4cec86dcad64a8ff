"""The file system of a path, as Linux names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")  # see proc_pid_mountinfo(5); there is none on macOS
# On other machines, or on the host of a virtual one. SQLite's write-ahead log needs memory that its processes share,
# and locks that hold: https://sqlite.org/wal.html
NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre"}
OF_HOST: Final = {"9p", "drvfs", "vboxsf", "prl_fs"}
FUSE: Final = {f"fuse.{name}" for name in ("sshfs", "glusterfs", "rclone", "s3fs", "gcsfuse", "davfs")}
REMOTE: Final = NETWORK | OF_HOST | FUSE


def remote_file_system(path: Path) -> str | None:
    """The name of the file system of a path if that is on another machine; None if it is not, or not known."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = file_system(path.resolve(), mounts)
    return kind if kind in REMOTE else None


def file_system(path: Path, mounts: str) -> str | None:
    """The file system of an absolute path in a list of mounts. The latest of several at one place hides the others."""
    found, depth = None, 0
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(_unescaped(fields.split(" ")[4])) if fields.count(" ") >= 4 else None
        if point is not None and rest and len(point.parts) >= depth and path.is_relative_to(point):
            found, depth = rest.split(" ")[0], len(point.parts)
    return found


def _unescaped(text: str) -> str:
    """A field in which blanks and backslashes are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
