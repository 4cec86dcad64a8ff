"""Events as lines that people read: one plain line each, or coloured with a line for each changed field.

What they are made of is safe to print, whatever the data is (`poller.rendering.terminal`).
"""

from __future__ import annotations

from typing import Final

from rich.text import Text

from poller.rendering.templates import FieldLine, Told, one_line
from poller.rendering.terminal import printable

_COLOURS: Final = {"created": "green", "updated": "yellow", "deleted": "red"}
_FIELDS: Final = 8  # changed fields shown of one event


def plain_line(told: Told, head: str) -> str:
    """One event on one line after `head`; of the program's own events the summary alone, which says it all."""
    named = f" “{told.name}”" if told.name else ""
    fields = "; ".join([*map(str, told.fields[:_FIELDS]), *_left_out(told)]) if told.object else told.headline
    line = f"{head} {told.account} {told.type} {one_line(told.subject)}{named}"
    return printable(f"{line}  {fields}" if fields else line)


def coloured(told: Told, head: str) -> Text:
    """One event for a terminal after `head`: what happened, then a line for each changed field."""
    indent = " " * (len(head) + 10)
    text = Text.assemble(
        (f"{head} ", "dim"),
        (f"{printable(told.kind):<8}", f"bold {_COLOURS.get(told.kind, 'magenta')}"),
        (f" {printable(one_line(told.subject))}", "bold"),
        f" {printable(told.name or '')}".rstrip() if told.object else f" {printable(told.headline)}",
        (f"  {printable(told.account)}", "dim"),
    )
    for field in told.fields[:_FIELDS]:
        text.append(f"\n{indent}").append_text(_coloured_field(field))
    for note in _left_out(told):
        text.append(f"\n{indent}{note}", "dim")
    return text


def _coloured_field(field: FieldLine) -> Text:
    text = Text().append(f"{printable(field.label)}: ", "cyan")
    if field.before is not None:
        text.append(printable(field.before), "red strike").append(" → ")
    return text.append("(removed)", "dim") if field.after is None else text.append(printable(field.after), "green")


def _left_out(told: Told) -> list[str]:
    count = len(told.fields) - _FIELDS
    return [f"… and {count} more"] if count > 0 else []
