"""Opens a state by its place. Only this module knows which stores exist."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from state.errors import StateError, Unavailable
from state.lock import StateLock
from state.place import DatabaseUrl, Place
from state.sqlite.backup import copy_state
from state.sqlite.connection import refuse_old_sqlite
from state.sqlite.runner import Inline, Runner
from state.sqlite.store import SCHEMA
from state.sqlite.store import Reader as SqliteReader
from state.sqlite.store import Store as SqliteStore
from state.sqlite.store import open_commands as open_commands_of_file
from state.sqlite.store import open_reader as open_reader_of_file
from state.store import PostedCommands, Reader, Store

if TYPE_CHECKING:
    from state.move import Side
    from state.steps import Writer

__all__ = [
    "Inline",
    "Runner",
    "connect_reader",
    "copy_state",
    "held",
    "holder",
    "is_there",
    "open_commands",
    "open_reader",
    "open_side",
    "open_state",
    "refuse_old_sqlite",
]


def is_there(place: Place) -> bool:
    """Whether there is a state at this place. Raises StateError."""
    if isinstance(place, Path):
        return place.exists()
    with _installed():
        from state.postgres.store import is_there as is_there_in_database
    return is_there_in_database(place.url)


def holder(place: Place) -> str | None:
    """The process or workers that run on the state; None if none does. Raises StateError."""
    if isinstance(place, Path):
        pid = StateLock(place).holder()
        return None if pid is None else f"process {pid}"
    if not is_there(place):
        return None
    with open_reader(place) as reader:
        workers = reader.leases.shares().workers
    return f"workers {', '.join(worker.name for worker in workers)}" if workers else None


@contextlib.contextmanager
def held(place: Place) -> Iterator[TextIO | None]:
    """Hold a file exclusively, by a lock on this open file. Raises Held if another process does. On a database, leases
    replace this.
    """
    if isinstance(place, DatabaseUrl):
        yield None
        return
    with StateLock(place).held() as lock:
        yield lock


def connect_reader(place: Place) -> Reader:
    """A reader of the state, which the caller closes. Raises StateError."""
    if isinstance(place, Path):
        return SqliteReader.open(place)
    with _installed():
        from state.postgres.store import Reader as PostgresReader
    return PostgresReader.open(place.url)


@contextlib.contextmanager
def open_reader(place: Place) -> Iterator[Reader]:
    """A reader of the state. Any error of any read is raised as StateError."""
    if isinstance(place, Path):
        with open_reader_of_file(place) as reader:
            yield reader
        return
    with contextlib.closing(connect_reader(place)) as found:
        yield found


@contextlib.contextmanager
def open_commands(place: Place) -> Iterator[PostedCommands]:
    """The commands posted to the process that runs on the state, to post another one. Raises StateError."""
    if isinstance(place, Path):
        with open_commands_of_file(place) as commands:
            yield commands
        return
    with _installed():
        from state.postgres.store import Store as PostgresStore
    with contextlib.closing(PostgresStore.open(place.url)) as store:
        yield store.commands


@contextlib.asynccontextmanager
async def open_state(place: Place, *, now: float, runner: Runner | None = None) -> AsyncIterator[tuple[Store, Writer]]:
    """The state for writing, created and migrated if needed, and the runner of its steps. Raises StateError.

    The steps on a file run on `runner`, if given.
    """
    if isinstance(place, DatabaseUrl):
        async with _open_database(place.url) as opened:
            yield opened
        return
    from state.sqlite.writer import Writer as FileWriter  # readers need neither threads nor asyncio

    with FileWriter(runner) as write:
        store = await write(SqliteStore.open, place, now=now)
        write.share_commits(store.group)
        try:
            yield store, write
        finally:
            with contextlib.suppress(Unavailable):  # unwritten steps are lost as in a crash, and repeated
                await write.end(store.close)


@contextlib.asynccontextmanager
async def _open_database(url: str) -> AsyncIterator[tuple[Store, Writer]]:
    with _installed():
        from state.postgres.store import Store as PostgresStore
        from state.postgres.writer import Writer as PostgresWriter
    write = PostgresWriter(url)
    try:
        store = await write(PostgresStore.open, url)
    except BaseException:
        await write.end(lambda: None)
        raise
    try:
        yield store, write
    finally:
        with contextlib.suppress(Unavailable):
            await write.end(store.close)


@contextlib.contextmanager
def open_side(place: Place) -> Iterator[Side]:
    """The state as one side of a move, created if needed, and held. Raises StateError, and Held."""
    if isinstance(place, Path):
        from state.sqlite.move import opened as opened_file

        with StateLock(place).held(), opened_file(place, sets=SCHEMA) as file:
            yield file
        return
    with _installed():
        from state.postgres.move import opened as opened_database
    with opened_database(place.url) as database:
        yield database


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise StateError(
            f"the state is a PostgreSQL database, and {error.name} is not installed",
            hint="pip install 'poller[postgres]'",
        ) from error
