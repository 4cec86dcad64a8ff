"""Everything that is kept, opened together: the state as the engine uses it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlite_utils import Database

from state.sqlite.calls import Calls, calls_migrations
from state.sqlite.commands import command_migrations
from state.sqlite.database import open_database, transaction
from state.sqlite.deliveries import Deliveries, delivery_migrations
from state.sqlite.delivery_reader import DeliveryReader
from state.sqlite.learned import Learned
from state.sqlite.log import Log, log_migrations
from state.sqlite.poll_reader import PollReader
from state.sqlite.polls import Polls, polls_migrations


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One open state. What writes is called on the store's thread alone."""

    db: Database
    calls: Calls
    polls: Polls
    poll_reader: PollReader
    learned: Learned
    log: Log
    deliveries: Deliveries
    delivery_reader: DeliveryReader

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the state for writing, made and migrated where needed. Raises StateError."""
        sets = (calls_migrations, log_migrations, polls_migrations, delivery_migrations, command_migrations)
        db = open_database(path, sets=sets)
        return cls(
            db=db,
            calls=Calls(db),
            polls=Polls(db),
            poll_reader=PollReader(db),
            learned=Learned(db),
            log=Log(db),
            deliveries=Deliveries(db),
            delivery_reader=DeliveryReader(db),
        )

    def together(self) -> AbstractContextManager[object]:
        """One transaction around several steps: they share its commit."""
        return transaction(self.db)

    def close(self) -> None:
        """Close the file."""
        self.db.close()
