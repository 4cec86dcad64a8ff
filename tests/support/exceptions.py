"""One instance of every exception class of the standard library."""

import contextlib
import importlib
import sys
import warnings
from collections.abc import Iterator

_ARGUMENTS = (
    ("boom",),
    (),
    (1, "boom"),
    ("utf-8", b"\xff", 0, 1, "boom"),
    ("boom", [SystemExit(3)]),
    ("boom", [ValueError()]),
)
_MODULES = (
    *("asyncio", "binascii", "bz2", "configparser", "concurrent.futures", "csv", "ctypes", "dataclasses", "dbm"),
    *("decimal", "email.errors", "ftplib", "getopt", "getpass", "graphlib", "gzip", "html.parser", "http.client"),
    *("http.cookiejar", "http.cookies", "imaplib", "importlib.metadata", "ipaddress", "json", "locale", "lzma"),
    *("mailbox", "multiprocessing", "netrc", "optparse", "pickle", "plistlib", "poplib", "pwd", "queue", "re"),
    *("sched", "selectors", "shutil", "signal", "smtplib", "socket", "sqlite3", "ssl", "statistics", "string"),
    *("struct", "subprocess", "tarfile", "threading", "tokenize", "tomllib", "traceback", "unicodedata", "unittest"),
    *("urllib.error", "uuid", "wave", "weakref", "xml.dom", "xml.etree.ElementTree", "xml.sax", "xmlrpc.client"),
    *("zipfile", "zlib", "zoneinfo"),
)


class Unprintable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def exceptions() -> Iterator[BaseException]:
    """Every one that can be made, in the order of its name, and one that cannot even be printed."""
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    found: set[type[BaseException]] = set()
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        cls = waiting.pop()
        if cls not in found:
            found.add(cls)
            waiting += cls.__subclasses__()
    standard = sys.stdlib_module_names | {"builtins"}
    for cls in sorted(found, key=lambda one: (one.__module__, one.__qualname__)):
        if cls.__module__.partition(".")[0] in standard and (made := _made(cls)) is not None:
            yield made
    yield Unprintable()


def _made(cls: type[BaseException]) -> BaseException | None:
    for arguments in _ARGUMENTS:
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls(*arguments)
    return None


ALL = tuple(exceptions())
