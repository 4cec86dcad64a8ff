"""Pages as HTML: templates, assets, headers, and the parts that every page has."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
from fastapi import Depends, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE: Final = Path(__file__).parent
ASSETS: Final = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # with a stricter policy the Origin of a form is "null", and its command refused
    "Vary": "Accept",
}
OUTCOMES: Final = 100  # kept at most
LONGEST: Final = 4000  # characters of one value on a page
SPANS: Final = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a command that was given on a page."""

    text: str
    hint: str | None = None
    is_done: bool = True


class Outcomes:
    """The results of the latest commands. The page shown afterwards finds its result by the key in its address."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Outcome] = OrderedDict()

    def keep(self, outcome: Outcome) -> str:
        """Store a result, and return its key."""
        key = token_urlsafe(9)
        self._kept[key] = outcome
        while len(self._kept) > OUTCOMES:
            self._kept.popitem(last=False)
        return key

    def get(self, key: str | None) -> Outcome | None:
        """The result with that key, or None."""
        return None if key is None else self._kept.get(key)


_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


class Page:
    """A requested page: its address, the time zone, and the result to show on it."""

    def __init__(self, request: Request) -> None:
        config = request.app.state.context.program.config
        self.zone: tzinfo = config.poller.zone
        self.now: float = request.app.state.context.program.now()
        self.path = request.url.path
        self.outcome: Outcome | None = request.app.state.outcomes.get(request.query_params.get("done"))
        query = "&".join(f"{quote(k)}={quote(v)}" for k, v in request.query_params.multi_items() if k != "done")
        self.here = quote(self.path) + (f"?{query}" if query else "")

    def render(self, template: str, *, code: int = 200, **values: Any) -> Response:
        """The page, rendered from a template."""
        found = _environment().get_template(template).render(page=self, **values)
        return Response(found, code, media_type="text/html; charset=utf-8", headers=HEADERS)

    def time(self, at: float | datetime | None, *, style: str = "%Y-%m-%d %H:%M:%S") -> Markup:
        """A time in the configured zone."""
        if at is None:
            return Markup("–")
        when = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
        text, iso = f"{when.astimezone(self.zone):{style}}", when.astimezone(UTC).isoformat(timespec="seconds")
        return Markup('<time datetime="{}">{}</time>').format(iso, text)

    def ago(self, at: float | datetime | None) -> Markup:
        """The distance to a time, with the time itself as title."""
        if at is None:
            return Markup("–")
        when = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
        away = self.now - when.timestamp()
        text = f"in {span(-away)}" if away < -1 else "just now" if away < 1 else f"{span(away)} ago"
        local = f"{when.astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z}"
        iso = when.astimezone(UTC).isoformat(timespec="seconds")
        return Markup('<time datetime="{}" title="{}">{}</time>').format(iso, local, text)

    def prose(self, text: str) -> Markup:
        """A sentence whose times are converted to the configured zone and shortened."""
        today = datetime.fromtimestamp(self.now, self.zone).date()
        found, end = Markup(""), 0
        for match in _INSTANT.finditer(text):
            when = datetime.fromisoformat(match.group()).astimezone(self.zone)
            shown = self.time(when, style="%H:%M" if when.date() == today else "%b %d, %H:%M")
            found, end = found + text[end : match.start()] + shown, match.end()
        return found + text[end:]


async def _page_of(request: Request) -> Page:
    return Page(request)


Shown = Annotated[Page, Depends(_page_of)]  # a route's parameter


def span(seconds: float | None) -> str:
    """A span for people, in the unit that leaves a small number."""
    if seconds is None or seconds != seconds:
        return "–"
    if seconds == float("inf"):
        return "never"
    for name, size in SPANS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def number(value: float | None) -> str:
    """A number with thin spaces between thousands; a small one with one decimal."""
    if value is None or value != value:
        return "–"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.1f}" if abs(value) >= 0.1 else f"{value:.2g}"


def plural(count: int, word: str, many: str = "") -> str:
    """A count with its noun."""
    return f"{number(count)} {word if count == 1 else many or word + 's'}"


def value_text(value: Any) -> str:
    """A JSON value as text: a string without quotes, other values as indented JSON, cut if very long."""
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


@cache
def asset(name: str) -> bytes:
    """The bytes of an asset."""
    return (HERE / "assets" / name).read_bytes()


@cache
def asset_url(name: str) -> str:
    """The address of an asset, which changes with its content."""
    return f"/assets/{name}?v={hashlib.sha256(asset(name)).hexdigest()[:12]}"


def endpoint_url(source: str, endpoint: str) -> str:
    """The address of an endpoint's page."""
    return f"/endpoints/{quote(source, safe='')}/{quote(endpoint)}"


@cache
def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"span": span, "number": number, "value_text": value_text}
    tools: Mapping[str, Any] = {"asset_url": asset_url, "endpoint_url": endpoint_url, "plural": plural}
    env.globals |= tools
    return env
