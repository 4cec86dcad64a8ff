"""The event log: appended at the end of the transaction that records the change, read in order of `seq`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Final

from state.postgres.connection import Connection, Database, read_meta, transaction, write_meta
from state.records import Event, EventQuery, NewEvent
from state.rows import EVENT, event_of

_WILD: Final = {"*": ".*", "?": "."}
_SPECIAL: Final = frozenset(".^$*+?()[]{}|\\")


# Advances the log's counter by $1 and appends the events under these numbers, in order; an existing id is not repeated.
APPEND: Final = """
WITH counter AS (UPDATE log SET last = last + $1 RETURNING last - $1 AS before)
INSERT INTO events (seq, id, source, type, subject, time, observed_after, data)
SELECT before + place, id, source, type, subject, time, observed_after, data
FROM counter, unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::float8[], $8::bytea[])
    WITH ORDINALITY AS new (id, source, type, subject, time, observed_after, data, place)
ORDER BY place ON CONFLICT DO NOTHING RETURNING seq
"""


def append(conn: Connection, events: Sequence[NewEvent]) -> list[int]:
    """Append within the caller's transaction and return the new numbers. An id that exists is not repeated.

    The counter is locked from here to the commit: this comes last in every step. `lock_log` may have locked it before.
    """
    if not events:
        return []
    rows = conn.run(
        APPEND,
        [
            len(events),
            [one.id for one in events],
            [one.source for one in events],
            [one.type for one in events],
            [one.subject for one in events],
            [one.time for one in events],
            [one.observed_after for one in events],
            [one.raw for one in events],
        ],
    )
    conn.run("NOTIFY poller_log")
    return [seq for (seq,) in rows]


def lock_log(conn: Connection) -> None:
    """Lock the log's counter before reading values that it protects.

    The table of events, although nothing is read from it, is locked first, as it is where events are appended: a change
    of partitions locks in the same order.
    """
    conn.run("SELECT last FROM log WHERE NOT EXISTS (SELECT 1 FROM events WHERE false) FOR UPDATE")


def regex_of(glob: str) -> str:
    """A glob of SQLite as a regular expression of PostgreSQL; an incomplete one matches nothing."""
    found, place = "^", 0
    while place < len(glob):
        sign, place = glob[place], place + 1
        if sign == "[":
            end = glob.find("]", place + 1 + glob.startswith("^", place))
            if end < 0:
                return "^(?!)"
            found += f"[{_escaped_class(glob[place:end])}]"
            place = end + 1
        else:
            found += _WILD.get(sign) or (f"\\{sign}" if sign in _SPECIAL else sign)
    return f"{found}$"


def _escaped_class(signs: str) -> str:
    """The text between brackets: only a backslash and an opening bracket have another meaning."""
    return signs.replace("\\", "\\\\").replace("[", "\\[")


def is_glob(text: str | None) -> bool:
    """Whether a text is a pattern rather than a name."""
    return text is not None and any(mark in text for mark in "*?[")


def _conditions(query: EventQuery) -> tuple[str, list[object]]:
    """A query as SQL, and its values."""
    subject = regex_of(query.subject) if query.subject is not None and is_glob(query.subject) else query.subject
    given: list[tuple[str, object]] = [
        ("seq >", query.after),
        ("seq <", query.before),
        ("type ~", None if query.type_glob is None else regex_of(query.type_glob)),
        ("source =", query.source_uri),
        ("subject ~" if is_glob(query.subject) else "subject =", subject),
    ]
    wanted = [(condition, value) for condition, value in given if value is not None]
    text = " AND ".join(f"{condition} ${place}" for place, (condition, _) in enumerate(wanted, start=1))
    return text, [value for _, value in wanted]


class Log:
    """The event log of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def id(self) -> str:
        """The id of this log: a number of another log means nothing here."""
        return read_meta(self._db, "log_id") or ""

    def begin_anew_if_cut(self, known: int) -> int | None:
        """Give the log a new id if it ends before number `known`, which was in it, and return its last number.

        The database is then a replica that had not received everything, or a restored backup: numbers will be assigned
        again, to other events, and a cursor of the previous log is meaningless.
        """
        with transaction(self._db) as conn:
            last = int(conn.value("SELECT last FROM log FOR UPDATE"))
            if last >= known:
                return None
            write_meta(conn, "log_id", secrets.token_hex(8))
            return last

    def append(self, events: Iterable[NewEvent]) -> list[int]:
        """Append in a separate transaction (operational events)."""
        with transaction(self._db) as conn:
            return append(conn, list(events))

    def read(
        self, *, after: int = 0, limit: int = 1000, type_glob: str | None = None, source: str | None = None
    ) -> list[Event]:
        """At most `limit` events after number `after`, in order. `source` is a source's name."""
        return self.find(EventQuery(after=after, type_glob=type_glob, source=source), limit=limit)

    def find(
        self, query: EventQuery, *, limit: int, newest: bool = False, most_bytes: int | None = None
    ) -> list[Event]:
        """At most `limit` events in order, the first ones or the newest ones.

        Stops early, after the event with which their data reaches `most_bytes`.
        """
        where, values = _conditions(query)
        order = "DESC" if newest else "ASC"
        rows = self._db.run(
            f"SELECT {EVENT} FROM (SELECT *, sum(length(data)) OVER (ORDER BY seq {order} ROWS BETWEEN UNBOUNDED "
            f"PRECEDING AND 1 PRECEDING) AS size FROM events WHERE {where} ORDER BY seq {order} LIMIT "
            f"${len(values) + 1}) found WHERE coalesce(size, 0) < ${len(values) + 2}::numeric ORDER BY seq {order}",
            [*values, limit, 2**62 if most_bytes is None else most_bytes],
        )
        found = [event_of(row) for row in rows]
        return found[::-1] if newest else found

    def types(self, *, limit: int = 20) -> list[str]:
        """Some of the types in the log."""
        rows = self._db.run("SELECT DISTINCT type FROM events ORDER BY type LIMIT $1", [limit])
        return [str(row[0]) for row in rows]

    def event(self, seq: int) -> Event | None:
        """The event with that number, or None (never assigned, or purged)."""
        row = self._db.row(f"SELECT {EVENT} FROM events WHERE seq = $1", [seq]) if abs(seq) < 2**63 else None
        return None if row is None else event_of(row)

    def history(self, source: str, subject: str, *, limit: int = 100) -> list[Event]:
        """The latest events of one object, oldest first."""
        rows = self._db.run(
            f"SELECT {EVENT} FROM events WHERE subject = $1 AND source = $2 ORDER BY seq DESC LIMIT $3",
            [subject, f"/sources/{source}", limit],
        ).fetchall()
        return [event_of(row) for row in reversed(rows)]

    def first_seq(self) -> int:
        """The number of the oldest stored event; 0 if there is none."""
        return int(self._db.value("SELECT coalesce(min(seq), 0) FROM events"))

    def last_seq(self) -> int:
        """The highest number ever assigned; 0 before the first event."""
        return int(self._db.value("SELECT last FROM log"))

    def newest_time(self) -> float | None:
        """The time of the newest event, whatever later time an older one has; None if there are none."""
        latest = self._db.value("SELECT time FROM events ORDER BY seq DESC LIMIT 1")
        return None if latest is None else float(latest)

    def seq_at(self, time: float) -> int:
        """The number after which to read for the events recorded from `time` on."""
        first = self._db.value("SELECT min(seq) FROM events WHERE time >= $1::float8", [time])
        return self.last_seq() if first is None else int(first) - 1
