"""Keys of units, and the positions at which units begin. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
import orjson

from poller.sources.protocol import Endpoint, Position
from state.polls import UnitState

SINCE: Final = "since"
NEWEST: Final = "newest"
CHILD: Final = "parent="
WHOLE: Final = "list"  # a list from its beginning, without a number


def key_of(at: Position) -> str:
    """The key of the unit that begins at this position."""
    if at.since is not None:
        return SINCE
    if at.page is not None:
        return f"page={at.page}"
    if at.offset is not None:
        return f"offset={at.offset}"
    return WHOLE


def child_key(parent_id: str) -> str:
    """The key of the unit that is one parent's list."""
    return f"{CHILD}{parent_id}"


def id_prefix(key: str) -> str:
    """The text before every id of a unit: for a list per parent the parent's id, from which it can be read back."""
    if not key.startswith(CHILD):
        return ""
    return key.removeprefix(CHILD).replace("%", "%25").replace("/", "%2F") + "/"


def own_id(object_id: str, *, is_child: bool) -> str:
    """The id that an object has in its own list."""
    return object_id.partition("/")[2] if is_child else object_id


def parent_of(object_id: str) -> str:
    """The id of the parent whose list an object is in."""
    return object_id.partition("/")[0].replace("%2F", "/").replace("%25", "%")


def is_swept(key: str) -> bool:
    """Whether the unit is part of sweeps; other units show a selection."""
    return key not in (SINCE, NEWEST)


def dump_position(at: Position) -> bytes:
    """A position in its stored form (the parent is known from the unit's key)."""
    return _dumped(at.page, at.offset, at.cursor)


@lru_cache(maxsize=4096)
def _dumped(page: int | None, offset: int | None, cursor: str | None) -> bytes:
    named = {"page": page, "offset": offset, "cursor": cursor}
    return msgspec.json.encode({name: value for name, value in named.items() if value is not None})


@lru_cache(maxsize=4096)
def load_position(raw: bytes) -> Position:
    """A stored position."""
    return Position(**orjson.loads(raw))


def place_of(position: bytes) -> int:
    """The order of pages in their list."""
    at = load_position(position)
    return at.page if at.page is not None else at.offset or 0


def first_units(endpoint: Endpoint) -> list[tuple[str, bytes]]:
    """(key, position) of the units that an endpoint begins with."""
    at = dump_position(endpoint.first)
    units = [] if endpoint.parent is not None else [(key_of(endpoint.first), at)]
    if endpoint.since:
        units.append((SINCE, at))
    if endpoint.order == "newest" and key_of(endpoint.first) == WHOLE:
        units.append((NEWEST, at))
    return units


def foreign_keys(endpoint: Endpoint, units: Mapping[str, UnitState]) -> list[str]:
    """Keys of stored units that the endpoint cannot have as it is configured now: its pagination was another one.

    A list may begin without a number and continue with numbered pages: those are its own if its first page was polled.
    """
    selections = {key for key, _ in first_units(endpoint) if not is_swept(key)}
    begin = CHILD if endpoint.parent is not None else key_of(endpoint.first)
    first = units.get(begin)
    may_go_on = begin == WHOLE and first is not None and first.asked_at is not None
    return [
        key
        for key in units
        if (_kind(key) != _kind(begin) and not may_go_on if is_swept(key) else key not in selections)
    ]


def _kind(key: str) -> str:
    return key.partition("=")[0]
