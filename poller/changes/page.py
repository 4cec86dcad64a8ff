"""Compares an answer's objects with what its unit showed before. Pure.

The comparison goes from cheap to expensive and stops early: an object whose bytes the unit has shown before is never
parsed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from itertools import repeat
from typing import cast

import msgspec

from poller.changes.aside import SetAside, id_of_unreadable, note_of, summary_of
from poller.changes.comparison import CONTENT, PageComparison, ShownObject, digest_of
from poller.changes.endpoint_rules import EndpointRules
from poller.documents.diff import ParseError, dump, fingerprint, parse, stored
from poller.rendering.counting import counted
from poller.sources.paths import noun
from poller.sources.protocol import PageError, Unparsed
from poller.sources.unreadable import NOT_UTF8, reason_of
from state.members import FEW, Members

MOST_OBJECTS = 100_000  # objects in one answer
LONGEST_ID = 2000  # bytes of an id, with that of its parent: PostgreSQL has no index of much longer texts
MOST_VALUES = 200_000  # values of one object: parsing more blocks all other threads

_NEWLINE = ord("\n")
_tokens = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL).finditer


def digests_of(rules: EndpointRules, objects: Sequence[msgspec.Raw]) -> list[bytes]:
    """The digest of each object. Raises PageError if there are too many."""
    if len(objects) > MOST_OBJECTS:
        raise PageError(f"more than {MOST_OBJECTS:,} objects in one answer", hint="ask for smaller pages")
    digests = list(map(digest_of, objects))
    return _each_its_own(digests) if rules.endpoint.id == CONTENT else digests


def compare(
    rules: EndpointRules,
    objects: Sequence[msgspec.Raw],
    before: Mapping[bytes, str],
    digests: Sequence[bytes] | None = None,
    prefix: str = "",
) -> PageComparison:
    """Find what is new in an answer. Raises PageError if none of its objects can be used or there are too many.

    Objects that cannot be used (not an object, without an id, unreadable, nested too deeply) and different objects
    under one id are set aside with a note. If the id of one is not known, nothing is concluded about objects that the
    answer does not show. `prefix` precedes every id.
    """
    digests = digests_of(rules, objects) if digests is None else digests
    if isinstance(before, Members):
        edited = _edited_in_place(rules, objects, before, digests, prefix)
        return edited or _compare_all(rules, objects, before.by_digest, digests, prefix)
    return _compare_all(rules, objects, before, digests, prefix)


def _compare_all(
    rules: EndpointRules,
    objects: Sequence[msgspec.Raw],
    before: Mapping[bytes, str],
    digests: Sequence[bytes],
    prefix: str,
) -> PageComparison:
    """The comparison of any page."""
    members, new, lost = _anywhere(digests, objects, before)
    aside: list[SetAside] = []
    fresh, doubles = _told_apart(rules, _usable(rules, new, aside, prefix), members, lost)
    unsure = doubles | {one.object_id for one in aside if one.object_id is not None}
    if aside or doubles:
        members = {digest: object_id for digest, object_id in members.items() if object_id and object_id not in unsure}
        fresh = [shown for shown in fresh if shown.object_id not in unsure]
    if aside and not members and not doubles:
        raise _none_is_usable(aside)
    if lost:
        found = {shown.object_id for shown in fresh} | unsure
        lost = [object_id for object_id in lost if object_id not in found]
    is_partial = any(one.object_id is None for one in aside)
    return PageComparison(
        members=members,
        fresh=fresh,
        missing=() if is_partial else lost,
        unsure=(*sorted(unsure), *(lost if is_partial else ())),
        doubles=sorted(doubles),
        is_partial=is_partial,
        notes=_notes(aside, doubles, digests),
    )


def _none_is_usable(aside: Sequence[SetAside]) -> PageError:
    is_text = not any(one.why == NOT_UTF8 for one in aside)
    return PageError(
        f"none of its objects can be used: {summary_of(aside)}",
        hint='set `id` to the field that names an object, or to "content"'
        if is_text
        else "ask the API for UTF-8, or for the charset in its Content-Type",
    )


Matched = tuple[dict[bytes, str], dict[bytes, msgspec.Raw], Sequence[str]]  # see `_anywhere`


def _edited_in_place(
    rules: EndpointRules, objects: Sequence[msgspec.Raw], before: Members, digests: Sequence[bytes], prefix: str
) -> PageComparison | None:
    """The comparison of a page on which a few objects were edited and all others are in their places; None for any
    other page.
    """
    run = b"".join(digests)
    places = before.changed_places(run)
    if places is None:
        return None
    aside: list[SetAside] = []
    fresh = _usable(rules, {digests[place]: objects[place] for place in places}, aside, prefix)
    if aside or [shown.object_id for shown in fresh] != list(map(before.id_at, places)):
        return None
    return PageComparison(members=before.edited(run), fresh=fresh)


def _anywhere(digests: Sequence[bytes], objects: Sequence[msgspec.Raw], before: Mapping[bytes, str]) -> Matched:
    """The id of each object by digest, "" for new ones in their places if the unit has shown any before; the new ones,
    and the ids that it shows no longer.

    Sets find both in half the time of loops, and most pages have only a few of them.
    """
    if not before:
        return {}, dict(zip(digests, objects, strict=True)), []
    members = dict(zip(digests, map(before.get, digests, repeat("")), strict=True))
    fresh, gone = set(members).difference(before), set(before).difference(members)
    places = sorted(map(digests.index, fresh)) if len(fresh) <= FEW else range(len(digests))
    new = {digest: objects[place] for place in places if (digest := digests[place]) in fresh}
    lost = [digest for digest in before if digest in gone] if len(gone) > 1 else gone
    return members, new, [before[digest] for digest in lost]


def _each_its_own(digests: Iterable[bytes]) -> list[bytes]:
    """Give the second of two equal objects a separate id, if objects are identified by their content."""
    taken: dict[bytes, None] = {}
    for digest in digests:
        taken[_next_equal(digest, taken)] = None
    return list(taken)


def _told_apart(
    rules: EndpointRules, fresh: list[ShownObject], members: dict[bytes, str], lost: Sequence[str]
) -> tuple[Sequence[ShownObject], Set[str]]:
    """The new objects, entered into `members`, and the ids that several different objects have.

    An id among the `lost` ones belongs to no other member, because a unit shows each id once.
    """
    if rules.endpoint.id == CONTENT:
        return _named_apart(fresh, members), frozenset()
    names = [one.object_id for one in fresh]
    ids = set(names)
    is_plain = len(ids) == len(fresh) and (ids.issubset(lost) or ids.isdisjoint(members.values()))
    members.update(zip([one.digest for one in fresh], names, strict=True))
    if is_plain:
        return fresh, frozenset()
    doubles = {object_id for object_id, times in Counter(members.values()).items() if times > 1 and object_id}
    return [one for one in fresh if one.object_id not in doubles], doubles


def _named_apart(usable: Iterable[ShownObject], members: dict[bytes, str]) -> list[ShownObject]:
    """The new objects; the second of two equal ones gets a separate id."""
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


def gathered(rules: EndpointRules, pages: Sequence[Unparsed]) -> Sequence[msgspec.Raw]:
    """The objects of all answers of one poll.

    A list that shifts while it is read shows an object again on the next page. If objects are identified by their
    content, that is not a second object: there are as many equal ones as one page shows.
    """
    if len(pages) == 1:
        return pages[0].objects
    if rules.endpoint.id != CONTENT:
        return [item for page in pages for item in page.objects]
    most: Counter[str] = Counter()
    found = []
    for page in pages:
        here: Counter[str] = Counter()
        for item in page.objects:
            usable = _usable(rules, {b"": item}, [])
            name = usable[0].object_id if usable else ""
            here[name] += 1
            if here[name] > most[name]:
                most[name] = here[name]
                found.append(item)
    return found


def _usable(
    rules: EndpointRules, items: Mapping[bytes, msgspec.Raw], aside: list[SetAside], prefix: str = ""
) -> list[ShownObject]:
    """Identify objects, by digest. Those that cannot be used are added to `aside`."""
    if not items:
        return []
    raws = list(map(bytes, items.values()))
    joined = b",".join(raws)
    ids = _ids(rules, joined, len(raws))
    is_flat = b"[" not in joined and max(map(bytes.count, raws, repeat(b"{"))) <= rules.max_depth
    are_small = len(joined) <= MOST_VALUES or max(map(len, raws)) <= MOST_VALUES
    names = cast("list[str]", ids)
    if is_flat and are_small and None not in ids and 4 * (len(prefix) + max(map(len, names))) <= LONGEST_ID:
        return list(map(ShownObject, [prefix + name for name in names] if prefix else names, items, raws))
    shown = zip(items, raws, ids, strict=True)
    found = [_usable_one(rules, digest, raw, object_id, aside, prefix) for digest, raw, object_id in shown]
    return [one for one in found if one is not None]


def _usable_one(
    rules: EndpointRules, digest: bytes, raw: bytes, object_id: str | None, aside: list[SetAside], prefix: str
) -> ShownObject | None:
    why, body = _why_too_much(rules, raw), raw
    if why is None and object_id is None:
        object_id, body = _parsed(rules, raw)
        if object_id is None:
            why, object_id = _why_unusable(rules, raw)
    known = None if object_id is None else prefix + object_id
    if why is None and known is not None:
        if len(known.encode(errors="replace")) <= LONGEST_ID:
            return ShownObject(known, digest, body)
        why = f"with an id of more than {LONGEST_ID:,} bytes"
    aside.append(SetAside(why=why or "", digest=digest, object_id=known))
    return None


def _why_too_much(rules: EndpointRules, raw: bytes) -> str | None:
    """Why an object is too deep or too large to be parsed; None if it is not."""
    deepest = rules.max_depth
    if raw.count(b"{") + raw.count(b"[") > deepest and is_too_deep(raw, deepest):
        return f"nested deeper than max_depth = {deepest}"
    return f"of more than {MOST_VALUES:,} values" if has_too_many_values(raw) else None


def _why_unusable(rules: EndpointRules, raw: bytes) -> tuple[str, str | None]:
    """Why an object cannot be used, and its id if it has one."""
    if not _is_object(raw):
        return f"given as {noun(raw.lstrip())}", None
    if not _is_text(raw):
        return reason_of(raw), id_of_unreadable(rules.identify, raw)
    return f"without an id ({_id_text(rules)})", None


def _is_object(raw: bytes) -> bool:
    return raw.lstrip().startswith(b"{")


def _ids(rules: EndpointRules, joined: bytes, number: int) -> Sequence[str | None]:
    """The ids of objects, joined by commas, that are stored as they came; None for an object that must be parsed."""
    if rules.identify_unparsed is not None and _NEWLINE not in joined and _is_text(joined):
        try:
            return rules.identify_unparsed(b"[%b]" % joined)
        except (msgspec.DecodeError, RecursionError):
            pass  # an element is not an object, or has no id: look at each one
    return [None] * number


def quick_ids(rules: EndpointRules, objects: Sequence[msgspec.Raw]) -> list[str | bytes]:
    """The id of each object if it can be read without parsing, else the object's bytes."""
    raws = list(map(bytes, objects))
    ids = _ids(rules, b",".join(raws), len(raws))
    return [_name(rules, raw) if object_id is None else object_id for raw, object_id in zip(raws, ids, strict=True)]


