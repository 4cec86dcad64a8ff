"""An event as readers and templates see it: its attributes and texts about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any, Final

import orjson

from poller.rendering.terminal import UNSAFE
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLine:
    """One field before and after, as text. None: the field did not exist at that time."""

    path: str
    label: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        after = "(removed)" if self.after is None else self.after
        return f"{self.label}: {after}" if self.before is None else f"{self.label}: {self.before} → {after}"


def name_of(value: Mapping[str, Any]) -> str | None:
    """The name of an object, if it has one."""
    found = (value.get(field) for field in _NAMES)
    return next((one_line(name, 80) for name in found if isinstance(name, str) and name.strip()), None)


class EventView:
    """One event; times are in `zone`."""

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
        """The event's whole data."""
        return self._event.data

    @cached_property
    def object(self) -> Mapping[str, Any]:
        """The object as it is now; for a deletion its last known state; empty for notices."""
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
        """The object's id, or the rest of another subject."""
        return self.subject.partition("/")[2] or self.subject

    @cached_property
    def name(self) -> str | None:
        """The object's name, if it has one."""
        return name_of(self.object)

    @cached_property
    def who(self) -> str | None:
        """The person or customer that the object names, with the name of the field."""
        for field in _WHO:
            value = self.object.get(field)
            text = value.get("name") or value.get("email") if isinstance(value, dict) else value
            if isinstance(text, str | int) and not isinstance(text, bool) and str(text).strip():
                return f"{words(field)}: {one_line(text, 80)}"
        return None

    @property
    def title(self) -> str:
        """What the event is about: `Project “B” (7)`. It is the same for all events of an object with that name."""
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
        """What changed, before and after; for notices the details."""
        changes = self.data.get("changes")
        if isinstance(changes, list) and changes:
            return [_line(change) for change in changes if isinstance(change, dict)]
        detail = self.data.get("detail")
        pairs = detail.items() if isinstance(detail, dict) else ()
        return [FieldLine(path=f"/{name}", label=words(name), before=None, after=plain(value)) for name, value in pairs]

    @cached_property
    def facts(self) -> Sequence[tuple[str, str]]:
        """The object's plain fields that have a value, for created and deleted objects."""
        return [(words(name), plain(value)) for name, value in self.object.items() if _is_fact(name, value)]

    @property
    def truncated(self) -> bool:
        """Whether more fields changed than are listed."""
        return bool(self.data.get("truncated"))

    @property
    def account(self) -> str:
        """The source's name."""
        return self.source.rpartition("/")[2]


def plain(value: object) -> str:
    """A JSON value for people: text without quotes, yes and no, other values as short JSON."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return one_line(value) if value else "(empty)"
        case int() | float():
            return one_line(value)
    return one_line(orjson.dumps(value, default=str).decode())


def one_line(value: object, longest: int = _LONGEST) -> str:
    """The text on one line, without control characters, cut with an ellipsis if it has more characters than that."""
    whole = str(value)
    start = whole[: 20 * longest]  # of a huge text, only the part that can be shown is processed
    text = _CONTROLS.sub("", " ".join(start.split()))
    return text if len(text) <= longest and start == whole else text[: longest - 1].rstrip() + "…"


def words(name: str) -> str:
    """A field's name as words: `unit_price` is "unit price"."""
    return str(name).replace("_", " ").strip()


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
    return one_line(" ".join(words(step) for step in steps), 120) or "value"


def _is_fact(name: str, value: object) -> bool:
    return isinstance(value, str | int | float) and value != "" and name not in ("id", "type", "guid")


def _singular(word: str) -> str:
    """The singular of an English plural, as lists of APIs are named: entries, addresses, invoices."""
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("ss", "ss"), ("us", "us")):
        if word.endswith(plural):
            return word.removesuffix(plural) + singular
    return word.removesuffix("s")
