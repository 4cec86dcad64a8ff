"""Comparison of JSON objects by value, and the fingerprint that represents it. Pure.

Two objects are equal when their *canonical* forms are: ignored and excluded fields are left out, keys are sorted,
numbers compare by value (1, 1.0 and 1e0 are one number, -0.0 is 0, true is not 1), arrays of objects with an `id` are
sorted by it, and `unordered` arrays are sorted by their elements. `fingerprint` is a digest of the canonical form and
`diff` walks both objects: `diff` finds no difference exactly when the fingerprints are equal.

Integers keep all their digits; other numbers are IEEE 754 doubles, as RFC 8259 section 6 recommends, so decimals that
differ only beyond double precision are equal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from operator import is_
from typing import Any

import msgspec
import orjson

from state.errors import PollerError
from state.records import FieldChange

DEPTH = 64  # values nested more deeply are compared and reported as a whole
MOST_FIELDS = 100
MOST_BYTES = 262_144  # of all values before and after together

_ID_TYPES = frozenset({str, int, float})
_PLAIN = frozenset({str, int, bool, type(None)})  # types whose values are canonical
_SCALAR = _PLAIN | {float}  # types whose values are equal where `==` holds and the type is the same
_MISSING: Any = object()

_check = msgspec.json.Decoder(msgspec.Raw).decode  # checks the syntax
_decode = msgspec.json.Decoder().decode  # as fast as orjson, and keeps integers beyond 64 bits
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode

# Patterns in sorted JSON which show that a value may not be canonical yet. Each starts with a rare byte, which makes
# the search four times faster than one for a class of bytes. A match inside a string only costs time.
_END = rb"(?:[,\]}]|\Z)"
_has_integral = re.compile(rb"\.0" + _END).search  # 1.0
_has_large = re.compile((rb"\+" if b"+" in orjson.dumps(1e16) else rb"e") + rb"\d\d+" + _END).search  # 1e+16
_has_objects = re.compile(rb"\},\{").search  # an array of objects

Steps = tuple[str, ...]


class PointerError(PollerError, ValueError):
    """Text that is not a JSON Pointer to a field of an object."""


class ParseError(PollerError, ValueError):
    """Bytes that are not JSON."""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Fields to leave out: keys of the object itself, and deeper paths."""

    keys: frozenset[str] = frozenset()
    deep: tuple[Steps, ...] = ()


NOTHING = Cut()


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Rules by which the objects of an endpoint are compared and stored. Made by `compile_rules`."""

    hidden: Cut = NOTHING  # left out of comparisons: ignored and excluded fields
    excluded: Cut = NOTHING  # never stored
    unordered: tuple[Steps, ...] = ()


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Difference between two objects. A field whose values are too large has a path, but neither `before` nor `after`.

    `truncated` means that more fields changed than are listed, or that values were left out.
    """

    fields: tuple[FieldChange, ...] = ()
    truncated: bool = False

    def __bool__(self) -> bool:
        return bool(self.fields)


def compile_rules(ignore: Iterable[str] = (), exclude: Iterable[str] = (), unordered: Iterable[str] = ()) -> Rules:
    """Compile JSON Pointers (RFC 6901); a step `*` matches every key of an object or element of an array.

    A number is a key in an object and an index in an array. Raises PointerError.
    """
    ignored, excluded = [steps(pointer) for pointer in ignore], [steps(pointer) for pointer in exclude]
    return Rules(
        hidden=_cut(ignored + excluded), excluded=_cut(excluded), unordered=tuple(steps(text) for text in unordered)
    )


def steps(pointer: str) -> Steps:
    """Split a JSON Pointer (RFC 6901) into steps. Raises PointerError."""
    if not pointer.startswith("/"):
        raise PointerError(f"{pointer!r} is not a JSON Pointer to a field", hint=f"write '/{pointer}'")
    if any(part[:1] not in ("0", "1") for part in pointer.split("~")[1:]):
        raise PointerError(f"{pointer!r}: '~' must be followed by 0 or 1", hint="write ~0 for ~ and ~1 for /")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/"))


