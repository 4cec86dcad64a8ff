"""A file system for SQLite that writes down what SQLite does to its files, in order.

It is SQLite's own, registered under another name as the default one: opening, writing, truncating, syncing and deleting
are noted on the way. Nothing is really synced: what a sync keeps is decided afterwards (`tests.proofs.power.disk`).
"""

from __future__ import annotations

import _sqlite3
import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.proofs.power.disk import Create, Delete, Operation, Sync, Truncate, Write

OK: Final = 0
NAME: Final = b"recording"

OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
CLOSE = CFUNCTYPE(c_int, c_void_p)
WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, as far as it is changed."""

    _fields_: ClassVar[Any] = [
        ("version", c_int),
        *((name, c_void_p) for name in ("close", "read", "write", "truncate", "sync")),
        *((f"other{number}", c_void_p) for number in range(13)),
    ]


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`."""

    _fields_: ClassVar[Any] = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        *((f"other{number}", c_void_p) for number in range(14)),
    ]


class _Library:
    """The SQLite that Python uses."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_sqlite3.__file__)
        self.find = library.sqlite3_vfs_find
        self.find.restype, self.find.argtypes = POINTER(_Vfs), [c_char_p]
        self.register, self.unregister = library.sqlite3_vfs_register, library.sqlite3_vfs_unregister
        self.register.argtypes, self.unregister.argtypes = [POINTER(_Vfs), c_int], [POINTER(_Vfs)]


def is_possible() -> bool:
    """Whether the SQLite that Python uses can be given another file system: in some builds its functions are hidden."""
    try:
        _Library()
    except (AttributeError, OSError):
        return False
    return True


class _Recorder:
    """The file system: each file's own methods, and those that note what is asked of it before they are called."""

    def __init__(self, folder: Path, note: Callable[[Operation], None], sync_seconds: float) -> None:
        self._folder = f"{folder}/".encode()
        self._note = note
        self._sync_seconds = sync_seconds
        self._library = _Library()
        self._own = self._library.find(None)
        self._vfs = _Vfs()
        ctypes.memmove(ctypes.byref(self._vfs), self._own, ctypes.sizeof(_Vfs))
        self._vfs.name = NAME
        self._open, self._delete = OPEN(self._vfs.open), DELETE(self._vfs.delete)
        self._noting = OPEN(self._opened), DELETE(self._deleted)
        self._vfs.open, self._vfs.delete = (ctypes.cast(one, c_void_p).value for one in self._noting)
        self._names: dict[int, str] = {}  # of open files, by their address
        self._methods: dict[int, _Methods] = {}  # by the address of those that they stand for
        self._kept: list[Any] = []  # what C code still points to

    def begin(self) -> None:
        """Be the file system of every connection that is opened from now on."""
        self._library.register(ctypes.byref(self._vfs), 1)

    def end(self) -> None:
        """Be it no longer."""
        self._library.unregister(ctypes.byref(self._vfs))
        self._library.register(self._own, 1)

    def _opened(self, vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        path = ctypes.string_at(name) if name else b""
        code = self._open(vfs, name, file, flags, out)
        if code == OK and path.startswith(self._folder):
            self._names[file] = path[len(self._folder) :].decode()
            self._note(Create(self._names[file]))
            methods = ctypes.cast(file, POINTER(c_void_p))
            methods[0] = ctypes.addressof(self._noted(methods[0] or 0))
        return int(code)

    def _deleted(self, vfs: int, name: int, sync_folder: int) -> int:
        path = ctypes.string_at(name)
        code = self._delete(vfs, name, sync_folder)
        if code == OK and path.startswith(self._folder):
            self._note(Delete(path[len(self._folder) :].decode(), is_synced=bool(sync_folder)))
        return int(code)

    def _noted(self, address: int) -> _Methods:
        if address in self._methods:
            return self._methods[address]
        made = self._methods[address] = _Methods.from_buffer_copy(_Methods.from_address(address))
        close, write, truncate = CLOSE(made.close), WRITE(made.write), TRUNCATE(made.truncate)

        def closed(file: int) -> int:
            self._names.pop(file, None)
            return int(close(file))

        def written(file: int, data: int, size: int, offset: int) -> int:
            self._note(Write(self._names[file], offset, ctypes.string_at(data, size)))
            return int(write(file, data, size, offset))

        def truncated(file: int, size: int) -> int:
            self._note(Truncate(self._names[file], size))
            return int(truncate(file, size))

        def synced(file: int, _: int) -> int:
            time.sleep(self._sync_seconds)  # meanwhile, other threads can tell what is not on the disk yet
            self._note(Sync(self._names[file]))
            return OK

        noting = {
            "close": CLOSE(closed),
            "write": WRITE(written),
            "truncate": TRUNCATE(truncated),
            "sync": SYNC(synced),
        }
        for name, function in noting.items():
            setattr(made, name, ctypes.cast(function, c_void_p).value)
        self._kept.append(noting)
        return made


_KEPT: Final[list[_Recorder]] = []  # connections may outlive the recording


@contextmanager
def recorded(folder: Path, note: Callable[[Operation], None], *, sync_seconds: float = 0.0) -> Iterator[None]:
    """Note everything that SQLite does to files in this folder, over connections that are opened meanwhile."""
    recorder = _Recorder(folder, note, sync_seconds)
    _KEPT.append(recorder)
    recorder.begin()
    try:
        yield
    finally:
        recorder.end()
