"""Output of commands: tables on a terminal, aligned plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from poller.events.cloudevents import FIRST, LAST
from poller.late import late
from poller.rendering.counting import counted as counted
from poller.rendering.event_view import EventView, one_line
from poller.rendering.terminal import printable, printable_json, printable_lines
from state.records import Event

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    import poller.rendering.lines as lines
else:  # slow to import, and needed by events and on a terminal only
    lines = late("poller.rendering.lines")

NOTHING_YET: Final = "nothing yet: `poller once` or `poller run` begins"


def console() -> Console | None:
    """Standard output as a terminal, on which text is printed without markup, highlighting or emoji; None if it is a
    file or a pipe.
    """
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def say(text: str, *, err: bool = False) -> None:
    """Print one line, on standard error if `err` is set. Line breaks in the text are escaped."""
    click.echo(printable(text), err=err)


def say_lines(text: str) -> None:
    """Print a text of several lines."""
    click.echo(printable_lines(text))


def print_table(out: Console | None, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their heads: as a table on a terminal, else as lines with aligned columns."""
    if out is not None:
        out.print(table(title, heads, rows, out.width))
        out.print()
        return
    if title:
        say(title)
    printed = [list(heads), *_cells(rows)]
    widths = [max(map(len, column)) for column in zip(*printed, strict=True)]
    for line in printed:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cells(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[printable(one_line(cell, 2000)) for cell in row] for row in rows]


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table for a terminal, without lines. If it is too wide, cells that contain spaces are wrapped; if that does not
    suffice, all are, so that nothing is cut off.
    """
    from rich.table import Table
    from rich.text import Text

    cells = _cells(rows)
    made = Table(
        title=Text(printable(title), "bold") if title else None, title_justify="left", box=None, pad_edge=False
    )
    columns = [[row[place] for row in cells] for place in range(len(heads))]
    wide = sum(max(map(len, (head, *column))) + 2 for head, column in zip(heads, columns, strict=True)) > width
    solid = [not any(" " in cell or len(cell) > width // 2 for cell in column) for column in columns]
    shown = [head.replace(" ", "\n") if wide and one else head for head, one in zip(heads, solid, strict=True)]
    least = [max(map(len, (*head.split("\n"), *column))) + 2 for head, column in zip(shown, columns, strict=True)]
    narrow = sum(one if is_solid else 2 for one, is_solid in zip(least, solid, strict=True)) > width
    for head, one in zip(shown, solid, strict=True):
        made.add_column(head, overflow="fold", no_wrap=one and not narrow, header_style="dim")
    for row in cells:
        made.add_row(*map(Text, row))
    return made


def print_json(value: Any) -> None:
    """One document."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    click.echo("\n".join(map(printable_json, text.split("\n"))))


def print_json_line(value: Any) -> None:
    """One line of JSON Lines."""
    print_raw_json(orjson.dumps(value))


def print_raw_json(raw: bytes) -> None:
    """Print JSON that is already encoded, as one line."""
    click.echo(printable_json(raw.decode()))


def print_event(out: Console | None, event: Event, zone: tzinfo) -> None:
    """Print one event with all of its fields."""
    view = EventView(event)
    seen = view.time.astimezone(zone)
    if out is not None:
        out.print(lines.coloured(view, f"{view.sequence:>6} {seen:%m-%d %H:%M:%S}"), soft_wrap=True)
    else:
        say(lines.plain_line(view, f"{view.sequence} {seen:%Y-%m-%d %H:%M:%S}"))


def span(seconds: float | None) -> str:
    """A span for people: 95.0 as "95s"; "-" if it is not known."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def away(time: float | None, now: float) -> str:
    """Unix seconds as a distance: "5m ago", "in 30s"."""
    if time is None:
        return "-"
    return f"{span(now - time)} ago" if time <= now else f"in {span(time - now)}"


def unix(text: str | None) -> float | None:
    """ISO text as Unix seconds."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


def clock(time: float | None, zone: tzinfo) -> str:
    """Unix seconds as date, time and name of the zone; dates beyond the calendar become its first or last day."""
    if time is None:
        return "-"
    return f"{datetime.fromtimestamp(min(max(time, FIRST), LAST), zone):%Y-%m-%d %H:%M:%S %Z}"


def size(count: int) -> str:
    """A number of bytes for people."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"
