"""Events as lines for people: one plain line each, or coloured with a line for each changed field.

The lines are safe to print, whatever the data is (`poller.rendering.terminal`).
"""

from __future__ import annotations

from typing import Final

from rich.text import Text

from poller.rendering.event_view import EventView, FieldLine, one_line
from poller.rendering.terminal import printable

_COLOURS: Final = {"created": "green", "updated": "yellow", "deleted": "red"}
_FIELDS: Final = 8  # changed fields shown of one event


def plain_line(view: EventView, head: str) -> str:
    """One event on one line after `head`; a notice is only its summary."""
    named = f" “{view.name}”" if view.name else ""
    fields = "; ".join([*map(str, view.fields[:_FIELDS]), *_left_out(view)]) if view.object else view.headline
    line = f"{head} {view.account} {view.type} {one_line(view.subject)}{named}"
    return printable(f"{line}  {fields}" if fields else line)


def coloured(view: EventView, head: str) -> Text:
    """One event for a terminal after `head`: what happened, then a line for each changed field."""
    indent = " " * (len(head) + 10)
    text = Text.assemble(
        (f"{head} ", "dim"),
        (f"{printable(view.kind):<8}", f"bold {_COLOURS.get(view.kind, 'magenta')}"),
        (f" {printable(one_line(view.subject))}", "bold"),
        f" {printable(view.name or '')}".rstrip() if view.object else f" {printable(view.headline)}",
        (f"  {printable(view.account)}", "dim"),
    )
    for field in view.fields[:_FIELDS]:
        text.append(f"\n{indent}").append_text(_coloured_field(field))
    for note in _left_out(view):
        text.append(f"\n{indent}{note}", "dim")
    return text


def _coloured_field(field: FieldLine) -> Text:
    text = Text().append(f"{printable(field.label)}: ", "cyan")
    if field.before is not None:
        text.append(printable(field.before), "red strike").append(" → ")
    return text.append("(removed)", "dim") if field.after is None else text.append(printable(field.after), "green")


def _left_out(view: EventView) -> list[str]:
    count = len(view.fields) - _FIELDS
    return [f"… and {count} more"] if count > 0 else []
