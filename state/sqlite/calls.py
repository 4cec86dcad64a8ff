"""Calls of the budgets: written down, and synced, before they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from state.leases import Lease
from state.polls import UnitTimes
from state.sqlite.connection import State, read_meta, transaction, write_meta
from state.sqlite.leases import check
from state.sqlite.migrations import Migrations
from state.sqlite.units import write_times

if TYPE_CHECKING:
    from sqlite_utils import Database

calls_migrations = Migrations("calls")


@calls_migrations()
def create_calls(db: Database) -> None:
    db.executescript(
        """
        CREATE TABLE calls (
            id INTEGER PRIMARY KEY,
            budget TEXT NOT NULL,
            sent_at REAL NOT NULL,
            answered_at REAL
        );
        CREATE INDEX calls_budget ON calls (budget, sent_at);
        CREATE INDEX calls_unanswered ON calls (budget) WHERE answered_at IS NULL;
        """
    )


class Calls:
    """The calls of every budget. Times are steady seconds, see `poller.clock`."""

    def __init__(self, db: State) -> None:
        self._db = db

    def spend(
        self,
        lease: Lease,
        at: float,
        *,
        answers: Iterable[tuple[int, float]] = (),
        unchanged: Iterable[UnitTimes] = (),
        anchor: str = "",
    ) -> int:
        """Write one call down, durably, with the answers and unchanged units known so far. Returns the call's id.

        Raises LeaseLost if another worker owns the budget now: then the call must not be sent. `anchor` is the clock's,
        so that time continues from here after a restart, whatever the wall clock says then.
        """
        with transaction(self._db) as conn:
            check(conn, lease)
            write_times(conn, unchanged)
            conn.executemany("UPDATE calls SET answered_at = ? WHERE id = ?", [(at, id_) for id_, at in answers])
            if anchor:
                write_meta(conn, "clock", anchor)
            row = conn.execute(
                "INSERT INTO calls (budget, sent_at) VALUES (?, ?) RETURNING id", [lease.subject, at]
            ).fetchone()
            return int(row[0])

    def answered(self, answers: Iterable[tuple[int, float]]) -> None:
        """Note answers without a call (at the end of a run)."""
        with transaction(self._db) as conn:
            conn.executemany("UPDATE calls SET answered_at = ? WHERE id = ?", [(at, id_) for id_, at in answers])

    def restore(self, budget: str, *, since: float, now: float) -> Sequence[tuple[float, float]]:
        """(sent, answered) of the calls answered after `since`; calls that a crash left unanswered count from `now`."""
        with transaction(self._db) as conn:
            conn.execute("DELETE FROM calls WHERE budget = ? AND answered_at < ?", [budget, since])
            conn.execute("UPDATE calls SET answered_at = ? WHERE budget = ? AND answered_at IS NULL", [now, budget])
            rows = conn.execute(
                "SELECT sent_at, answered_at FROM calls WHERE budget = ? ORDER BY answered_at", [budget]
            )
            return [(float(sent), float(answered)) for sent, answered in rows]

    def throttle(self, budget: str, until: float) -> None:
        """Store until when the server wants no call."""
        with transaction(self._db) as conn:
            write_meta(conn, _throttled(budget), repr(until))

    def throttled_until(self, budget: str) -> float | None:
        """The stored end of the server's pause, which may be over."""
        return throttled_until(self._db, budget)

    def forget(self, budget: str, *, before: float) -> None:
        """Delete calls that no window counts any more."""
        with transaction(self._db) as conn:
            conn.execute("DELETE FROM calls WHERE budget = ? AND answered_at < ?", [budget, before])

    def anchor(self) -> str | None:
        """The clock's anchor as saved with the latest call."""
        return read_meta(self._db, "clock")


def throttled_until(db: State, budget: str) -> float | None:
    """The end of the pause as `Calls.throttle` stored it."""
    text = read_meta(db, _throttled(budget))
    return None if text is None else float(text)


def _throttled(budget: str) -> str:
    return f"throttled {budget}"
