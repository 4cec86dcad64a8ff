"""What a command says when it fails: one line each for what is wrong and for what to do, and the exit status."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

import click

from poller.options.problems import ConfigError
from poller.rendering.terminal import printable
from state.errors import PollerError

FORESEEN: Final = (PollerError, OSError, sqlite3.Error)  # anything else is a bug, with its traceback


def complain(error: Exception) -> int:
    """Say what is wrong and what to do; gives the exit status. Raises what nobody has foreseen."""
    if isinstance(error, ExceptionGroup):  # from the daemon's tasks
        mine, others = error.split(FORESEEN)
        if mine is None or others is not None:
            raise error
        return max(map(_complain, _leaves(mine)))
    if not isinstance(error, FORESEEN):
        raise error
    return _complain(error)


def tell(text: str, hint: str | None, *, status: int) -> int:
    """Print an error and its hint; gives the exit status."""
    for line in text.split("\n"):
        click.echo(printable(f"Error: {line}"), err=True)
    if hint:
        click.echo(printable(f"Try:   {hint}"), err=True)
    return status


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        yield from _leaves(error) if isinstance(error, ExceptionGroup) else (error,)


def _complain(error: Exception) -> int:
    hint = error.hint if isinstance(error, PollerError) else None
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text, hint = f"{error.filename}: {error.strerror}", "check the path, its permissions and free space"
    if isinstance(error, sqlite3.Error):
        text, hint = f"the state cannot be read or written: {error}", "poller doctor looks closer"
    return tell(text, hint, status=2 if isinstance(error, ConfigError) else 1)
