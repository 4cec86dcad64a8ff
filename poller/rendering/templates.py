"""Texts made of events: sandboxed Jinja2 with one vocabulary for Slack, mail, HTTP bodies and everything else.

A template sees `events` (a list of `Told`), `event` (the first of them) and `total`. Data
is escaped for where it goes (`Escape`), so that it can neither become markup nor mention, link or forge.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Self

import orjson
from jinja2 import ChainableUndefined, FileSystemLoader, Template, TemplateError, TemplateSyntaxError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup
from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from poller.rendering.mrkdwn import inert
from poller.rendering.terminal import UNSAFE, printable
from state.errors import PollerError
from state.records import Event

_ABSENT: Final = object()
_CONTROLS: Final = re.compile(f"[{UNSAFE}]")
_LONGEST: Final = 200  # characters of one value in a text
_KINDS: Final = frozenset({"created", "updated", "deleted"})
_NAMES: Final = (
    "name",
    "title",
    "subject",
    "label",
    "code",
    "invoice_number",
    "number",
    "note",
    "description",
    "email",
)
_WHO: Final = (
    *("updated_by", "modified_by", "last_modified_by", "changed_by", "edited_by", "deleted_by", "created_by"),
    *("author", "user", "member", "owner", "assignee", "responsible", "customer_name", "customer"),
)


class Escape(enum.StrEnum):
    """Where a text goes, which decides how data is escaped in it."""

    NONE = "none"
    HTML = "html"
    SLACK = "slack"  # chat messages: no mention, link or markup, and the three entities (poller.rendering.mrkdwn)
    TERMINAL = "terminal"  # controls, line breaks and bidirectional marks, written as escapes


class RenderError(PollerError):
    """A template cannot be read or rendered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLine:
    """One field before and after, as text. None: the field was not there on that side."""

    path: str
    label: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        after = "(removed)" if self.after is None else self.after
        return f"{self.label}: {after}" if self.before is None else f"{self.label}: {self.before} → {after}"


class Told:
    """An event as a template sees it: its attributes, and what a reader wants to know of it in words."""

    def __init__(self, event: Event, zone: tzinfo = UTC) -> None:
        self.id, self.source, self.type, self.subject = event.id, event.source, event.type, event.subject
        self.sequence = event.seq
        self.time = datetime.fromtimestamp(event.time, zone)
        self.observed_after = (
            None if event.observed_after is None else datetime.fromtimestamp(event.observed_after, zone)
        )
        self._event = event

    @property
    def data(self) -> Mapping[str, Any]:
        """All of the event's data."""
        return self._event.data

    @cached_property
    def object(self) -> Mapping[str, Any]:
        """The object as it is now; for a deletion its last known state; empty for the program's own events."""
        found = self.data.get("object")
        return found if isinstance(found, dict) else {}

    @property
    def kind(self) -> str:
        """The last word of the type: created, updated, deleted, failing ..."""
        return self.type.rpartition(".")[2]

    @property
    def thing(self) -> str:
        """What the object is, in the singular: "time entry"."""
        return _singular(self.subject.partition("/")[0].replace("_", " ").replace("-", " "))

    @property
    def key(self) -> str:
        """The object's id, or what else follows in the subject."""
        return self.subject.partition("/")[2] or self.subject

    @cached_property
    def name(self) -> str | None:
        """What people call the object, where it says so."""
        found = (self.object.get(field) for field in _NAMES)
        return next((one_line(value, 80) for value in found if isinstance(value, str) and value.strip()), None)

    @cached_property
    def who(self) -> str | None:
        """The person or customer that the object names, with the field it stands in."""
        for field in _WHO:
            value = self.object.get(field)
            text = value.get("name") or value.get("email") if isinstance(value, dict) else value
            if isinstance(text, str | int) and not isinstance(text, bool) and str(text).strip():
                return f"{_words(field)}: {one_line(text, 80)}"
        return None

    @property
    def title(self) -> str:
        """What it is about, the same for each event of an object as long as its name stays: `Project “B” (7)`."""
        if not self.object:
            return self.headline
        key = one_line(self.key, 80)
        return f"{self.thing.capitalize()} " + (f"“{self.name}” ({key})" if self.name else key)

    @cached_property
    def headline(self) -> str:
        """One line that says what happened."""
        if summary := self.data.get("summary"):
            return one_line(summary, 300)
        if self.kind not in _KINDS or not self.object:
            return one_line(f"{self.type}: {self.subject}", 300)
        return f"{self.title} {self.kind}"

    @cached_property
    def fields(self) -> Sequence[FieldLine]:
        """What changed, before and after; for the program's own events the details."""
        if changes := self.data.get("changes"):
            return [_line(change) for change in changes]
        detail = self.data.get("detail")
        pairs = detail.items() if isinstance(detail, dict) else ()
        return [
            FieldLine(path=f"/{name}", label=_words(name), before=None, after=plain(value)) for name, value in pairs
        ]

    @cached_property
    def facts(self) -> Sequence[tuple[str, str]]:
        """The object's plain fields that have a value, for where nothing changed but the object's being there."""
        return [(_words(name), plain(value)) for name, value in self.object.items() if _is_fact(name, value)]

    @property
    def truncated(self) -> bool:
        """More fields changed than are listed."""
        return bool(self.data.get("truncated"))

    @property
    def account(self) -> str:
        """The source's name."""
        return self.source.rpartition("/")[2]


