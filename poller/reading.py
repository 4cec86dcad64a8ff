"""Pure: an answer's objects, held against what its unit showed before.

Compared from cheap to dear, and stopped early: an object whose bytes the unit has shown before is never parsed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import msgspec
from xxhash import xxh3_128_digest

from poller.diff import NOTHING, ParseError, Rules, dump, parse, stored
from poller.filters import ObjectRule
from poller.sources import Endpoint, PageError, Unparsed
from state.records import NewEvent

CONTENT = "content"
MOST_OBJECTS = 100_000  # in one answer

# 16 bytes of an answer or an object as it came (XXH3). Nobody gains by two that collide: whoever could make them may
# as well leave a change out. A cryptographic digest takes nine times as long, more than all the rest of a quiet poll.
digest_of = xxh3_128_digest

_tokens = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL).finditer


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What an endpoint's objects mean, compiled once from plugin and configuration."""

    source: str
    namespace: str
    endpoint: Endpoint
    rules: Rules
    identify: Callable[[Mapping[str, Any]], str | None]
    soft: ObjectRule | None = None  # true: the object is as good as deleted
    deletes: bool = True
    baseline: Literal["silent", "emit"] = "silent"
    max_depth: int = 64  # of an object's own nesting: a deeper one is set aside
    transform: Callable[[NewEvent], NewEvent | None] = lambda event: event


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An object that this unit has not shown in just these bytes before."""

    object_id: str
    digest: bytes
    object: dict[str, Any]
    body: bytes  # the object as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an answer shows, held against what its unit showed before."""

    members: dict[bytes, str]  # digest of bytes -> id, of all objects shown, in order
    fresh: tuple[Shown, ...]
    missing: tuple[str, ...]  # shown before, not now
    unsure: tuple[str, ...] = ()  # how these are cannot be told from this answer
    is_partial: bool = False  # it shows objects that cannot be told apart: nothing is missing for sure
    notes: tuple[str, ...] = ()  # what was set aside, and why


@dataclass(slots=True, kw_only=True)
class _Sorting:
    """The objects of an answer while they are told apart."""

    members: dict[bytes, str] = field(default_factory=dict)
    fresh: dict[str, Shown] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)  # ids so far, of a list whose objects are their content
    doubles: set[str] = field(default_factory=set)
    aside: Counter[str] = field(default_factory=Counter)  # why, and how many


def read(watch: Watch, objects: Iterable[msgspec.Raw], before: Mapping[bytes, str]) -> Reading:
    """Tell what is new in an answer. Raises PageError when none of its objects can be used, or there are too many.

    Objects that cannot be used (without an id, nested too deeply) and different ones under one id are set aside with
    a note; nothing is concluded about what such an answer does not show.
    """
    sorting = _Sorting()
    is_content = watch.endpoint.id == CONTENT
    for number, item in enumerate(objects):
        if number == MOST_OBJECTS:
            raise PageError(f"more than {MOST_OBJECTS:,} objects in one answer", hint="ask for smaller pages")
        digest = digest_of(item)
        if digest in sorting.members:
            if not is_content:
                continue
            # The set is the identity: the second of two equals is another.
            digest = _next_equal(digest, sorting.members)
        if (known := before.get(digest)) is not None:
            sorting.members[digest] = known
            if is_content:
                sorting.names.add(known)
        else:
            _sort(watch, item, digest, sorting)
    if sorting.aside and not sorting.members and not sorting.doubles:
        raise PageError(
            f"none of its objects can be used: {_told_aside(sorting)}",
            hint='set `id` to the field that names an object, or to "content"',
        )
    return _reading(sorting, before)


def gathered(watch: Watch, pages: Sequence[Unparsed]) -> Iterator[msgspec.Raw]:
    """The objects of all answers that one poll got.

    A list that shifts while it is read shows an object again on the next page. Where objects are their content, that
    is no second one: of equals there are as many as one page shows.
    """
    if watch.endpoint.id != CONTENT or len(pages) == 1:
        return chain.from_iterable(page.objects for page in pages)
    return _gathered_by_content(watch, pages)


