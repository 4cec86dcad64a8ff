"""Quarantine: a page that looks like a change of schema, or like another list, is set aside until other pages decide.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from poller.changes.comparison import CONTENT, PageComparison
from poller.changes.decision import Decision
from poller.changes.endpoint_rules import EndpointRules
from poller.changes.exemptions import Exemptions
from poller.changes.guards import AT_LEAST_SHIFTED, Quarantine, Quarantined, Shape, ShapeShift, agree, shape_shift
from poller.documents.diff import parse
from state.polls import Snapshot, UnitState

REPLACED = ShapeShift(fields={"": Shape.REPLACED}, objects=0)  # most objects of a page were replaced


def is_replaced(rules: EndpointRules, comparison: PageComparison, before: int, known: Mapping[str, Snapshot]) -> bool:
    """Whether most objects that the page showed are gone and most that it shows are unknown.

    The front of a newest-first list looks like this, and so does another account's list.
    """
    endpoint = rules.endpoint
    if endpoint.parent is not None or endpoint.id == CONTENT or endpoint.order == "newest":
        return False
    if before < AT_LEAST_SHIFTED or len(comparison.missing) * 2 <= before:
        return False
    new = sum(1 for shown in comparison.fresh if shown.object_id not in known)
    return new >= AT_LEAST_SHIFTED and new * 2 > len(comparison.members)


def others_agree(quarantine: Quarantine, key: str, shift: ShapeShift) -> bool:
    """Whether another page is set aside for the same reason."""
    return any(other != key and agree(shift, one.shift) for other, one in quarantine.items())


def keep_aside(quarantine: Quarantine, key: str, shift: ShapeShift, order: int, units: Mapping[str, UnitState]) -> bool:
    """Set a page aside until other pages decide; False if they have. `units` are those that sweeps poll."""
    if others_agree(quarantine, key, shift):
        return False
    aside = quarantine.get(key)
    if aside is None or not agree(aside.shift, shift):
        quarantine[key] = Quarantined(shift, order, order)
        return True
    others = [unit for other, unit in units.items() if other != key and other not in quarantine]
    asked = [unit for unit in others if unit.asked_order > aside.asked_order]
    if shift == REPLACED and any(unit.shown for unit in asked):
        return False
    quarantine[key] = structs.replace(aside, seen_order=order)
    return len(asked) < len(others)


def agreed_shift(quarantine: Quarantine, key: str, shift: ShapeShift, *, alone: bool) -> Mapping[str, Shape] | None:
    """The fields of a schema change on which pages agree, or None. `alone`: there is no other page to compare."""
    agreeing = [one.shift for other, one in quarantine.items() if (other != key or alone) and agree(one.shift, shift)]
    if not agreeing:
        return None
    return {path: shape for one in (shift, *agreeing) for path, shape in one.fields.items()}


def exempted(before: Exemptions, fields: Mapping[str, Shape], objects: int, *, sweep: int) -> Exemptions:
    """The exemptions after a schema change was accepted."""
    accepted = ShapeShift(fields={**before.shift_in(sweep).fields, **fields}, objects=objects)
    nulled = before.nulled | {path for path, shape in fields.items() if shape is Shape.NULLED}
    nulled -= {path for path, shape in fields.items() if shape is Shape.RETURNED}
    return structs.replace(before, shift=accepted, shift_until=sweep + 1, nulled=nulled)


def like_quarantined(
    rules: EndpointRules,
    decision: Decision,
    comparison: PageComparison,
    known: Mapping[str, Snapshot],
    nulled: frozenset[str],
) -> ShapeShift | None:
    """The schema change of a page with few objects, if others are set aside for the same change."""
    if not decision.updates:
        return None
    pairs = [(parse(known[one.object_id].body), one.parsed()) for one in comparison.fresh if one.object_id in known]
    return shape_shift(pairs, len(comparison.members), rules.fields, at_least=1, nulled=nulled)
