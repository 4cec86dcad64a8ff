"""The dashboard: rendered here, nothing loaded from elsewhere; its script asks for it again at each event."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, Template, Undefined
from markupsafe import Markup

from poller.config.models import Config
from poller.operations.doctor import Level, of_status
from poller.operations.status import Status
from poller.rendering.event_view import EventView
from state.records import Event

TEMPLATES: Final = Path(__file__).with_name("pages")
SCRIPT: Final = (TEMPLATES / "status.js").read_text(encoding="utf-8")
REFRESH: Final = 5  # seconds, where there is no script
_FIELDS: Final = 4  # changed fields shown of one event

_HASH: Final = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; "
    f"script-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}


def render(status: Status, events: Sequence[Event], config: Config) -> str:
    """The page. What is wrong stands first, and first in its table."""
    zone = config.poller.zone
    findings = [one for one in of_status(status, config) if one.level is not Level.OK]

    def at(time: datetime) -> str:
        return f"{time.astimezone(zone):%Y-%m-%d %H:%M:%S}"

    def ago(time: datetime | None) -> str:
        return "–" if time is None else f"{span(max(0.0, (status.time - time).total_seconds()))} ago"

    return _template().render(
        status=status,
        endpoints=sorted(status.endpoints, key=lambda one: one.state == "ok"),
        subscriptions=sorted(status.subscriptions, key=lambda one: one.state == "active" and not one.dead),
        findings=sorted(findings, key=lambda one: one.level is not Level.BAD),
        events=[_shown(event) for event in events],
        at=at,
        ago=ago,
        refresh=REFRESH,
        script=Markup(SCRIPT),
    )


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
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _shown(event: Event) -> Mapping[str, Any]:
    view = EventView(event)
    return {
        "seq": event.seq,
        "time": view.time,
        "kind": view.kind,
        "subject": event.subject + (f" “{view.name}”" if view.name else ""),
        "summary": "" if view.object else view.headline,
        "fields": view.fields[:_FIELDS],
    }
