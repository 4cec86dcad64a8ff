"""Views for other programs that open the state file: JSON is text in them, and times are ISO 8601."""

from __future__ import annotations

from typing import Final

from state.sqlite.connection import State, transaction
from state.tables import Dialect, TablePage, open_tables

_DATA: Final = "CAST(e.data AS TEXT)"
DIALECT: Final = Dialect(
    iso=lambda column: f"strftime('%Y-%m-%dT%H:%M:%fZ', {column}, 'unixepoch')",
    text=lambda column: f"CAST({column} AS TEXT)",
    latest=lambda *values: f"max({', '.join(values)})",
    version=f"{_DATA} ->> '$.version'",
    changes=f"JOIN json_each({_DATA}, '$.changes') c",
    place="c.key",
    path="c.value ->> '$.path'",
    before="c.value -> '$.before'",
    after="c.value -> '$.after'",
    unlisted="o.unlisted",
)
TABLES: Final = open_tables(DIALECT)
VIEWS: Final = {  # those with the name of a table are views of it
    f"{name}_view" if name in ("events", "objects", "deliveries") else name: table.selected
    for name, table in TABLES.items()
}


def create_views(db: State) -> None:
    """Create the views of this version, unless they exist already."""
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

    def __init__(self, db: State) -> None:
        self._db = db

    def page(self, name: str, *, after: str | None, limit: int) -> TablePage:
        """At most `limit` rows of a table after a position. Raises PollerError for an invalid position."""
        table = TABLES[name]
        query, values = table.page(after, lambda place: f"?{place}")
        return table.paged(self._db.execute(query, [*values, limit]), limit)
