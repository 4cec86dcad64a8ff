"""Pure: an answer's objects, held against what its unit showed before.

Compared from cheap to dear, and stopped early: an object whose bytes the unit has shown before is never parsed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from xxhash import xxh3_128_digest

from poller.diff import NOTHING, ParseError, Rules, dump, parse, stored
from poller.extract import noun
from poller.filters import ObjectRule
from poller.sources import Endpoint, PageError, Unparsed
from state.records import NewEvent

CONTENT = "content"
MOST_OBJECTS = 100_000  # in one answer

# 16 bytes of an answer or an object as it came (XXH3). Nobody gains by two that collide: whoever could make them may
# as well leave a change out. A cryptographic digest takes nine times as long, more than all the rest of a quiet poll.
digest_of = xxh3_128_digest

_NEWLINE = ord("\n")
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


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer shows, held against what its unit showed before."""

    members: dict[bytes, str]  # digest of bytes -> id, of all objects shown, in order
    fresh: Sequence[Shown]
    missing: Sequence[str] = ()  # shown before, not now
    unsure: Sequence[str] = ()  # how these are cannot be told from this answer
    is_partial: bool = False  # it shows objects that cannot be told apart: nothing is missing for sure
    notes: Sequence[str] = ()  # what was set aside, and why


def read(watch: Watch, objects: Sequence[msgspec.Raw], before: Mapping[bytes, str]) -> Reading:
    """Tell what is new in an answer. Raises PageError when none of its objects can be used, what it lists
    are no objects, or there are too many.

    Objects that cannot be used (without an id, nested too deeply) and different ones under one id are set aside with
    a note; nothing is concluded about what such an answer does not show.
    """
    if len(objects) > MOST_OBJECTS:
        raise PageError(f"more than {MOST_OBJECTS:,} objects in one answer", hint="ask for smaller pages")
    digests = list(map(digest_of, objects))
    if watch.endpoint.id == CONTENT:
        digests = _each_its_own(digests)
    members = {digest: before.get(digest, "") for digest in digests}
    new = {digest: item for digest, item in zip(digests, objects, strict=True) if not members[digest]}
    aside: Counter[str] = Counter()
    fresh, doubles = _told_apart(watch, _usable(watch, new, aside), members)
    if aside or doubles:
        members = {digest: object_id for digest, object_id in members.items() if object_id and object_id not in doubles}
    if aside and not members and not doubles:
        raise PageError(
            f"none of its objects can be used: {_told_aside(aside)}",
            hint='set `id` to the field that names an object, or to "content"',
        )
    shown = {*members.values(), *doubles}
    gone = () if shown.issuperset(before.values()) else [known for known in before.values() if known not in shown]
    return Reading(
        members=members,
        fresh=fresh,
        missing=() if aside else gone,
        unsure=(*sorted(doubles), *(gone if aside else ())),
        is_partial=bool(aside),
        notes=_notes(aside, doubles),
    )


def _each_its_own(digests: Iterable[bytes]) -> list[bytes]:
    """Where the set is the identity, the second of two equals is another."""
    taken: dict[bytes, None] = {}
    for digest in digests:
        taken[_next_equal(digest, taken)] = None
    return list(taken)


def _told_apart(watch: Watch, usable: Iterable[Shown], members: dict[bytes, str]) -> tuple[Sequence[Shown], Set[str]]:
    """The new objects, entered into `members`, and the ids that several different ones have."""
    if watch.endpoint.id == CONTENT:
        return _named_apart(usable, members), frozenset()
    fresh: dict[str, Shown] = {}
    doubles: set[str] = set()
    known = {*members.values()}
    for shown in usable:
        object_id = shown.object_id
        if object_id in fresh or object_id in known:
            doubles.add(object_id)
        else:
            fresh[object_id] = shown
            members[shown.digest] = object_id
    if doubles:
        return [shown for shown in fresh.values() if shown.object_id not in doubles], doubles
    return list(fresh.values()), doubles


def _named_apart(usable: Iterable[Shown], members: dict[bytes, str]) -> list[Shown]:
    """The new objects, the second of two equal ones with an id of its own."""
    fresh, taken = [], {*members.values()}
    for shown in usable:
        name, nth = shown.object_id, 1
        while name in taken:
            nth += 1
            name = f"{shown.object_id}#{nth}"
        taken.add(name)
        members[shown.digest] = name
        fresh.append(shown if nth == 1 else msgspec.structs.replace(shown, object_id=name))
    return fresh


def gathered(watch: Watch, pages: Sequence[Unparsed]) -> Sequence[msgspec.Raw]:
    """The objects of all answers that one poll got.

    A list that shifts while it is read shows an object again on the next page. Where objects are their content, that
    is no second one: of equals there are as many as one page shows.
    """
    if len(pages) == 1:
        return pages[0].objects
    if watch.endpoint.id != CONTENT:
        return [item for page in pages for item in page.objects]
    most: Counter[str] = Counter()
    found = []
    for page in pages:
        here: Counter[str] = Counter()
        for item in page.objects:
            name = next((shown.object_id for shown in _usable(watch, {b"": item}, Counter())), "")
            here[name] += 1
            if here[name] > most[name]:
                most[name] = here[name]
                found.append(item)
    return found


def _usable(watch: Watch, items: Mapping[bytes, msgspec.Raw], aside: Counter[str]) -> Iterator[Shown]:
    """Parse objects, by digest. Those that cannot be used are counted in `aside`, by why not."""
    normalise, identify, deepest = watch.endpoint.normalise, watch.identify, watch.max_depth
    excludes, nameless = watch.rules.excluded is not NOTHING, f"without an id ({_id_text(watch)})"
    for digest, item in items.items():
        raw = bytes(item)
        if raw.count(b"{") + raw.count(b"[") > deepest and is_too_deep(raw, deepest):
            aside[f"nested deeper than max_depth = {deepest}"] += 1
            continue
        try:
            value = parse(raw)
        except ParseError:  # a number that nothing can hold
            value = None
        if not isinstance(value, dict):
            if not raw.lstrip().startswith(b"{"):
                raise PageError(f"the list holds something that is no object: {noun(raw)}")
            aside[nameless] += 1
            continue
        kept = value if normalise is None else normalise(dict(value))
        if excludes:
            kept = stored(kept, watch.rules)
        object_id = identify(value) if normalise is None else identify(kept) or identify(value)
        if object_id is None:
            aside[nameless] += 1
            continue
        # What is spread over lines is kept on one.
        body = raw if kept is value and _NEWLINE not in raw else dump(kept)
        yield Shown(object_id=object_id, digest=digest, object=kept, body=body)


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


def _notes(aside: Counter[str], doubles: Set[str]) -> list[str]:
    notes = [f"{_told_aside(aside)} set aside"] if aside else []
    if doubles:
        some = ", ".join(sorted(doubles)[:3])
        notes.append(f"{len(doubles)} ids shown more than once with different content set aside ({some})")
    return notes


def _told_aside(aside: Counter[str]) -> str:
    return ", ".join(f"{number} objects {why}" for why, number in aside.items())


def _next_equal(digest: bytes, taken: Container[bytes]) -> bytes:
    while digest in taken:
        digest = digest_of(digest)
    return digest


def _id_text(watch: Watch) -> str:
    spec = watch.endpoint.id
    return f"`{spec}`" if isinstance(spec, str) else ", ".join(f"`{part}`" for part in spec)