def pointer(path: Sequence[str | int]) -> str:
    """The JSON Pointer with these steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def parse(raw: bytes | msgspec.Raw) -> Any:
    """Parse JSON. Integers keep all their digits; a number beyond the range of a double becomes its text.

    Raises ParseError, also for NaN and Infinity. It accepts exactly what `msgspec.Raw`, which checks only the syntax,
    accepts, except for strings that are not UTF-8.
    """
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return _parse_large(bytes(raw), exc)
    except RecursionError as exc:
        raise ParseError("JSON nested too deeply") from exc


def _parse_large(raw: bytes, error: Exception) -> Any:
    try:
        _check(raw)
        return json.loads(raw.decode(), parse_float=_double, parse_int=_integer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ParseError(f"not JSON: {error}") from error


def _double(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        return text


def dump(value: Any) -> bytes:
    """Encode as JSON; integers keep all their digits."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode(value)


def dump_sorted(value: Any) -> bytes:
    """Encode as JSON with sorted keys."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return _encode_sorted(value)


def stored(obj: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """The object as it is stored, without excluded fields. The same object if there are none."""
    return _without(obj, rules.excluded)


def compared(obj: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """The object as it is compared, without ignored and excluded fields. The same object if there are none."""
    return _without(obj, rules.hidden)


def fingerprint(obj: Mapping[str, Any], rules: Rules) -> bytes:
    """Digest of 16 bytes (BLAKE2b) that is equal for two objects exactly if they do not differ."""
    return blake2b(_canonical_bytes(compared(obj, rules), rules.unordered), digest_size=16).digest()


def diff(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    rules: Rules,
    *,
    most: int = MOST_FIELDS,
    most_bytes: int = MOST_BYTES,
) -> Difference:
    """Every changed field, in an order that does not depend on the order of keys.

    Objects are compared field by field. Arrays of objects that all have a unique `id` are compared element by element,
    matched by `id`; a different order alone is not a change. Other arrays, and values of different types, are reported
    as a whole. Paths refer to the new object; a removed element (without `after`) has its index in the old array.
    """
    walk = _objects(compared(before, rules), compared(after, rules), (), rules.unordered)
    fields: list[FieldChange] = []
    truncated = False
    for field in walk:
        if len(fields) == most:
            return Difference(fields=tuple(fields), truncated=True)
        size = _size(field.before) + _size(field.after)
        if size > most_bytes:
            field, size, truncated = FieldChange(path=field.path, had_before=False, has_after=False), 0, True
        fields.append(field)
        most_bytes -= size
    return Difference(fields=tuple(fields), truncated=truncated)


def _cut(pointers: Iterable[Steps]) -> Cut:
    plain = {path for path in pointers if len(path) == 1 and path != ("*",)}
    return Cut(keys=frozenset(path[0] for path in plain), deep=tuple(set(pointers) - plain)) if pointers else NOTHING


def _without(obj: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    kept = obj if isinstance(obj, dict) else dict(obj)
    if cut.keys and not cut.keys.isdisjoint(kept):
        kept = {key: value for key, value in kept.items() if key not in cut.keys}
    for path in cut.deep:
        kept = _without_path(kept, path)
    return kept


def _without_path(value: Any, path: Steps) -> Any:
    """A copy without the field at `path`; the value itself if it has none."""
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return _without_elements(value, step, rest)
    if not isinstance(value, dict):
        return value
    keys = set(value) if step == "*" else {step} & value.keys()
    if not keys:
        return value
    if not rest:
        return {key: item for key, item in value.items() if key not in keys}
    return {key: _without_path(item, rest) if key in keys else item for key, item in value.items()}


def _without_elements(value: list[Any], step: str, rest: Steps) -> list[Any]:
    """The array without all elements (`*`), or with one replaced by null, so that the indexes of the others stay the
    same.
    """
    if step == "*":
        return [_without_path(item, rest) for item in value] if rest else []
    place = int(step) if step.isascii() and step.isdecimal() and len(step) < 10 else len(value)
    if place >= len(value):
        return value
    return [*value[:place], _without_path(value[place], rest) if rest else None, *value[place + 1 :]]


def _canonical_bytes(value: Any, unordered: tuple[Steps, ...], depth: int = 0) -> bytes:
    """The canonical form as JSON. Sorted keys suffice for most values; the patterns show for which they do not."""
    try:
        raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return dump_sorted(_canonical(value, unordered, depth))
    if not (unordered or _has_objects(raw) or _has_large(raw) or _has_integral(raw)):
        return raw
    canonical = _canonical(value, unordered, depth)
    return raw if canonical is value else dump_sorted(canonical)


def _canonical(value: Any, unordered: tuple[Steps, ...], depth: int) -> Any:
    """The value in canonical form, except for the order of its keys."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if depth < DEPTH and isinstance(value, dict):
        if _PLAIN.issuperset(map(type, value.values())):
            return value
        return _canonical_object(value, unordered, depth + 1)
    if depth < DEPTH and isinstance(value, list):
        return _canonical_array(value, unordered, depth + 1)
    return value


