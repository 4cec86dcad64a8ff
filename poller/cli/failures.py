"""The output of a command that fails: one line that says what, where and what to do, and the exit status."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from poller.cli.rights import rights
from poller.options.problems import ConfigError, with_hint
from poller.rendering.terminal import printable
from state.errors import PollerError

FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
NO_THREAD: Final = "can't start new thread"  # Python's words
FORESEEN: Final = (PollerError, OSError, sqlite3.Error)  # any other exception is a bug and shows its traceback


def complain(error: Exception) -> int:
    """Print an expected error with its advice and return the exit status. Raises any other exception again."""
    if isinstance(error, ExceptionGroup):  # raised by the daemon's tasks
        mine, others = error.split(FORESEEN)
        if mine is None or others is not None:
            raise error
        return max(map(_complain, _leaves(mine)))
    if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
        hint = "raise the limit of processes and threads: TasksMax= of its service, or ulimit -u"
        return tell("the system starts no more threads", hint, status=1)
    if not isinstance(error, FORESEEN):
        raise error
    return _complain(error)


def tell(text: str, hint: str | None, *, status: int) -> int:
    """Print an error with its hint, and return the exit status. A text of several errors has a line for each."""
    for line in with_hint(text, hint).split("\n"):
        click.echo(printable(f"Error: {line}"), err=True)
    return status


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        yield from _leaves(error) if isinstance(error, ExceptionGroup) else (error,)


def _refused_by_the_system(error: OSError, path: str) -> tuple[str, str]:
    others = rights(Path(path))
    if not isinstance(error, PermissionError) or others.is_ours:
        return f"{path}: {error.strerror}", "check the path, its permissions and free space"
    return f"{path}: may be used by {others}, not by user {os.geteuid()}", others.advice


def _complain(error: Exception) -> int:
    hint = error.hint if isinstance(error, PollerError) else None
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text, hint = _refused_by_the_system(error, str(error.filename))
    elif isinstance(error, OSError) and error.errno in FULL:
        text, hint = f"the output cannot be written: {error.strerror}", "check the free space where it goes"
    if isinstance(error, sqlite3.Error):
        text, hint = f"the state cannot be read or written: {error}", "poller doctor checks it"
    return tell(text, hint, status=2 if isinstance(error, ConfigError) else 1)
