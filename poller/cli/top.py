"""`poller top`: the status on the whole terminal, kept up to date."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click
from rich.console import Console, Group
from rich.live import Live
from rich.segment import Segment, Segments
from rich.text import Text

from poller.cli.context import CliContext
from poller.cli.output import console, counted, table
from poller.cli.status import found_status, tables_of
from poller.options.quantities import parse_duration
from poller.rendering.terminal import printable
from state.errors import PollerError


@click.command()
@click.option("--every", default="2s", show_default=True, metavar="DURATION", help="Time between two updates.")
@click.pass_obj
def top(context: CliContext, every: str) -> None:
    """Show the status on the whole terminal and keep it up to date, until Ctrl-C.

    docs/columns.md explains every column.

    Example: poller top --every 5s
    """
    try:
        seconds = max(0.2, parse_duration(every))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--every") from error
    out = console()
    if out is None:
        raise click.UsageError("this is for a terminal; poller status --json is for programs")
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            live.update(fitted(screen(context, out.width), out), refresh=True)
            time.sleep(seconds)


def fitted(shown: Group, out: Console) -> Group:
    """What fits on the terminal, and how many lines do not."""
    lines = out.render_lines(shown, pad=False)
    if len(lines) <= out.height:
        return shown
    kept = lines[: out.height - 1]
    more = f"… {counted(len(lines) - len(kept), 'more line')}: enlarge the terminal, or see poller status"
    parts = [piece for line in kept for piece in (*line, Segment.line())]
    return Group(Segments(parts), Text(more, "yellow", no_wrap=True, overflow="ellipsis"))


def screen(context: CliContext, width: int) -> Group:
    """The whole screen, or the reason why the status cannot be read."""
    try:
        shown = found_status(context)
    except PollerError as error:
        return Group(Text(printable(str(error)), "red"), Text(printable(error.hint or ""), "dim"))
    head = Text(f"{shown.head}; {shown.status.time:%Y-%m-%d %H:%M:%S %Z}", "bold")
    refusal = () if shown.refusal is None else (shown.refusal,)
    parts: list[object] = [head, *_marked([*refusal, *shown.notes]), Text("")]
    for heads, cells, notes in tables_of(shown.status):
        parts += [table("", heads, cells, width), *_marked(notes), Text("")]
    return Group(*parts)  # type: ignore[arg-type]


def _marked(notes: Iterable[str]) -> list[Text]:
    return [Text(printable(f"! {note}"), "yellow") for note in notes]
