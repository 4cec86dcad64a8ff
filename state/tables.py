"""The state as open tables: events, changes, objects, deliveries and polls, with JSON as text and times in ISO 8601."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from state.errors import PollerError

NAMES: Final = ("events", "changes", "objects", "deliveries", "polls")
MOST_BYTES: Final = 500_000  # of one page, about
JSON: Final = frozenset({"data", "object", "before", "after"})  # columns that hold JSON


class TablePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of a table, in order. The next page begins after `next`; None: there are no more rows."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    next: str | None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One table: its columns, its source and its order."""

    columns: tuple[tuple[str, str], ...]  # (name, expression)
    rows: str  # what comes after FROM
    keys: tuple[tuple[str, Callable[[str], int | str]], ...]  # (expression, how its text is read)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(name for name, _ in self.columns)

    @property
    def selected(self) -> str:
        """The whole table as SQL."""
        return f"SELECT {', '.join(f'{how} AS {name}' for name, how in self.columns)} FROM {self.rows}"

    def page(self, after: str | None, placeholder: Callable[[int], str]) -> tuple[str, list[int | str]]:
        """One page as SQL with its keys first, and the values; the last value is the limit. Raises PollerError."""
        keys = ", ".join(how for how, _ in self.keys)
        values = self._values(after)
        marks = ", ".join(placeholder(place) for place in range(1, len(values) + 1))
        where = f"WHERE ({keys}) > ({marks}) " if values else ""
        shown = ", ".join(how for _, how in self.columns)
        limit = placeholder(len(values) + 1)
        return f"SELECT {keys}, {shown} FROM {self.rows} {where}ORDER BY {keys} LIMIT {limit}", values

    def _values(self, after: str | None) -> list[int | str]:
        if after is None:
            return []
        texts = after.split("/", len(self.keys) - 1)
        try:
            return [read(text) for (_, read), text in zip(self.keys, texts, strict=True)]
        except ValueError as error:
            raise PollerError(
                f"{after[:100]!r} is not a position in this table", hint="give the `next` of a page"
            ) from error

    def paged(self, found: Iterable[Sequence[Any]], limit: int) -> TablePage:
        """The resulting page: at most `limit` rows, and none after the row with which it reaches MOST_BYTES."""
        width, size = len(self.keys), 0
        rows: list[Sequence[Any]] = []
        last = None
        for row in found:
            rows.append(row[width:])
            size += sum(len(value) for value in row if isinstance(value, str))
            if len(rows) == limit or size >= MOST_BYTES:
                last = "/".join(map(str, row[:width]))
                break
        return TablePage(columns=self.names, rows=rows, next=last)


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """SQL expressions of the open tables that differ between databases; a change of an event is `c`."""

    iso: Callable[[str], str]  # Unix seconds as ISO 8601 in UTC
    text: Callable[[str], str]  # bytes as text
    latest: Callable[..., str]  # the largest of several values
    version: str  # of the event `e`
    changes: str  # the join that gives each change of `e`
    place: str  # of a change within its event
    path: str
    before: str
    after: str
    unlisted: str  # of the object `o`, as 0 or 1


def open_tables(sql: Dialect) -> dict[str, Table]:
    """The open tables in the dialect of one database, by name."""
    made = (_events(sql), _changes(sql), _objects(sql), _deliveries(sql), _polls(sql))
    return dict(zip(NAMES, made, strict=True))


def _events(sql: Dialect) -> Table:
    return Table(
        columns=(
            ("sequence", "e.seq"),
            ("id", "e.id"),
            ("time", sql.iso("e.time")),
            ("observedafter", sql.iso("e.observed_after")),
            ("source", "e.source"),
            ("type", "e.type"),
            ("subject", "e.subject"),
            ("version", sql.version),
            ("data", sql.text("e.data")),
        ),
        rows="events e",
        keys=(("e.seq", number),),
    )


def _changes(sql: Dialect) -> Table:
    return Table(
        columns=(
            ("sequence", "e.seq"),
            ("time", sql.iso("e.time")),
            ("source", "e.source"),
            ("type", "e.type"),
            ("subject", "e.subject"),
            ("path", sql.path),
            ("before", sql.before),
            ("after", sql.after),
        ),
        rows=f"events e {sql.changes}",
        keys=(("e.seq", number), (sql.place, number)),
    )


def _objects(sql: Dialect) -> Table:
    return Table(
        columns=(
            ("source", "p.source"),
            ("endpoint", "p.name"),
            ("id", "o.object"),
            ("version", "o.version"),
            ("presence", "CASE o.presence WHEN 0 THEN 'present' WHEN 1 THEN 'suspect' ELSE 'deleted' END"),
            ("unlisted", sql.unlisted),
            ("seen_at", sql.iso(sql.latest("o.seen_at", "coalesce(u.asked_at, 0)"))),
            ("object", sql.text("o.body")),
        ),
        rows="objects o JOIN endpoints p ON p.id = o.endpoint LEFT JOIN units u ON u.id = o.unit",
        keys=(("o.endpoint", number), ("o.object", str)),
    )


def _deliveries(sql: Dialect) -> Table:
    due = sql.latest("l.due", "d.queued_at", "coalesce(s.open_until, 0)")
    return Table(
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
            ("queued_at", sql.iso("d.queued_at")),
            ("due", sql.iso(f"CASE d.state WHEN 'pending' THEN {due} END")),
            ("finished_at", sql.iso("d.finished_at")),
        ),
        rows=(
            "deliveries d JOIN subscriptions s ON s.id = d.subscription LEFT JOIN events e ON e.seq = d.seq "
            "LEFT JOIN lanes l ON l.subscription = d.subscription AND l.lane = d.lane"
        ),
        keys=(("d.id", number),),
    )


def _polls(sql: Dialect) -> Table:
    return Table(
        columns=(
            ("source", "p.source"),
            ("endpoint", "p.name"),
            ("unit", "u.key"),
            ("asked_at", sql.iso("u.asked_at")),
            ("answered_at", sql.iso("u.answered_at")),
            ("objects", "u.shown"),
            ("calls", "u.calls"),
            ("failures", "u.failures"),
            ("retry_at", sql.iso("u.retry_at")),
            ("error", "u.error"),
        ),
        rows="units u JOIN endpoints p ON p.id = u.endpoint",
        keys=(("u.id", number),),
    )


def number(text: str) -> int:
    """A key that is a whole number. Raises ValueError."""
    found = int(text)
    if abs(found) >= 2**63:
        raise ValueError("too large")
    return found
