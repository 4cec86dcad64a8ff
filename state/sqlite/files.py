"""Whether the files of an open state are still the ones at its path.

SQLite goes on writing to a file that was deleted or replaced, and everything that it writes there is lost with the
process. Without the lock file, a second process could run on the same state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from state.errors import Unavailable

ENDINGS: Final = ("", "-wal", "-shm", ".lock")
HINT: Final = "do not stop the daemon yet: until then the file can be rescued (docs/how-to/backup.md)"


class OpenFiles:
    """The files that exist when a state has been opened, by device and inode."""

    def __init__(self, state: Path) -> None:
        paths = [state.with_name(state.name + ending) for ending in ENDINGS]
        self._known = {path: _identity(path) for path in paths if path.exists()}

    def check(self) -> None:
        """Raise Unavailable if one of them was deleted, moved or replaced."""
        for path, known in self._known.items():
            try:
                what = None if _identity(path) == known else "was replaced by another file"
            except (FileNotFoundError, NotADirectoryError):
                what = "was deleted or moved"
            except OSError:
                continue  # a folder that cannot be read for a while proves nothing
            if what is not None:
                raise Unavailable(f"the state cannot be written: {path} {what} while it is in use", hint=HINT)


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino
