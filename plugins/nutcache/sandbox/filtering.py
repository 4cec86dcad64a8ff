"""Filter and sorting rules of `POST .../filtered`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from plugins.nutcache.profiles import Field, Resource
from plugins.nutcache.sandbox.world import Record

_DIRECTIONS = {"asc": False, "ascending": False, "desc": True, "descending": True}
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda have, want: have == want,
    "neq": lambda have, want: have != want,
    "gt": lambda have, want: have > want,
    "lt": lambda have, want: have < want,
    "gte": lambda have, want: have >= want,
    "lte": lambda have, want: have <= want,
    "ct": lambda have, want: want in have,
    "sw": lambda have, want: have.startswith(want),
    "ew": lambda have, want: have.endswith(want),
}
_TEXT_ONLY = ("ct", "sw", "ew")


class RuleError(ValueError):
    """A body or a rule that the server does not understand."""


def select(
    resource: Resource, body: bytes, rows: Iterable[Record], *, lenient: bool, readable: Callable[[str], bool]
) -> list[Record]:
    """Rows that satisfy every filter rule (AND), in the order of the sorting rules.

    `readable` says whether the user may see a field. Raises RuleError; a lenient server ignores such rules instead,
    so that everything comes back.
    """
    filters, sortings = _rules(body, lenient=lenient)
    chosen = list(rows)
    for rule in filters:
        try:
            test = _test(resource, rule, readable)
        except RuleError:
            if not lenient:
                raise
            continue
        chosen = [row for row in chosen if test(row)]
    for rule in reversed(sortings):  # stable: the last rule first
        try:
            field, descending = _sorting(resource, rule, readable)
        except RuleError:
            if not lenient:
                raise
            continue
        chosen.sort(key=lambda row: _sort_key(field, row), reverse=descending)
    return chosen


def _rules(body: bytes, *, lenient: bool) -> tuple[Sequence[Any], Sequence[Any]]:
    try:
        given = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise RuleError(f"The body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise RuleError("The body is not an object.")
    unknown = given.keys() - {"filter_rules", "sorting_rules"}
    if unknown and not lenient:
        raise RuleError(f"Unknown key: {min(unknown)}.")
    filters, sortings = (given.get(name, []) for name in ("filter_rules", "sorting_rules"))
    if not isinstance(filters, list) or not isinstance(sortings, list):
        raise RuleError("Rules are arrays.")
    return filters, sortings


def _test(resource: Resource, rule: Any, readable: Callable[[str], bool]) -> Callable[[Record], bool]:
    name, operator, value = _parts(rule, ("property", "operator", "value"))
    field = _field(resource, name, readable)
    compare = _COMPARISONS.get(str(operator))
    if compare is None:
        raise RuleError(f"Unknown operator: {operator}.")
    if operator in _TEXT_ONLY and field.kind not in ("text", "guid"):
        raise RuleError(f"{operator} needs a text property.")
    want = _want(field, value)

    def test(record: Record) -> bool:
        have = record.values.get(field.name)
        if have is None:
            return bool(operator == "neq")
        return bool(compare(_folded(field, have), want))

    return test


def _sorting(resource: Resource, rule: Any, readable: Callable[[str], bool]) -> tuple[Field, bool]:
    name, direction = _parts(rule, ("property", "direction"))
    if direction not in _DIRECTIONS:
        raise RuleError(f"Unknown direction: {direction}.")
    return _field(resource, name, readable), _DIRECTIONS[direction]


def _sort_key(field: Field, record: Record) -> tuple[bool, Any]:
    have = record.values.get(field.name)
    return (False, 0) if have is None else (True, _folded(field, have))


def _parts(rule: Any, names: tuple[str, ...]) -> list[Any]:
    if not isinstance(rule, dict) or rule.keys() != set(names):
        raise RuleError(f"A rule has exactly {', '.join(names)}.")
    return [rule[name] for name in names]


def _field(resource: Resource, name: Any, readable: Callable[[str], bool]) -> Field:
    field = resource.fields.get(str(name).lower())
    if field is None or not readable(field.name):
        raise RuleError(f"Unknown property: {name}.")
    return field


def _folded(field: Field, value: Any) -> Any:
    """Text folded for a comparison without regard to case."""
    return value.casefold() if field.kind in ("text", "guid") else value


def _want(field: Field, value: Any) -> Any:
    """A rule's value, given as a string or as JSON, converted to the field's kind."""
    text = str(value)
    try:
        match field.kind:
            case "int" | "ref":
                return int(text)
            case "enum":
                return int(text) if text.lstrip("-").isdigit() else field.members[text]
            case "decimal":
                return Decimal(text)
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "day":
                return date.fromisoformat(text[:10]).isoformat()
            case "timestamp" | "local":
                return instant(text)
            case _:
                return text.strip("{}").casefold() if field.kind == "guid" else text.casefold()
    except (ValueError, KeyError, InvalidOperation) as error:
        raise RuleError(f"{value!r} is no value of {field.name}.") from error


def instant(text: str) -> float:
    """Unix seconds of any of the documented input forms; no zone means UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
