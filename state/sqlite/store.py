"""One open state file: everything that writes it, or everything that only reads it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from state.errors import StateError
from state.move import refusal
from state.sqlite.backup import begin_anew, restored
from state.sqlite.calls import Calls, calls_migrations
from state.sqlite.commands import Commands, command_migrations
from state.sqlite.connection import Group, State, open_database, probe, transaction
from state.sqlite.dispatch import Deliveries
from state.sqlite.events import Log, log_migrations
from state.sqlite.learned import Learned
from state.sqlite.leases import LeaseTable, lease_migrations
from state.sqlite.names import Names
from state.sqlite.notices import Notices, notice_migrations
from state.sqlite.polls import Polls, polls_migrations
from state.sqlite.read_deliveries import DeliveryReader
from state.sqlite.read_polls import PollReader
from state.sqlite.read_status import StatusReader
from state.sqlite.rewind import rewind
from state.sqlite.schema import delivery_migrations
from state.sqlite.views import Tables, create_views
from state.status import Restored

SCHEMA: Final = (
    calls_migrations,
    log_migrations,
    polls_migrations,
    delivery_migrations,
    command_migrations,
    notice_migrations,
    lease_migrations,
)


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """One open state. Methods that write are called only on the store's thread."""

    db: State
    group: Group
    calls: Calls
    polls: Polls
    poll_reader: PollReader
    learned: Learned
    log: Log
    deliveries: Deliveries
    delivery_reader: DeliveryReader
    leases: LeaseTable
    notices: Notices
    commands: Commands

    @classmethod
    def open(cls, path: Path, *, now: float) -> Self:
        """Open the state for writing, created and migrated if needed. A backup becomes a new log. Raises StateError."""
        db = open_database(path, sets=SCHEMA)
        begin_anew(db, now=now)
        create_views(db)
        _refuse_moved(db, path)
        return cls(
            db=db,
            group=Group(db),
            calls=Calls(db),
            polls=Polls(db),
            poll_reader=PollReader(db),
            learned=Learned(db),
            log=Log(db),
            deliveries=Deliveries(db),
            delivery_reader=DeliveryReader(db),
            leases=LeaseTable(db),
            notices=Notices(db),
            commands=Commands(db),
        )

    def rewind(self, *, now: float, by: float = 0.0) -> float:
        """Move back times written by a clock ahead of `now`, at least by `by`. Returns the seconds, 0.0 or less."""
        with transaction(self.db) as conn:
            return rewind(conn, now, by)

    @property
    def names(self) -> Names:
        """Renaming and deleting stored data."""
        return Names(self.db)

    @property
    def is_shared(self) -> bool:
        """False: the process that runs on a file holds its lock."""
        return False

    def wall(self) -> float:
        """Unix seconds of the machine's clock."""
        return time.time()

    def probe(self) -> None:
        """Write something, and delete it again. Raises the error that prevents writing the state."""
        probe(self.db)

    def close(self) -> None:
        """Close the file."""
        self.db.close()


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that only reads, on one connection."""

    db: State
    log: Log
    polls: PollReader
    deliveries: DeliveryReader
    sums: StatusReader
    leases: LeaseTable

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the state for reading, also beside a daemon. Raises StateError."""
        db = open_database(path, sets=SCHEMA, read_only=True)
        _refuse_moved(db, path)
        return cls(
            db=db,
            log=Log(db),
            polls=PollReader(db),
            deliveries=DeliveryReader(db),
            sums=StatusReader(db),
            leases=LeaseTable(db),
        )

    @property
    def tables(self) -> Tables:
        """The open tables."""
        return Tables(self.db)

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file, which is read completely; None if it is intact."""
        try:
            found = [str(row[0]) for row in self.db.execute("PRAGMA quick_check(3)")]
        except sqlite3.DatabaseError as error:
            return str(error)
        return None if found == ["ok"] else "; ".join(found)

    def restored(self) -> Restored | None:
        """The copy from which this state began; None if it began from none, or is a copy that was never used."""
        return restored(self.db)

    def close(self) -> None:
        """Close the file."""
        self.db.close()


@contextlib.contextmanager
def open_reader(path: Path) -> Iterator[Reader]:
    """A reader of the state, on a read-only connection. SQLite's errors are raised as StateError by every read."""
    reader = Reader.open(path)
    try:
        yield reader
    except sqlite3.Error as error:
        raise StateError(f"{path}: cannot be read: {error}", hint="poller doctor checks it") from error
    finally:
        reader.close()


@contextlib.contextmanager
def open_commands(path: Path) -> Iterator[Commands]:
    """The commands posted to the daemon, to post another one. Raises StateError."""
    db = open_database(path, sets=SCHEMA)
    _refuse_moved(db, path)
    try:
        yield Commands(db)
    finally:
        db.close()


def _refuse_moved(db: State, path: Path) -> None:
    """Raise StateError, and close the file, if the state was moved elsewhere or its move here is not complete."""
    if error := refusal(dict(db.execute("SELECT key, value FROM meta").fetchall()), str(path)):
        db.close()
        raise error