def _gathered_by_content(watch: Watch, pages: Sequence[Unparsed]) -> Iterator[msgspec.Raw]:
    most: Counter[str] = Counter()
    for page in pages:
        here: Counter[str] = Counter()
        for item in page.objects:
            shown = _shown(watch, bytes(item), b"")
            name = "" if shown is None else shown.object_id
            here[name] += 1
            if here[name] > most[name]:
                most[name] = here[name]
                yield item


def _sort(watch: Watch, item: msgspec.Raw, digest: bytes, sorting: _Sorting) -> None:
    """Tell an object that the unit has not shown in these bytes from the others."""
    raw = bytes(item)
    if raw.count(b"{") + raw.count(b"[") > watch.max_depth and is_too_deep(raw, watch.max_depth):
        sorting.aside[f"nested deeper than max_depth = {watch.max_depth}"] += 1
        return
    shown = _shown(watch, raw, digest)
    if shown is None:
        sorting.aside[f"without an id ({_id_text(watch)})"] += 1
        return
    if watch.endpoint.id == CONTENT:
        shown = _another(shown, sorting.names)
    elif shown.object_id in sorting.fresh:
        sorting.doubles.add(shown.object_id)
        return
    sorting.fresh[shown.object_id] = shown
    sorting.members[digest] = shown.object_id


def _another(shown: Shown, taken: set[str]) -> Shown:
    """The second of two equal objects has an id of its own."""
    name, nth = shown.object_id, 1
    while name in taken:
        nth += 1
        name = f"{shown.object_id}#{nth}"
    taken.add(name)
    return shown if nth == 1 else msgspec.structs.replace(shown, object_id=name)


def is_too_deep(raw: bytes, most: int) -> bool:
    """Whether an object in JSON is nested deeper than that."""
    depth = 0
    for token in _tokens(raw):
        sign = raw[token.start()]
        if sign in b"[{":
            depth += 1
            if depth > most:
                return True
        elif sign in b"]}":
            depth -= 1
    return False


def _reading(sorting: _Sorting, before: Mapping[bytes, str]) -> Reading:
    members, doubles = sorting.members, sorting.doubles
    doubles |= sorting.fresh.keys() & {object_id for digest, object_id in members.items() if digest in before}
    notes = []
    if sorting.aside:
        notes.append(f"{_told_aside(sorting)} set aside")
    if doubles:
        some = ", ".join(sorted(doubles)[:3])
        notes.append(f"{len(doubles)} ids shown more than once with different content set aside ({some})")
        members = {digest: object_id for digest, object_id in members.items() if object_id not in doubles}
    shown = {*members.values(), *doubles}
    gone = tuple(object_id for object_id in before.values() if object_id not in shown)
    return Reading(
        members=members,
        fresh=tuple(item for object_id, item in sorting.fresh.items() if object_id not in doubles),
        missing=() if sorting.aside else gone,
        unsure=(*sorted(doubles), *(gone if sorting.aside else ())),
        is_partial=bool(sorting.aside),
        notes=tuple(notes),
    )


def _told_aside(sorting: _Sorting) -> str:
    return ", ".join(f"{number} objects {why}" for why, number in sorting.aside.items())


def _shown(watch: Watch, raw: bytes, digest: bytes) -> Shown | None:
    try:
        value = parse(raw)
    except ParseError:  # a number that nothing can hold
        return None
    if not isinstance(value, dict):
        return None
    normalise = watch.endpoint.normalise
    kept = normalise(dict(value)) if normalise else value
    if watch.rules.excluded is not NOTHING:
        kept = stored(kept, watch.rules)
    object_id = watch.identify(value) if not normalise else watch.identify(kept) or watch.identify(value)
    if object_id is None:
        return None
    body = raw if kept is value and b"\n" not in raw else dump(kept)
    return Shown(object_id=object_id, digest=digest, object=kept, body=body)


def _next_equal(digest: bytes, members: Mapping[bytes, str]) -> bytes:
    while digest in members:
        digest = digest_of(digest)
    return digest


def _id_text(watch: Watch) -> str:
    spec = watch.endpoint.id
    return f"`{spec}`" if isinstance(spec, str) else ", ".join(f"`{part}`" for part in spec)
