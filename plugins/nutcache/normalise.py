"""Normalises Nutcache records, so that another serializer or release does not look like an edit of every
record.

Keys have the table's spelling, enums are codes, decimals compare by value, days are dates, instants are UTC to the
second, and GUIDs are in lower case without braces. A known field that is absent is null. A field that the table does
not know stays unchanged, and is left out while it is null.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from plugins.nutcache.profiles import Field, Kind, Resource

_NOT_ALNUM: Final = re.compile(r"[^a-z0-9]")
_ONE_FORM: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


def normaliser(resource: Resource) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The function that normalises a record of this resource."""
    known = {name.lower(): (field.name, _reader(field)) for name, field in resource.fields.items()}
    known |= {field.wire: known[name.lower()] for name, field in resource.fields.items()}  # saves most calls of lower()
    blank = dict.fromkeys(field.name for field in resource.fields.values())

    def normalise(record: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = blank.copy()
        for key, value in record.items():
            found = known.get(key) or known.get(key.lower())
            if value is None:
                continue  # empty fields are null or left out
            if isinstance(value, dict | list):
                value = _without_blanks(value)
            if found is None:
                result[key.lower()] = value
            else:
                name, read = found
                result[name] = value if read is None else read(value)
        return result

    return normalise


def _without_blanks(value: Any) -> Any:
    """A value without its null fields, because the API may also leave those out."""
    if isinstance(value, dict):
        return {key: _without_blanks(inner) for key, inner in value.items() if inner is not None}
    return [_without_blanks(inner) for inner in value] if isinstance(value, list) else value


def guid(value: Any) -> Any:
    """A GUID in its normalised form: lower case, without braces."""
    return value.strip().strip("{}").lower() if isinstance(value, str) else value


def _reader(field: Field) -> Callable[[Any], Any] | None:
    """The function that normalises a value of this field; values of another kind stay unchanged."""
    return _enum_reader(field) if field.kind == "enum" else _READERS.get(field.kind)


def _enum_reader(field: Field) -> Callable[[Any], Any]:
    codes = {_bare(name): code for name, code in field.members.items()}

    def read(value: Any) -> Any:
        value = _number(value)
        return codes.get(_bare(value), value) if isinstance(value, str) else value

    return read


def _bare(name: str) -> str:
    """An enum's name without case and punctuation, except date formats, which differ only in those."""
    bare = _NOT_ALNUM.sub("", name.lower())
    return name if bare in ("mmddyyyy", "ddmmyyyy") else bare


def _number(value: Any) -> Any:
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    try:
        number = Decimal(value.strip())
    except InvalidOperation:
        return value
    if not number.is_finite() or abs(number.adjusted()) > 30:
        return value
    return int(number) if number == number.to_integral_value() else float(number)


def _day(value: Any) -> Any:
    """The calendar day, never shifted by a zone, because the API writes a day as midnight."""
    if not isinstance(value, str) or not _DAY.match(value):
        return value
    try:
        return date.fromisoformat(value[:10]).isoformat()
    except ValueError:
        return value


def _instant(value: Any) -> Any:
    """UTC to the second (v3 has fractions, v4 has none); a text without a zone means UTC."""
    if isinstance(value, str) and _ONE_FORM.fullmatch(value):
        return value
    moment = _moment(value)
    if moment is None:
        return value
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    except OverflowError:  # the first or last day of the calendar
        return value
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _wall_time(value: Any) -> Any:
    """A local time without a zone, because the API does not say which zone it is in."""
    moment = _moment(value)
    return value if moment is None else moment.replace(tzinfo=None).isoformat(timespec="seconds")


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, str) or not _DAY.match(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        return None


_READERS: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "int": _number,
    "ref": _number,
    "decimal": _number,
    "day": _day,
    "timestamp": _instant,
    "local": _wall_time,
    "guid": guid,
}
