"""Sink `console`: events as people read them on standard output, coloured on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self

from rich.console import Console
from rich.text import Text

from poller import Attempt, Event, Receipt, hookimpl
from poller.cloudevents import structured
from poller.templates import FieldLine, Templated, Told, render

_COLOURS: Final = {"created": "green", "updated": "yellow", "deleted": "red"}
_FIELDS: Final = 8  # changed fields shown of one event


class ConsoleOptions(Templated):
    """`[[subscriptions]]` with `plugin = "console"`."""

    format: Literal["text", "json"] = "text"


class ConsoleSink:
    """Standard output. Whole events only: each is written with one call."""

    Options = ConsoleOptions

    def __init__(self, name: str, options: ConsoleOptions, *, console: Console | None = None) -> None:
        self.name = name
        self._options = options
        self._console = console or Console(file=sys.stdout, highlight=False, markup=False, emoji=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:  # noqa: ARG002 - the contract's
        """Write the events."""
        if self._options.format == "text" and self._options.template is None and self._console.is_terminal:
            self._console.print(Text("\n").join(coloured(Told(event)) for event in events), soft_wrap=True)
        else:
            self._console.file.write(self.render(events) + "\n")
            self._console.file.flush()
        return Receipt(status="written")

    def render(self, events: Sequence[Event]) -> str:
        """The lines as they are written where there is no terminal."""
        if self._options.format == "json":
            return "\n".join(structured(event).decode() for event in events)
        if self._options.template is not None:
            return render(self._options.template, events).rstrip("\n")
        return "\n".join(plain_line(Told(event)) for event in events)


def plain_line(told: Told) -> str:
    """One event on one line."""
    named = f" “{told.name}”" if told.name else ""
    fields = "; ".join([*(str(field) for field in told.fields[:_FIELDS]), *_left_out(told)])
    summary = "" if told.object else told.headline
    rest = ": ".join(part for part in (summary, fields) if part)
    return f"{told.time:%H:%M:%S} {told.account} {told.type} {told.subject}{named}" + (f"  {rest}" if rest else "")


def coloured(told: Told) -> Text:
    """One event for a terminal: what happened, then a line for each changed field."""
    text = Text.assemble(
        (f"{told.time:%H:%M:%S} ", "dim"),
        (f"{told.kind:<8}", f"bold {_COLOURS.get(told.kind, 'magenta')}"),
        (f" {told.subject}", "bold"),
        f" {told.name or ''}".rstrip() if told.object else f" {told.headline}",
        (f"  {told.account}", "dim"),
    )
    for field in told.fields[:_FIELDS]:
        text.append("\n").append_text(_coloured_field(field))
    for note in _left_out(told):
        text.append(f"\n{'':>18}{note}", "dim")
    return text


def _coloured_field(field: FieldLine) -> Text:
    text = Text(f"{'':>18}").append(f"{field.label}: ", "cyan")
    if field.before is not None:
        text.append(field.before, "red strike").append(" → ")
    return text.append("(removed)", "dim") if field.after is None else text.append(field.after, "green")


def _left_out(told: Told) -> Sequence[str]:
    count = len(told.fields) - _FIELDS
    return [f"… and {count} more"] if count > 0 else []


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("console", ConsoleSink)
