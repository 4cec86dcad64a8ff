"""Events as people read them: one plain line each, or coloured with a line for each changed field."""

from __future__ import annotations

from typing import Final

import click
from rich.console import Console
from rich.text import Text

from poller.templates import FieldLine, Told
from state.records import Event

_COLOURS: Final = {"created": "green", "updated": "yellow", "deleted": "red"}
_FIELDS: Final = 8  # changed fields shown of one event
_INDENT: Final = " " * 24


def print_event(out: Console, event: Event) -> None:
    """One event, whole."""
    if out.is_terminal:
        out.print(_coloured(Told(event)), soft_wrap=True)
    else:
        click.echo(event_line(event))


def event_line(event: Event) -> str:
    """One event on one line."""
    told = Told(event)
    named = f" “{told.name}”" if told.name else ""
    fields = "; ".join([*map(str, told.fields[:_FIELDS]), *_left_out(told)])
    rest = ": ".join(part for part in ("" if told.object else told.headline, fields) if part)
    head = f"{event.seq} {told.time:%Y-%m-%d %H:%M:%S} {told.account} {told.type} {told.subject}{named}"
    return f"{head}  {rest}" if rest else head


def _coloured(told: Told) -> Text:
    text = Text.assemble(
        (f"{told.sequence:>6} {told.time:%m-%d %H:%M:%S} ", "dim"),
        (f"{told.kind:<8}", f"bold {_COLOURS.get(told.kind, 'magenta')}"),
        (f" {told.subject}", "bold"),
        f" {told.name or ''}".rstrip() if told.object else f" {told.headline}",
        (f"  {told.account}", "dim"),
    )
    for field in told.fields[:_FIELDS]:
        text.append("\n").append_text(_coloured_field(field))
    for note in _left_out(told):
        text.append(f"\n{_INDENT}{note}", "dim")
    return text


def _coloured_field(field: FieldLine) -> Text:
    text = Text(_INDENT).append(f"{field.label}: ", "cyan")
    if field.before is not None:
        text.append(field.before, "red strike").append(" → ")
    return text.append("(removed)", "dim") if field.after is None else text.append(field.after, "green")


def _left_out(told: Told) -> list[str]:
    count = len(told.fields) - _FIELDS
    return [f"… and {count} more"] if count > 0 else []