def plain(value: object) -> str:
    """A JSON value as people write it: text without quotes, yes and no, the rest as short JSON."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return one_line(value) if value else "(empty)"
        case int() | float():
            return f"{value}"
    return one_line(orjson.dumps(value, default=str).decode())


def render(source: str, events: Sequence[Event], *, escape: Escape = Escape.NONE, zone: tzinfo = UTC) -> str:
    """The template's text for these events. Raises RenderError, which names the line."""
    return _filled(_compiled(source, escape), events, escape, zone)


def render_default(name: str, events: Sequence[Event], *, escape: Escape = Escape.NONE, zone: tzinfo = UTC) -> str:
    """The text of a built-in template (`text.j2`, `email.html.j2`)."""
    return _filled(environment(escape).get_template(name), events, escape, zone)


@lru_cache(maxsize=len(Escape))
def environment(escape: Escape = Escape.NONE) -> ImmutableSandboxedEnvironment:
    """The environment for texts that go there; one for all templates, so a plugin may add filters to it."""
    env = ImmutableSandboxedEnvironment(
        autoescape=escape in (Escape.HTML, Escape.SLACK),
        undefined=ChainableUndefined,  # an event without that field is told without it, not left undelivered
        finalize=_FINALLY.get(escape, _for_text),
        loader=FileSystemLoader(Path(__file__).with_name("builtin")),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(tojson=_json, plain=plain, short=one_line, words=_words, iso=_iso)
    return env


def _for_text(value: object) -> object:
    return "" if value is None else value


def _for_terminal(value: object) -> object:
    return "" if value is None else printable(value)


def _for_chat(value: object) -> object:
    return value if isinstance(value, Markup) else inert("" if value is None else str(value))


_FINALLY: Final = {Escape.TERMINAL: _for_terminal, Escape.SLACK: _for_chat}


def _filled(template: Template, events: Sequence[Event], escape: Escape, zone: tzinfo) -> str:
    told = [Told(event, zone) for event in events]
    names = {"events": told, "event": told[0] if told else None, "total": len(told)}
    try:
        text = template.render(names)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as exc:
        raise RenderError(
            f"the template cannot be rendered: {exc}", hint="try it with `poller preview SUBSCRIPTION`"
        ) from exc
    # markupsafe escapes quotes as well; Slack would show those two entities as they are.
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
    """The two keys of every sink that renders: a template in place, or in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    template: TemplateText | None = None
    template_file: Path | None = None
    _zone: tzinfo = PrivateAttr(default=UTC)

    @property
    def zone(self) -> tzinfo:
        """The time zone of times in texts: `timezone` of the configuration."""
        return self._zone

    @model_validator(mode="after")
    def _readable(self, info: ValidationInfo) -> Self:
        self._zone = (info.context or {}).get("zone") or UTC
        if self.template is not None and self.template_file is not None:
            raise PydanticCustomError("template", "template and template_file exclude each other: give one")
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
            "template", "the template file {path} cannot be read: {reason}", {"path": str(path), "reason": reason}
        ) from None


def _line(change: Mapping[str, Any]) -> FieldLine:
    path = str(change.get("path", ""))
    before, after = change.get("before", _ABSENT), change.get("after", _ABSENT)
    return FieldLine(
        path=path,
        label=_label(path),
        before=None if before is _ABSENT else plain(before),
        after=None if after is _ABSENT else plain(after),
    )


def _label(path: str) -> str:
    """A JSON Pointer (RFC 6901) in words: "/lines/0/unit_price" is "lines 0 unit price"."""
    steps = (step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:])
    return one_line(" ".join(_words(step) for step in steps), 120) or "value"


def _words(name: str) -> str:
    return str(name).replace("_", " ").strip()


def one_line(value: object, longest: int = _LONGEST) -> str:
    """On one line, without control characters, cut with an ellipsis where it is longer than that many characters."""
    text = _CONTROLS.sub("", " ".join(str(value).split()))
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _is_fact(name: str, value: object) -> bool:
    return isinstance(value, str | int | float) and value != "" and name not in ("id", "type", "guid")


def _singular(word: str) -> str:
    """English as lists of APIs are named: entries, addresses, invoices."""
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("ss", "ss"), ("us", "us")):
        if word.endswith(plural):
            return word.removesuffix(plural) + singular
    return word.removesuffix("s")


def _iso(value: datetime | Undefined | None) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S %Z") if isinstance(value, datetime) else ""


def _json(value: object) -> str:
    """The value as JSON for a JSON body (escaped like any other text elsewhere); what is not there is null."""
    return orjson.dumps(value, default=_jsonable).decode()


def _jsonable(value: object) -> object:
    match value:
        case Undefined():
            return None
        case Iterator():
            return list(value)
    return str(value)
