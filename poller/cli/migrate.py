"""`poller migrate`: moves the state into a PostgreSQL database, or back into a file."""

from __future__ import annotations

import sys
from collections import Counter

import click
from rich.console import Console

from poller.cli.output import counted, print_json, say
from poller.operations.move import move_state, place_of
from state.move import Result


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def migrate(source: str, target: str, as_json: bool) -> None:
    """Move the state FROM a file TO a PostgreSQL database, or the other way.

    No process may run on either side, and TO must be empty. Everything is moved: the log with its id and numbers,
    versions, cursors, deliveries, dead letters, spent calls, learned rates. At the end both sides are compared row by
    row. FROM is kept, but can no longer be run. After an interruption, run the same command again: it continues.

    Example: poller migrate poller.db postgresql://poller@db.example/poller
    """
    to = place_of(target)
    progress = _Progress()
    try:
        result = move_state(place_of(source), to, progress=progress)
    finally:
        progress.end()
    if as_json:
        print_json({"rows": dict(result.rows), "unbalanced": result.unbalanced, "began_anew": result.began_anew})
        return
    _say(result, str(to))


def _say(result: Result, to: str) -> None:
    if result.began_anew:
        say("The state was used since an earlier attempt: everything was copied again.", err=True)
    for table, rows in result.rows.items():
        if rows:
            say(f"{table:16}{rows:>12,}")
    books = f"the books of {counted(len(result.books), 'subscription')} are the same on both sides"
    if result.unbalanced:
        books += f" (and did not balance before either: {', '.join(result.unbalanced)})"
    say(f"Every row was compared; {books}.")
    say(f'Now set state = "{to}" in poller.toml, and poller run.')


class _Progress:
    """A progress line that is overwritten on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._rows: Counter[str] = Counter()

    def __call__(self, table: str, rows: int) -> None:
        self._rows[table] += rows
        if self._console.is_terminal:
            self._console.print(f"{table}: {self._rows[table]:,}", end="\r")

    def end(self) -> None:
        """End the line."""
        if self._console.is_terminal and self._rows:
            self._console.print()
