"""Opens a state by its place: the only module outside of the stores' packages that knows which stores there are."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from state.errors import Unavailable
from state.sqlite import writer as sqlite_writer
from state.sqlite.backup import copy_state
from state.sqlite.store import Reader as SqliteReader
from state.sqlite.store import Store as SqliteStore
from state.sqlite.store import open_commands, open_reader
from state.sqlite.writer import Inline, Runner
from state.steps import Writer
from state.store import Reader, Store

__all__ = ["Inline", "Runner", "connect_reader", "copy_state", "is_there", "open_commands", "open_reader", "open_state"]


def is_there(place: Path) -> bool:
    """Whether a state was ever begun there."""
    return place.exists()


def connect_reader(place: Path) -> Reader:
    """The state to look at, until it is closed. Raises StateError."""
    return SqliteReader.open(place)


@contextlib.asynccontextmanager
async def open_state(place: Path, *, now: float, runner: Runner | None = None) -> AsyncIterator[tuple[Store, Writer]]:
    """The state for writing, made and migrated where needed, and what runs its steps. Raises StateError.

    The steps run on `runner`, where one is given.
    """
    with sqlite_writer.Writer(runner) as write:
        store = await write(SqliteStore.open, place, now=now)
        write.group = store.group
        try:
            yield store, write
        finally:
            with contextlib.suppress(Unavailable):  # what could not be written is as after a crash: it is done again
                await write.end(store.close)
