"""Calls of the budgets: written down before they are sent.

Steady time belongs to a worker, so calls are stored in the database's time. A worker converts them into its own steady
time when it reads them, whatever the clocks of two machines say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from state.leases import Lease
from state.polls import UnitTimes
from state.postgres.connection import NOW, Connection, Database, transaction
from state.postgres.leases import check
from state.postgres.recording import write_times
from state.postgres.throttles import throttle, throttled_until

ON_ITS_WAY: Final = 1.0  # seconds for which a call of a lost worker may still be in flight

# Answers by their ids: ($1, $2), at steady times of a worker whose own time is now $3.
ANSWER: Final = (
    f"UPDATE calls SET answered_at = {NOW} - ($3::float8 - at) FROM unnest($1::bigint[], $2::float8[]) AS a (id, at) "
    "WHERE calls.id = a.id"
)


class Calls:
    """The calls of every budget. Times are steady seconds, see `poller.clock`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def spend(
        self,
        lease: Lease,
        at: float,
        *,
        answers: Iterable[tuple[int, float]] = (),
        unchanged: Iterable[UnitTimes] = (),
        anchor: str = "",  # noqa: ARG002 - steady time goes on by the database's clock
    ) -> int:
        """Write one call down, durably, with the answers and unchanged units known so far. Returns the call's id.

        Raises LeaseLost if another worker owns the budget now: then the call must not be sent.
        """
        with transaction(self._db) as conn:
            check(conn, lease)
            write_times(conn, unchanged)
            _write_answers(conn, list(answers), at)
            made = conn.run(f"INSERT INTO calls (budget, sent_at) VALUES ($1, {NOW}) RETURNING id", [lease.subject])
        [id_] = made.fetchone() or ()
        return int(id_)

    def answered(self, answers: Iterable[tuple[int, float]]) -> None:
        """Note answers without a call (at the end of a run); the latest of them counts as just arrived."""
        given = list(answers)
        if given:
            with transaction(self._db) as conn:
                _write_answers(conn, given, max(at for _, at in given))

    def restore(self, budget: str, *, since: float, now: float) -> Sequence[tuple[float, float]]:
        """(sent, answered) of the calls answered after `since`; calls that a crash left unanswered count from `now`."""
        with transaction(self._db) as conn:
            _forget(conn, budget, now - since)
            conn.run(
                f"UPDATE calls SET answered_at = {NOW} + $2::float8 WHERE budget = $1 AND answered_at IS NULL",
                [budget, ON_ITS_WAY],
            )
            rows = conn.run(
                f"SELECT $2::float8 - ({NOW} - sent_at), $2::float8 - ({NOW} - answered_at) FROM calls "
                "WHERE budget = $1 ORDER BY answered_at",
                [budget, now],
            )
            return [(float(sent), float(answered)) for sent, answered in rows]

    def throttle(self, budget: str, until: float) -> None:
        """Store until when the server wants no call."""
        with transaction(self._db) as conn:
            throttle(conn, budget, until)

    def throttled_until(self, budget: str) -> float | None:
        """The stored end of the server's pause, which may be over."""
        return throttled_until(self._db, budget)

    def forget(self, budget: str, *, before: float) -> None:
        """Delete calls that no window counts any more."""
        self._db.run("DELETE FROM calls WHERE budget = $1 AND answered_at < $2::float8", [budget, before])

    def anchor(self) -> str | None:
        """None: steady time begins at the database's time."""
        return None


def _write_answers(conn: Connection, answers: Sequence[tuple[int, float]], now: float) -> None:
    if answers:
        conn.run(ANSWER, [[id_ for id_, _ in answers], [at for _, at in answers], now])


def _forget(conn: Connection, budget: str, seconds: float) -> None:
    conn.run(f"DELETE FROM calls WHERE budget = $1 AND answered_at < {NOW} - $2::float8", [budget, seconds])