def _canonical_object(value: dict[str, Any], unordered: tuple[Steps, ...], depth: int) -> dict[str, Any]:
    other = {
        key: canonical
        for key, item in value.items()
        if type(item) not in _PLAIN
        and (canonical := _canonical(item, unordered and _below(unordered, key), depth)) is not item
    }
    return {**value, **other} if other else value


def _canonical_array(value: list[Any], unordered: tuple[Steps, ...], depth: int) -> list[Any]:
    if _PLAIN.issuperset(map(type, value)):
        return sorted(value, key=dump_sorted) if () in unordered else value
    items = [_canonical(item, unordered and _below(unordered, str(i)), depth) for i, item in enumerate(value)]
    if ids := _ids(items):
        if len(ids) > 1:
            items.sort(key=_by_id)
    elif () in unordered:
        items.sort(key=dump_sorted)
    return value if all(map(is_, items, value)) else items


def _by_id(item: dict[str, Any]) -> tuple[bool, Any]:
    return isinstance(item["id"], str), item["id"]


def _below(unordered: tuple[Steps, ...], step: str) -> tuple[Steps, ...]:
    return tuple(path[1:] for path in unordered if path and path[0] in (step, "*"))


def _ids(array: list[Any]) -> dict[Any, int] | None:
    """The index of each element by its `id`; None unless every element is an object with a unique text or number as its
    id.
    """
    places: dict[Any, int] = {}
    for index, item in enumerate(array):
        if not isinstance(item, dict) or type(item.get("id")) not in _ID_TYPES:
            return None
        places[item["id"]] = index
    return places if len(places) == len(array) else None


Path = tuple[str | int, ...]


def _values(before: Any, after: Any, path: Path, unordered: tuple[Steps, ...]) -> Iterator[FieldChange]:
    if len(path) < DEPTH:
        if isinstance(before, dict) and isinstance(after, dict):
            return _objects(before, after, path, unordered)
        if isinstance(before, list) and isinstance(after, list):
            return _arrays(before, after, path, unordered)
    return _whole(before, after, path, unordered)


def _objects(
    before: dict[str, Any], after: dict[str, Any], path: Path, unordered: tuple[Steps, ...]
) -> Iterator[FieldChange]:
    odd = [
        key
        for key, new in after.items()
        if type(new) not in _SCALAR or type(old := before.get(key, _MISSING)) is not type(new) or old != new
    ]
    odd += before.keys() - after.keys()
    for key in sorted(odd):
        if key not in after:
            yield FieldChange(path=pointer((*path, key)), before=before[key], has_after=False)
        elif key not in before:
            yield FieldChange(path=pointer((*path, key)), after=after[key], had_before=False)
        elif type(new := after[key]) in _SCALAR and type(old := before[key]) is type(new):
            yield FieldChange(path=pointer((*path, key)), before=old, after=new)
        elif dump(before[key]) != dump(new):  # most nested values are the same to the byte
            yield from _values(before[key], new, (*path, key), unordered and _below(unordered, key))


def _arrays(before: list[Any], after: list[Any], path: Path, unordered: tuple[Steps, ...]) -> Iterator[FieldChange]:
    old, new = _ids(before), _ids(after)
    if old is None or new is None:
        yield from _whole(before, after, path, unordered)
        return
    for key, index in old.items():
        if key not in new:
            yield FieldChange(path=pointer((*path, index)), before=before[index], has_after=False)
    for key, index in new.items():
        if key not in old:
            yield FieldChange(path=pointer((*path, index)), after=after[index], had_before=False)
        else:
            yield from _values(before[old[key]], after[index], (*path, index), _below(unordered, str(index)))


def _whole(before: Any, after: Any, path: Path, unordered: tuple[Steps, ...]) -> Iterator[FieldChange]:
    one, other = (_canonical_bytes(value, unordered, len(path)) for value in (before, after))
    return iter(()) if one == other else chain((FieldChange(path=pointer(path), before=before, after=after),))


def _size(value: Any) -> int:
    """The approximate size of a value as JSON, in bytes."""
    if isinstance(value, str):
        return len(value)
    return len(dump(value)) if isinstance(value, dict | list) else 8
