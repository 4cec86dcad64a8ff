"""The state as commands that only look open it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

import click

from poller.status import Reader, open_reader
from poller.tables import Config
from state.errors import StateError

NOTHING_YET: Final = "nothing yet: `poller once` or `poller run` begins"


@contextlib.contextmanager
def reading(config: Config) -> Iterator[Reader | None]:
    """The state, read-only; None, and a line that says so, where nothing has run yet. Raises StateError."""
    path = config.poller.state
    if not path.exists():
        say_nothing_yet()
        yield None
        return
    with told(config), open_reader(path) as reader:
        yield reader


@contextlib.contextmanager
def told(config: Config) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(
            f"{config.poller.state}: cannot be read: {error}",
            hint="is it Poller's state, and of this version? `poller doctor` looks closer",
        ) from error


def say_nothing_yet() -> None:
    """Tell on standard error that there is no state."""
    click.echo(NOTHING_YET, err=True)
