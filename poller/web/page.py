"""The status as a page: rendered here, nothing loaded from elsewhere, asked again every few seconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, Template, Undefined

from poller.cloudevents import iso
from poller.status import Row
from state.records import Event

TEMPLATES = Path(__file__).parent.parent / "templates"
REFRESH = 5  # seconds


def render(status: Row, events: Sequence[Event]) -> str:
    """The page."""
    return _template().render(status=status, events=[_shown(event) for event in events], refresh=REFRESH)


@cache
def _template() -> Template:
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=Undefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["span"] = span
    return env.get_template("status.html.j2")


def span(seconds: float | None) -> str:
    """A span as people read it: in the unit that leaves a small number."""
    if seconds is None:
        return "–"
    for name, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _shown(event: Event) -> Row:
    data = event.data
    changed = ", ".join(change["path"].removeprefix("/") for change in data.get("changes", ())[:6])
    return {
        "seq": event.seq,
        "time": iso(event.time),
        "type": event.type,
        "subject": event.subject,
        "what": data.get("summary") or changed,
    }
