"""Rendering of records as in the API's samples: spelling of keys, nulls, dates, decimal places and links.

Numbers keep the text that the real server sends (`1225.7900`), so a record is rendered as text. The list form is
cached with the record until it changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import orjson

from plugins.nutcache.profiles import Field, Profile, Resource
from plugins.nutcache.sandbox.office import refresh
from plugins.nutcache.sandbox.variants import Variants
from plugins.nutcache.sandbox.world import Record, World

Form = Literal["list", "item"]
Writer = Callable[[Any], bytes]

# Decimal places, where the samples show a fixed number; elsewhere trailing zeros are cut.
_SCALES = {"invoices": 4, "invoice_details": 4, "invoice_taxes": 4, "invoice_taxes.rate": 6}
_MOVING = ("timers",)  # rendered at every read


class Renderer:
    """Renders records of one world in one profile, without the `hidden` fields (`customers.phone`)."""

    def __init__(self, world: World, variants: Variants, hidden: Collection[str] = ()) -> None:
        self._world = world
        self._profile: Profile = world.profile
        self._variants = variants
        self._hidden = frozenset(hidden)
        self._writers = {
            (resource.name, form): self._plan(resource, zulu=form)
            for resource in self._profile.resources.values()
            for form in (True, False)
        }

    def hide(self, hidden: Collection[str]) -> None:
        """Hide these fields and show all others; every record is rendered again."""
        self._hidden = frozenset(hidden)
        self.forget()

    def forget(self) -> None:
        """Drop every cached form."""
        for table in self._world.tables.values():
            for record in table.values():
                record.form = None

    def listed(self, record: Record) -> bytes:
        """A record in the form in which its list shows it."""
        if record.resource in _MOVING:
            refresh(self._world, record.resource, record)
        if record.form is None:
            record.form = self.write(record, "list")
        return record.form

    def write(self, record: Record, form: Form, embedded: Collection[bytes] = ()) -> bytes:
        """A record in one of its two forms, with children inside where they are embedded."""
        known = self._profile.resources.get(record.resource)
        if known is None:
            return _unlisted(record)
        zulu = self._profile.zulu if self._variants.timestamps == "profile" else record.id % 2 == 0
        parts = [b'"type":' + orjson.dumps(record.resource)]
        for field, writer in self._writers[known.name, zulu]:
            part = self._attribute(record, field, writer, form)
            if part is not None:
                parts.append(part)
        parts += embedded
        if known.links or known.self_link:
            parts.append(b'"links":' + self._links(record, known, form))
        return b"{" + b",".join(parts) + b"}"

    def _attribute(self, record: Record, field: Field, writer: Writer, form: Form) -> bytes | None:
        key = b'"' + field.wire.encode() + b'":'
        if f"{record.resource}.{field.name}" in self._hidden:
            return key + b"null" if self._variants.hidden == "null" else None
        if self._is_absent(record, field, form):
            return None
        value = record.values.get(field.name)
        if value is None or (field.name == "creation_userprofile" and form == "list"):
            return key + b"null"  # blank fields are sent as null
        return key + writer(value)

    def _is_absent(self, record: Record, field: Field, form: Form) -> bool:
        """Whether a conditional attribute is missing from this record."""
        if record.resource == "timers":
            return field.name == "guid" and form == "item"
        if record.resource == "time_entries" and field.name in ("start_time", "end_time"):
            company = self._world.get(self._profile.companies, record.company)
            return company is None or company["time_tracking_type"] != 1
        return False

    def _plan(self, resource: Resource, *, zulu: bool) -> list[tuple[Field, Writer]]:
        return [(field, _writer(resource.name, field, zulu=zulu)) for field in resource.fields.values()]

    def _links(self, record: Record, known: Resource, form: Form) -> bytes:
        links = []
        for name in known.links:
            value, refers = record.values.get(name), known.fields[name].refers
            if value is not None and refers is not None:
                rel = "projectitems" if (refers, form) == ("project_services", "list") else refers
                links.append(_link(f"{refers}/{value}", rel))
        if known.self_link:
            links.append(_link(f"{known.name}/{record.id}", "self"))
        return orjson.dumps(links)


def _link(href: str, rel: str) -> dict[str, str]:
    return {"href": href, "rel": rel, "type": "GET"}


def page_link(href: str, rel: str, *, method: str = "GET") -> dict[str, str]:
    """A link of a list to its next or previous page."""
    return {"href": href, "rel": rel, "type": method}


def _unlisted(record: Record) -> bytes:
    """An embedded record of a type without a documented form: only the certain fields."""
    known = {"type": record.resource, **record.values, "links": []}
    return orjson.dumps(known, default=str)


def _writer(resource: str, field: Field, *, zulu: bool) -> Writer:
    match field.kind:
        case "decimal":
            return _decimal(_SCALES.get(f"{resource}.{field.name}", _SCALES.get(resource)))
        case "day":
            return lambda day: b'"' + day.encode() + b'T00:00:00"'
        case "timestamp":
            return _zulu if zulu else _trimmed
        case "local":
            return _trimmed
        case "enum":
            return _enum(field)
        case "guid" if resource == "timers":
            return lambda guid: b'"{' + guid.encode() + b'}"'
        case _:
            return orjson.dumps


def _decimal(scale: int | None) -> Writer:
    if scale is None:
        return lambda value: _trim(f"{Decimal(value):f}").encode()
    return lambda value: f"{Decimal(value):.{scale}f}".encode()


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _zulu(at: float) -> bytes:
    """v4: whole seconds and a Z."""
    return datetime.fromtimestamp(math.floor(at), UTC).strftime('"%Y-%m-%dT%H:%M:%SZ"').encode()


def _trimmed(at: float) -> bytes:
    """v3: no zone, up to three digits of a second, trailing zeros cut."""
    text = datetime.fromtimestamp(round(at, 3), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return b'"' + text.rstrip("0").rstrip(".").encode() + b'"'


def _enum(field: Field) -> Writer:
    if field.form == "int":
        return orjson.dumps
    if field.form == "digit":
        return lambda code: orjson.dumps(str(code))
    names: dict[int, str] = {}
    for name, code in field.members.items():
        names.setdefault(code, name)
    return lambda code: orjson.dumps(names[code])
