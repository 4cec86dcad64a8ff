"""Views for whoever opens the state file with other tools: JSON is text in them, and times are ISO 8601."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlite_utils import Database

from state.sqlite.connection import State, transaction
from state.tables import Table, TablePage, number


def _iso(column: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column}, 'unixepoch')"


_DATA: Final = "CAST(e.data AS TEXT)"
_PRESENCE: Final = "CASE o.presence WHEN 0 THEN 'present' WHEN 1 THEN 'suspect' ELSE 'deleted' END"
_DUE: Final = "CASE d.state WHEN 'pending' THEN max(l.due, d.queued_at, coalesce(s.open_until, 0)) END"

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
            ("version", f"{_DATA} ->> '$.version'"),
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
            ("path", "c.value ->> '$.path'"),
            ("before", "c.value -> '$.before'"),
            ("after", "c.value -> '$.after'"),
        ),
        rows=f"events e JOIN json_each({_DATA}, '$.changes') c",
        keys=(("e.seq", number), ("c.key", number)),
    ),
    "objects": Table(
        columns=(
            ("source", "p.source"),
            ("endpoint", "p.name"),
            ("id", "o.object"),
            ("version", "o.version"),
            ("presence", _PRESENCE),
            ("unlisted", "o.unlisted"),
            ("seen_at", _iso("max(o.seen_at, coalesce(u.asked_at, 0))")),
            ("object", "CAST(o.body AS TEXT)"),
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
VIEWS: Final = {  # those with the name of a table are views of it
    f"{name}_view" if name in ("events", "objects", "deliveries") else name: table.selected
    for name, table in TABLES.items()
}


def create_views(db: State) -> None:
    """Make the views what they are in this version, where they differ."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'view'"
    there = dict(db.execute(query).fetchall())
    wanted = {name: f"CREATE VIEW {name} AS {sql}" for name, sql in VIEWS.items()}
    if all(there.get(name) == sql for name, sql in wanted.items()):
        return
    with transaction(db) as conn:
        for name, sql in wanted.items():
            conn.execute(f"DROP VIEW IF EXISTS {name}")
            conn.execute(sql)


class Tables:
    """The open tables of one state file."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """At most `limit` rows of a table after a place. Raises PollerError for what is not a place."""
        table = TABLES[name]
        query, values = table.page(after, lambda place: f"?{place}")
        return table.paged(self._db.execute(query, [*values, limit]), limit)
