"""Reads the answer of an object's own URL, for an object that its list no longer shows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from poller.changes.comparison import RequestTimes
from poller.changes.decide import change_on_its_own, is_soft
from poller.changes.decision import Decision
from poller.changes.endpoint_rules import EndpointRules
from poller.changes.page import has_too_many_values
from poller.documents.diff import ParseError, parse, stored
from poller.sources.paths import CONTENT, KEY, VALUE
from state.polls import Suspect

DEEPEST: Final = 3  # levels of an answer that are searched for the object: {"data": {"item": {...}}}
MOST_LOOKED_AT: Final = 1000  # values of one answer that are searched


class OwnAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an object's own URL shows, compared with what is known of it."""

    now: Mapping[str, Any]  # the object, limited to the fields that its list shows
    decision: Decision  # what is reported, except a deletion
    is_deleted: bool = False  # `deleted_when` is true of it


def own_object(rules: EndpointRules, content: bytes, own_id: str) -> Mapping[str, Any] | None:
    """The object with that id in an answer of its own URL, in its stored form; None if it is not there.

    The object is the answer itself, or wrapped in it: `{"product": {"id": 7}}`, `[{"id": 7}]`.
    """
    if rules.endpoint.id in (CONTENT, VALUE) or has_too_many_values(content):
        return None
    try:
        answer = parse(content)
    except ParseError:
        return None
    if rules.endpoint.id == KEY and isinstance(answer, dict):
        answer = {KEY: own_id, **answer}
    for value in _objects_in(answer):
        if rules.identify(value) == own_id:
            return _stored(rules, value)
    if rules.endpoint.normalise is not None and isinstance(answer, dict):
        kept = _stored(rules, answer)
        return kept if rules.identify(kept) == own_id else None
    return None


def read_own(rules: EndpointRules, suspect: Suspect, own: Mapping[str, Any], asked: RequestTimes) -> OwnAnswer:
    """Judge what a suspect's own URL shows: deleted by `deleted_when`, edited, or unchanged."""
    before: Mapping[str, Any] = parse(suspect.snapshot.body)
    now: Mapping[str, Any] = as_listed(before, own)
    decision = Decision()
    if is_soft(rules, own, decision):
        return OwnAnswer(now=now, decision=Decision(), is_deleted=True)
    if rules.deletion.unlisted == "updated":
        change_on_its_own(rules, suspect.snapshot, before, now, asked, decision)
    return OwnAnswer(now=now, decision=decision)


def as_listed(before: Any, own: Any) -> Any:
    """A value of the own URL, limited to the fields that its list shows. Fields that only the list shows are kept."""
    if isinstance(before, dict) and isinstance(own, dict):
        return {name: as_listed(value, own[name]) if name in own else value for name, value in before.items()}
    if isinstance(before, list) and isinstance(own, list) and len(before) == len(own):
        return [as_listed(one, other) for one, other in zip(before, own, strict=True)]
    return own


def _stored(rules: EndpointRules, value: dict[str, Any]) -> dict[str, Any]:
    normalise = rules.endpoint.normalise
    return stored(value if normalise is None else normalise(dict(value)), rules.fields)


def _objects_in(answer: Any) -> Iterator[dict[str, Any]]:
    """The answer and the objects in it, outermost first."""
    level, left = [answer], MOST_LOOKED_AT
    for _ in range(DEEPEST):
        found = [value for value in level if isinstance(value, dict)]
        yield from found
        inner = [value for one in found for value in one.values()]
        inner += [value for one in level if isinstance(one, list) for value in one]
        level = [value for value in inner if isinstance(value, dict | list)][:left]
        left -= len(level)
