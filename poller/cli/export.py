"""`poller export`: the open tables as CSV or JSON Lines."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import orjson

from poller.cli.context import CliContext
from poller.cli.output import print_raw_json, say
from poller.cli.view import PAGE, View, viewed
from poller.rendering.terminal import printable
from state.tables import JSON, NAMES, TablePage


@click.command()
@click.argument("table", type=click.Choice(NAMES))
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line, instead of JSON Lines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines (the default).")
@click.option(
    "--after", metavar="PLACE", help="Only rows after this place, as printed by an earlier export with --limit."
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Maximum number of rows; also prints the place for the next --after."
)
@click.pass_obj
def export(context: CliContext, table: str, as_csv: bool, as_json: bool, after: str | None, limit: int | None) -> None:
    """Print a whole TABLE: events, changes, objects, deliveries or polls.

    A state in a SQLite file also has these tables as views, for Datasette and other tools.

    Example: poller export changes --csv
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    with viewed(context) as view:
        if view is None:
            return
        tell = _tell_csv if as_csv else _tell_json
        is_first, last = True, None
        for page in _pages(view, table, after, limit):
            tell(page, is_first=is_first)
            is_first, last = False, page.next
    if limit is not None and last is not None:
        say(f"go on with --after {last}", err=True)


def _pages(view: View, table: str, after: str | None, limit: int | None) -> Iterator[TablePage]:
    left = limit
    while left is None or left > 0:
        page = view.table(table, after=after, limit=PAGE if left is None else min(left, PAGE))
        yield page
        left = None if left is None else left - len(page.rows)
        after = page.next
        if after is None:
            return


def _tell_json(page: TablePage, *, is_first: bool) -> None:  # noqa: ARG001 - as `_tell_csv`
    for row in page.rows:
        print_raw_json(orjson.dumps({name: _value(name, one) for name, one in zip(page.columns, row, strict=True)}))


def _value(name: str, value: Any) -> Any:
    return orjson.Fragment(value) if name in JSON and value is not None else value


def _tell_csv(page: TablePage, *, is_first: bool) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    if is_first:
        out.writerow(page.columns)
    shown = _harmless if sys.stdout.isatty() else list
    out.writerows(shown(row) for row in page.rows)


def _harmless(row: Sequence[Any]) -> list[Any]:
    """A row for a terminal, which the words of others cannot steer."""
    return [printable(one) if isinstance(one, str) else one for one in row]
