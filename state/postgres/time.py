"""The time of the database, which a worker computes without asking each time."""

from __future__ import annotations

import time

from state.postgres.connection import NOW, Database


class DatabaseTime:
    """Unix seconds of the database's clock: this machine's clock plus the difference that was measured last."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ahead = 0.0  # seconds by which the database's clock is ahead of this machine's
        self.ask()

    def __call__(self) -> float:
        return time.time() + self._ahead

    def ask(self) -> None:
        """Ask the database."""
        before = time.time()
        self.heard(float(self._db.value(f"SELECT {NOW}")), before)

    def heard(self, now: float, before: float) -> None:
        """Use a time that the database has just reported; it was asked at `before`, by this machine.

        An answer that took long is inaccurate: its error is half the round trip.
        """
        after = time.time()
        if after - before < 1.0:
            self._ahead = now - (before + after) / 2
