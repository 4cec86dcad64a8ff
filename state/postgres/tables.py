"""The open tables of a database: JSON is text in them, and times are ISO 8601."""

from __future__ import annotations

from typing import Final

from state.postgres.connection import Database
from state.tables import Dialect, TablePage, open_tables

_DATA: Final = "convert_from(e.data, 'UTF8')"
TABLES: Final = open_tables(
    Dialect(
        iso=lambda column: f"to_char(to_timestamp({column}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
        text=lambda column: f"convert_from({column}, 'UTF8')",
        latest=lambda *values: f"greatest({', '.join(values)})",
        version=f"({_DATA}::json ->> 'version')::bigint",
        changes=(
            f"CROSS JOIN LATERAL json_array_elements({_DATA}::json -> 'changes') WITH ORDINALITY AS c (value, place)"
        ),
        place="c.place",
        path="c.value ->> 'path'",
        before="(c.value -> 'before')::text",
        after="(c.value -> 'after')::text",
        unlisted="o.unlisted::int",
    )
)


class Tables:
    """The open tables of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """At most `limit` rows of a table after a position. Raises PollerError for an invalid position."""
        table = TABLES[name]
        query, values = table.page(after, lambda place: f"${place}")
        return table.paged(self._db.run(query, [*values, limit]), limit)
