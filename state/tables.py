"""The state as open tables: events, changes, objects, deliveries and polls, with JSON as text and times in ISO 8601."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from state.errors import PollerError

NAMES: Final = ("events", "changes", "objects", "deliveries", "polls")
MOST_BYTES: Final = 500_000  # of one page, about
JSON: Final = frozenset({"data", "object", "before", "after"})  # columns that hold JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePage:
    """Some rows of a table, in order. Read on after `next`; None: there are no more."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: how it is selected, and by what its rows are ordered."""

    columns: tuple[tuple[str, str], ...]  # (name, expression)
    rows: str  # what comes after FROM
    keys: tuple[tuple[str, Callable[[str], int | str]], ...]  # (expression, how its text is read)

    @property
    def names(self) -> tuple[str, ...]:
        """Its columns."""
        return tuple(name for name, _ in self.columns)

    @property
    def selected(self) -> str:
        """The whole table as SQL."""
        return f"SELECT {', '.join(f'{how} AS {name}' for name, how in self.columns)} FROM {self.rows}"

    def page(self, after: str | None, placeholder: Callable[[int], str]) -> tuple[str, list[int | str]]:
        """One page as SQL, its keys first, and its values; the limit comes as the last one. Raises PollerError."""
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
                f"{after[:100]!r} is not a place in this table", hint="give the `next` of a page"
            ) from error

    def paged(self, found: Iterable[Sequence[Any]], limit: int) -> TablePage:
        """The page that was found: at most `limit` rows, and no more after the row with which it has MOST_BYTES."""
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


def number(text: str) -> int:
    """A key that is a whole number. Raises ValueError."""
    found = int(text)
    if abs(found) >= 2**63:
        raise ValueError("too large")
    return found
