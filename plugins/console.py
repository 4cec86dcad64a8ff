"""Sink `console`: events as text on standard output, coloured on a terminal, plain lines elsewhere.

Standard output is often a terminal or the journal, so data is escaped in every form (`poller.rendering.terminal`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.text import Text

from poller import Attempt, Event, Receipt, hookimpl
from poller.events.cloudevents import structured
from poller.rendering.event_view import EventView
from poller.rendering.lines import coloured, plain_line
from poller.rendering.rendered import rendered
from poller.rendering.templates import Escape, Templated, render
from poller.rendering.terminal import printable_json, printable_lines


class ConsoleOptions(Templated):
    """`[[subscriptions]]` with `plugin = "console"`."""

    format: Literal["text", "json"] = "text"


class ConsoleSink:
    """Standard output. Each batch of events is written with one call."""

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
            lines = [coloured(view, _clock(view)) for view in self._views(events)]
            self._console.print(Text("\n").join(lines), soft_wrap=True)
        else:
            text = await rendered(lambda: self.render(events), events, self._options.template)
            self._console.file.write(text + "\n")
            self._console.file.flush()
        return Receipt(status="written")

    def render(self, events: Sequence[Event]) -> str:
        """The lines as written when standard output is not a terminal."""
        if self._options.format == "json":
            return "\n".join(printable_json(structured(event).decode()) for event in events)
        if self._options.template is not None:
            return printable_lines(
                render(self._options.template, events, escape=Escape.TERMINAL, zone=self._options.zone).rstrip("\n")
            )
        return "\n".join(plain_line(view, _clock(view)) for view in self._views(events))

    def _views(self, events: Sequence[Event]) -> list[EventView]:
        return [EventView(event, self._options.zone) for event in events]


def _clock(view: EventView) -> str:
    return f"{view.time:%H:%M:%S}"


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("console", ConsoleSink)
