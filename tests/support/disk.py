"""A disk that fills up on command: a small file system in memory, where this machine lets us mount one."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

FILLER = "filler"


class SmallDisk:
    """A folder on a file system of some megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.folder / FILLER).open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"x" * size):
                        pass

    def free(self) -> None:
        """Make room again."""
        (self.folder / FILLER).unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "24m") -> Iterator[SmallDisk]:
    """Mount one at `folder`; a test that cannot is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    disk = SmallDisk(folder)
    try:
        yield disk
    finally:
        disk.free()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