def look_alike(rules: EndpointRules, objects: Sequence[msgspec.Raw], others: Sequence[msgspec.Raw]) -> bool:
    """Whether two answers show the same objects, apart from fields whose changes are no reason for an event."""
    ours, theirs = list(map(bytes, objects)), list(map(bytes, others))
    return ours == theirs or _prints(rules, ours) == _prints(rules, theirs)


def _prints(rules: EndpointRules, raws: Iterable[bytes]) -> Counter[bytes]:
    return Counter(_print(rules, raw) for raw in raws)


def _print(rules: EndpointRules, raw: bytes) -> bytes:
    if not _is_object(raw) or _why_too_much(rules, raw) is not None:
        return raw
    try:
        return fingerprint(parse(raw), rules.fields)
    except ParseError:
        return raw


def _name(rules: EndpointRules, raw: bytes) -> str | bytes:
    """The id of an object that must be parsed for it, without what plugins make of it; else its bytes."""
    if not _is_object(raw) or _why_too_much(rules, raw) is not None:
        return raw
    try:
        return rules.identify(parse(raw)) or raw
    except ParseError:
        return raw


def _parsed(rules: EndpointRules, raw: bytes) -> tuple[str | None, bytes]:
    """An object's id and its stored form on one line. Without an id it cannot be used."""
    if not _is_object(raw):
        return None, raw
    try:
        value = parse(raw)
    except ParseError:  # a text in it is not UTF-8
        return None, raw
    normalise = rules.endpoint.normalise
    kept = stored(value if normalise is None else normalise(dict(value)), rules.fields)
    object_id = rules.identify(value) if normalise is None else rules.identify(kept) or rules.identify(value)
    return object_id, raw if kept is value and _NEWLINE not in raw else dump(kept)


def _is_text(raw: bytes) -> bool:
    try:
        return raw.isascii() or bool(raw.decode())
    except UnicodeDecodeError:
        return False


def has_too_many_values(raw: bytes) -> bool:
    """Whether an object in JSON has more than `MOST_VALUES` values, judged by its commas and brackets."""
    return len(raw) > MOST_VALUES and sum(map(raw.count, (b",", b"{", b"["))) > MOST_VALUES


def is_too_deep(raw: bytes, most: int) -> bool:
    """Whether an object in JSON is nested deeper than `deepest`."""
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


def _notes(aside: Sequence[SetAside], doubles: Set[str], digests: Sequence[bytes]) -> list[str]:
    notes = [note_of(aside, digests)] if aside else []
    if doubles:
        some = ", ".join(sorted(doubles)[:3])
        notes.append(f"{counted(len(doubles), 'id')} shown more than once with different content set aside ({some})")
    return notes


def _next_equal(digest: bytes, taken: Container[bytes]) -> bytes:
    while digest in taken:
        digest = digest_of(digest)
    return digest


def _id_text(rules: EndpointRules) -> str:
    spec = rules.endpoint.id
    return f"`{spec}`" if isinstance(spec, str) else ", ".join(f"`{part}`" for part in spec)
