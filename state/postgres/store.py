"""One open PostgreSQL database: everything that writes it, or everything that only reads it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Self

import msgspec

from state.errors import StateError
from state.postgres.calls import Calls
from state.postgres.commands import Commands
from state.postgres.connection import Database, Looking, probe, refuse_pooled, translating
from state.postgres.dispatch import Deliveries
from state.postgres.events import Log
from state.postgres.learned import Learned
from state.postgres.leases import LeaseTable
from state.postgres.names import Names
from state.postgres.notices import Notices
from state.postgres.polls import Polls
from state.postgres.read_deliveries import DeliveryReader
from state.postgres.read_polls import PollReader
from state.postgres.read_status import StatusReader
from state.postgres.schema import check, is_begun, migrate, refuse_moved
from state.postgres.tables import Tables
from state.postgres.time import DatabaseTime
from state.status import Restored


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """One open state. Each thread that calls a step has a connection of its own."""

    db: Database
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
    time: DatabaseTime

    @classmethod
    def open(cls, url: str) -> Self:
        """Open the state for writing; it is created and migrated if needed. Raises StateError."""
        db = Database(url)
        with _closed_if_refused(db):
            refuse_pooled(url)
            migrate(db)
            _refuse_moved(db)
        clock = DatabaseTime(db)
        return cls(
            db=db,
            calls=Calls(db),
            polls=Polls(db),
            poll_reader=PollReader(db),
            learned=Learned(db),
            log=Log(db),
            deliveries=Deliveries(db),
            delivery_reader=DeliveryReader(db),
            leases=LeaseTable(db, clock),
            notices=Notices(db),
            commands=Commands(db),
            time=clock,
        )

    @property
    def names(self) -> Names:
        """Renaming and deleting stored data."""
        return Names(self.db)

    @property
    def is_shared(self) -> bool:
        """True: every worker owns what it has leased."""
        return True

    def wall(self) -> float:
        """Unix seconds of the database's clock."""
        return self.time()

    def rewind(self, *, now: float, by: float = 0.0) -> float:  # noqa: ARG002 - see `PollingStore`
        """Does nothing: every worker uses the database's clock, and none moves the times of the others."""
        return 0.0

    def probe(self) -> None:
        """Write something on new connections, and delete it again. Raises the error that prevents writing the state."""
        self.db.renew()
        probe(self.db)

    def close(self) -> None:
        """Close every connection."""
        self.db.close()


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that only reads."""

    db: Database
    log: Log
    polls: PollReader
    deliveries: DeliveryReader
    sums: StatusReader
    leases: LeaseTable

    @classmethod
    def open(cls, url: str) -> Self:
        """Open the state for reading, beside the workers. Raises StateError."""
        db = Looking(url, read_only=True)
        with _closed_if_refused(db):
            refuse_pooled(url)
            check(db)
            _refuse_moved(db)
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
        """None: PostgreSQL checks its files itself (`pg_amcheck` reads all of them)."""
        return None

    def restored(self) -> Restored | None:
        """None: a restored database is recognised by its log, whose end is missing."""
        return None

    def close(self) -> None:
        """Close every connection."""
        self.db.close()


def _refuse_moved(db: Database) -> None:
    """Raise StateError, and close the connections, if the state was moved elsewhere or is being moved."""
    try:
        refuse_moved(db)
    except StateError:
        db.close()
        raise


@contextlib.contextmanager
def _closed_if_refused(db: Database) -> Iterator[None]:
    """Raise StateError for psycopg's errors in the block, and close every connection then."""
    try:
        with translating():
            yield
    except BaseException:
        db.close()
        raise


def is_there(url: str) -> bool:
    """Whether the database has a state. Raises StateError."""
    db = Looking(url, read_only=True)
    try:
        with translating():
            return is_begun(db)
    finally:
        db.close()
