"""Reading of the figures of a status: calls in windows, delays of changes, counts of deliveries."""

from __future__ import annotations

from state.sqlite.calls import throttled_until
from state.sqlite.connection import State, read_meta
from state.status import Activity, MeasuredDelay, Retrying, SeenChange, SeenDelay, UnitRow

LATEST = 10_000  # newest events that measured delays consider


class StatusReader:
    """Reads the figures of a status, on a read-only connection."""

    def __init__(self, db: State) -> None:
        self._db = db

    def calls(self, budget: str, *, since: float) -> list[tuple[float, float | None]]:
        """(sent, answered) of the calls that a window beginning at `since` still counts; both are steady seconds."""
        rows = self._db.execute(
            "SELECT sent_at, answered_at FROM calls WHERE budget = ? AND (answered_at IS NULL OR answered_at > ?)",
            [budget, since],
        )
        return [(float(sent), None if answered is None else float(answered)) for sent, answered in rows]

    def throttled_until(self, budget: str) -> float | None:
        """The stored end of the server's pause, in steady seconds; it may be over."""
        return throttled_until(self._db, budget)

    def anchor(self) -> str | None:
        """The clock's anchor as saved with the latest call."""
        return read_meta(self._db, "clock")

    def units(self) -> list[UnitRow]:
        """Every unit, in the order in which they were created."""
        rows = self._db.execute(
            "SELECT e.source, e.name, u.key, u.calls, u.answered_at, u.retry_at "
            "FROM units u JOIN endpoints e ON e.id = u.endpoint ORDER BY u.id"
        )
        names = UnitRow.__struct_fields__
        return [UnitRow(**dict(zip(names, row, strict=True))) for row in rows]

    def learned(self, key: str) -> bytes | None:
        """The value that a planner last saved under `key`."""
        row = self._db.execute("SELECT value FROM learned WHERE key = ?", [key]).fetchone()
        return None if row is None else bytes(row[0])

    def measured_delays(self, *, since: float) -> list[MeasuredDelay]:
        """Measured delays of each endpoint with events since then, among the latest 10,000 events of the log.

        Events are left out if the clock was set between their two times, because the difference is not a delay.
        """
        rows = self._db.execute(
            """
            WITH newest AS (
                SELECT source, subject, type, time, observed_after FROM events ORDER BY seq DESC LIMIT ?1
            ), jumps AS MATERIALIZED (SELECT time FROM newest WHERE type = 'poller.clock.set'
            ), latest AS (
                SELECT source, substr(subject, 1, instr(subject, '/') - 1) AS endpoint,
                    max(0.0, time - observed_after) / 2 AS delay
                FROM newest
                WHERE observed_after IS NOT NULL AND time >= ?2
                    AND NOT EXISTS (SELECT 1 FROM jumps WHERE jumps.time BETWEEN observed_after AND newest.time)
            ), placed AS (
                SELECT source, endpoint, delay,
                    row_number() OVER (PARTITION BY source, endpoint ORDER BY delay) AS place,
                    count(*) OVER (PARTITION BY source, endpoint) AS events
                FROM latest
            )
            SELECT source, endpoint, events, avg(delay), min(CASE WHEN place * 100 >= events * 95 THEN delay END)
            FROM placed GROUP BY source, endpoint, events ORDER BY source, endpoint
            """,
            [LATEST, since],
        )
        return [
            MeasuredDelay(source=source, endpoint=endpoint, events=events, mean=mean, p95=p95)
            for source, endpoint, events, mean, p95 in rows
        ]

    def seen_changes(self) -> list[SeenChange]:
        """Every change in the log with a known `observed_after`, in order."""
        rows = self._db.execute(
            """
            SELECT e.source, e.name, u.key, v.observed_after, v.time
            FROM events v
            JOIN endpoints e
                ON v.source = '/sources/' || e.source AND substr(v.subject, 1, length(e.name) + 1) = e.name || '/'
            LEFT JOIN objects o ON o.endpoint = e.id AND o.object = substr(v.subject, length(e.name) + 2)
            LEFT JOIN units u ON u.id = o.unit
            WHERE v.observed_after IS NOT NULL AND v.observed_after <= v.time ORDER BY v.seq
            """
        )
        names = SeenChange.__struct_fields__
        return [SeenChange(**dict(zip(names, row, strict=True))) for row in rows]

    def seen_delays(self, *, after: int, limit: int) -> list[SeenDelay]:
        """The delays of at most `limit` events of sources after a number of the log, in order."""
        rows = self._db.execute(
            "SELECT seq, substr(source, 10), substr(subject, 1, instr(subject, '/') - 1), time - observed_after "
            "FROM events WHERE seq > ? AND source LIKE '/sources/%' ORDER BY seq LIMIT ?",
            [after, limit],
        )
        return [SeenDelay(seq=seq, source=source, endpoint=name, delay=delay) for seq, source, name, delay in rows]

    def activity(self, *, since: float, width: float) -> list[Activity]:
        """Events of each endpoint by spans of `width` seconds, within the latest 10,000 events of the log."""
        rows = self._db.execute(
            """
            SELECT substr(source, 10), substr(subject, 1, instr(subject, '/') - 1), CAST((time - ?2) / ?3 AS INTEGER),
                count(*)
            FROM (SELECT source, subject, time FROM events ORDER BY seq DESC LIMIT ?1)
            WHERE time >= ?2 AND source LIKE '/sources/%' GROUP BY 1, 2, 3
            """,
            [LATEST, since, width],
        )
        return [Activity(source=source, endpoint=endpoint, span=span, events=n) for source, endpoint, span, n in rows]

    def unit_activity(self, source: str, endpoint: str, *, since: float, width: float) -> list[Activity]:
        """Events of each unit of an endpoint by spans of `width` seconds, within the latest 10,000 of the log."""
        rows = self._db.execute(
            """
            SELECT u.key, CAST((v.time - ?4) / ?5 AS INTEGER), count(*)
            FROM (SELECT source, subject, time FROM events ORDER BY seq DESC LIMIT ?1) v
            LEFT JOIN endpoints e ON e.source = ?2 AND e.name = ?3
            LEFT JOIN objects o ON o.endpoint = e.id AND o.object = substr(v.subject, length(?3) + 2)
            LEFT JOIN units u ON u.id = o.unit
            WHERE v.source = '/sources/' || ?2 AND v.time >= ?4 AND substr(v.subject, 1, length(?3) + 1) = ?3 || '/'
            GROUP BY 1, 2
            """,
            [LATEST, source, endpoint, since, width],
        )
        return [Activity(source=source, endpoint=endpoint, unit=unit, span=span, events=n) for unit, span, n in rows]

    def oldest_waiting(self) -> dict[str, float]:
        """By subscription, since when the oldest undelivered event waits, whether queued or not read yet."""
        rows = self._db.execute(
            """
            SELECT s.name,
                (SELECT min(d.queued_at) FROM deliveries d WHERE d.subscription = s.id AND d.state = 'pending'),
                (SELECT e.time FROM events e WHERE e.seq > s.cursor ORDER BY e.seq LIMIT 1)
            FROM subscriptions s WHERE s.state != 'removed'
            """
        )
        waiting = {name: [since for since in times if since is not None] for name, *times in rows}
        return {name: min(times) for name, times in waiting.items() if times}

    def retrying(self) -> list[Retrying]:
        """Of each subscription, the deliveries that have failed and wait for another attempt."""
        rows = self._db.execute(
            """
            SELECT s.name, count(*), min(max(l.due, coalesce(s.open_until, 0))), d.status
            FROM deliveries d JOIN subscriptions s ON s.id = d.subscription
            JOIN lanes l ON l.subscription = d.subscription AND l.lane = d.lane
            WHERE d.state = 'pending' AND d.attempts > 0 AND s.state != 'removed' GROUP BY s.name ORDER BY s.name
            """  # a bare column is of the row with the minimum
        )
        return [
            Retrying(subscription=name, deliveries=deliveries, next=due, status=status or "")
            for name, deliveries, due, status in rows
        ]
