"""Texts made from events: sandboxed Jinja2 with the same vocabulary for Slack, mail, HTTP bodies and all other sinks.

A template sees `events` (a list of `EventView`), `event` (the first of them) and `total`. Data is escaped for its
destination (`Escape`), so that it cannot become markup, a mention or a link, or forge a line.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Self

import orjson
from jinja2 import ChainableUndefined, FileSystemLoader, Template, TemplateError, TemplateSyntaxError, Undefined
from markupsafe import Markup
from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from poller.rendering.event_view import EventView, one_line, plain, words
from poller.rendering.limits import LimitedEnvironment, joined, limited
from poller.rendering.mrkdwn import inert
from poller.rendering.terminal import printable
from state.errors import PollerError
from state.records import Event


class Escape(enum.StrEnum):
    """Destination of a text, which decides how data in it is escaped."""

    NONE = "none"
    HTML = "html"
    SLACK = "slack"  # chat messages: no mention, link or markup, and the three entities (poller.rendering.mrkdwn)
    TERMINAL = "terminal"  # control characters, line breaks and bidirectional marks, written as escapes


class RenderError(PollerError):
    """A template cannot be read or rendered."""


def render(source: str, events: Sequence[Event], *, escape: Escape = Escape.NONE, zone: tzinfo = UTC) -> str:
    """The template's text for these events. Raises RenderError, which names the line."""
    return _filled(_compiled(source, escape), events, escape, zone)


def render_default(name: str, events: Sequence[Event], *, escape: Escape = Escape.NONE, zone: tzinfo = UTC) -> str:
    """The text of a built-in template (`text.j2`, `email.html.j2`)."""
    return _filled(environment(escape).get_template(name), events, escape, zone)


@lru_cache(maxsize=len(Escape))
def environment(escape: Escape = Escape.NONE) -> LimitedEnvironment:
    """The environment for a destination. All templates share it, so a plugin may add filters to it."""
    env = LimitedEnvironment(
        autoescape=escape in (Escape.HTML, Escape.SLACK),
        undefined=ChainableUndefined,  # a field that an event does not have is empty text
        finalize=_FINALLY.get(escape, _for_text),
        loader=FileSystemLoader(Path(__file__).with_name("builtin")),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(tojson=_json, plain=plain, short=one_line, words=words, iso=_iso)
    return env


def _for_text(value: object) -> object:
    return "" if value is None else value


def _for_terminal(value: object) -> object:
    return "" if value is None else printable(value)


def _for_chat(value: object) -> object:
    return value if isinstance(value, Markup) else inert("" if value is None else str(value))


_UNRENDERABLE: Final = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
_FINALLY: Final = {Escape.TERMINAL: _for_terminal, Escape.SLACK: _for_chat}


def _filled(template: Template, events: Sequence[Event], escape: Escape, zone: tzinfo) -> str:
    views = [EventView(event, zone) for event in events]
    names = {"events": views, "event": views[0] if views else None, "total": len(views)}
    try:
        with limited():
            text = joined(template.generate(names))
    except (*_UNRENDERABLE, RuntimeError, MemoryError) as exc:
        raise RenderError(
            f"the template cannot be rendered: {exc}", hint="try it with `poller preview SUBSCRIPTION`"
        ) from exc
    # markupsafe also escapes quotes; Slack would show those two entities literally.
    return text.replace("&#34;", '"').replace("&#39;", "'") if escape is Escape.SLACK else text


@lru_cache(maxsize=256)
def _compiled(source: str, escape: Escape) -> Template:
    try:
        return environment(escape).from_string(source)
    except TemplateSyntaxError as exc:
        raise RenderError(f"the template is not valid Jinja2, line {exc.lineno}: {exc.message}") from exc


def _checked(source: str) -> str:
    try:
        _compiled(source, Escape.NONE)
    except RenderError as exc:
        raise PydanticCustomError("template", "{why}", {"why": str(exc)}) from None
    return source


TemplateText = Annotated[str, AfterValidator(_checked)]


class Templated(BaseModel):
    """The two keys of every sink that renders: a template in the configuration, or in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    template: TemplateText | None = None
    template_file: Path | None = None
    _zone: tzinfo = PrivateAttr(default=UTC)

    @property
    def zone(self) -> tzinfo:
        """The time zone of times in texts: the configured `timezone`."""
        return self._zone

    @model_validator(mode="after")
    def _readable(self, info: ValidationInfo) -> Self:
        self._zone = (info.context or {}).get("zone") or UTC
        if self.template is not None and self.template_file is not None:
            raise PydanticCustomError(
                "template", "template_file: template and template_file exclude each other; give one"
            )
        if self.template_file is not None:
            root = Path((info.context or {}).get("root") or ".")
            object.__setattr__(self, "template", _checked(_text_of(root / self.template_file.expanduser())))
        return self


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise PydanticCustomError(
            "template", "template_file: {path} cannot be read: {reason}", {"path": str(path), "reason": reason}
        ) from None


def _iso(value: datetime | Undefined | None) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S %Z") if isinstance(value, datetime) else ""


def _json(value: object) -> str:
    """The value as JSON for a JSON body (elsewhere escaped like any other text); a missing value is null."""
    return orjson.dumps(value, default=_jsonable).decode()


def _jsonable(value: object) -> object:
    match value:
        case Undefined():
            return None
        case Iterator():
            return list(value)
    return str(value)
