"""The open tables of a database: JSON is text in them, and times are ISO 8601."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from state.postgres.connection import Database
from state.tables import Table, TablePage, number


def _iso(column: str) -> str:
    return f"to_char(to_timestamp({column}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"


_DATA: Final = "convert_from(e.data, 'UTF8')"
_PRESENCE: Final = "CASE o.presence WHEN 0 THEN 'present' WHEN 1 THEN 'suspect' ELSE 'deleted' END"
_DUE: Final = "CASE d.state WHEN 'pending' THEN greatest(l.due, d.queued_at, coalesce(s.open_until, 0)) END"

TABLES: Final[Mapping[str, Table]] = {
    "events": Table(
        columns=(
            ("sequence", "e.seq"),
            ("id", "e.id"),
            ("time", _iso("e.time")),
            ("observedafter", _iso("e.observed_after")),
            ("source", "e.source"),
            ("type", "e.type"),
            ("subject", "e.subject"),
            ("version", f"({_DATA}::json ->> 'version')::bigint"),
            ("data", _DATA),
        ),
        rows="events e",
        keys=(("e.seq", number),),
    ),
    "changes": Table(
        columns=(
            ("sequence", "e.seq"),
            ("time", _iso("e.time")),
            ("source", "e.source"),
            ("type", "e.type"),
            ("subject", "e.subject"),
            ("path", "c.value ->> 'path'"),
            ("before", "(c.value -> 'before')::text"),
            ("after", "(c.value -> 'after')::text"),
        ),
        rows=(
            f"events e CROSS JOIN LATERAL json_array_elements({_DATA}::json -> 'changes') "
            "WITH ORDINALITY AS c (value, place)"
        ),
        keys=(("e.seq", number), ("c.place", number)),
    ),
    "objects": Table(
        columns=(
            ("source", "p.source"),
            ("endpoint", "p.name"),
            ("id", "o.object"),
            ("version", "o.version"),
            ("presence", _PRESENCE),
            ("unlisted", "o.unlisted::int"),
            ("seen_at", _iso("greatest(o.seen_at, coalesce(u.asked_at, 0))")),
            ("object", "convert_from(o.body, 'UTF8')"),
        ),
        rows="objects o JOIN endpoints p ON p.id = o.endpoint LEFT JOIN units u ON u.id = o.unit",
        keys=(("o.endpoint", number), ("o.object", str)),
    ),
    "deliveries": Table(
        columns=(
            ("id", "d.id"),
            ("subscription", "s.name"),
            ("sequence", "d.seq"),
            ("type", "e.type"),
            ("subject", "e.subject"),
            ("origin", "d.origin"),
            ("state", "d.state"),
            ("attempts", "d.attempts"),
            ("status", "d.status"),
            ("queued_at", _iso("d.queued_at")),
            ("due", _iso(_DUE)),
            ("finished_at", _iso("d.finished_at")),
        ),
        rows=(
            "deliveries d JOIN subscriptions s ON s.id = d.subscription LEFT JOIN events e ON e.seq = d.seq "
            "LEFT JOIN lanes l ON l.subscription = d.subscription AND l.lane = d.lane"
        ),
        keys=(("d.id", number),),
    ),
    "polls": Table(
        columns=(
            ("source", "p.source"),
            ("endpoint", "p.name"),
            ("unit", "u.key"),
            ("asked_at", _iso("u.asked_at")),
            ("answered_at", _iso("u.answered_at")),
            ("objects", "u.shown"),
            ("calls", "u.calls"),
            ("failures", "u.failures"),
            ("retry_at", _iso("u.retry_at")),
            ("error", "u.error"),
        ),
        rows="units u JOIN endpoints p ON p.id = u.endpoint",
        keys=(("u.id", number),),
    ),
}


class Tables:
    """The open tables of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """At most `limit` rows of a table after a place. Raises PollerError for what is not a place."""
        table = TABLES[name]
        query, values = table.page(after, lambda place: f"${place}")
        return table.paged(self._db.run(query, [*values, limit]), limit)
