"""Judges whether a complete sweep has seen the whole list, from its own answers. Pure.

A sweep is uncertain if an answer contradicts the configuration or counts more objects than were seen, or if objects
were on two pages. An uncertain sweep confirms no deletion and ends no baseline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Final

import msgspec

from poller.rendering.counting import counted
from state.polls import UnitState

MOST: Final = 5  # doubts stored for one sweep
MOST_KNOWN: Final = 100  # stored patterns of reasons
PATIENCE: Final = 3  # consecutive sweeps without new objects after which a baseline ends all the same ...
LONGEST: Final = 10  # ... or so many in a row, whatever they showed
MOST_REPEATED: Final = 100  # stored ids of objects that two answers of a chain show
MOST_EMPTY: Final = 50  # answers in a row that show nothing and name a next one: filters leave some of them empty
ENDLESS: Final = (
    f"{MOST_EMPTY} answers in a row show nothing, and each names a next one: the list ended before them, or goes on "
    "after them"
)
_VARYING: Final = re.compile(r"\((?:[^()]|\([^()]*\))*\)|\d+")  # numbers and examples, such as `Users('1')`
_ONE: Final = re.compile(r"# (object|id|change)\b")  # a noun that follows the number 1
LATE: Final = "updated_since"  # key of the note on changes that only sweeps find: they are late, not missing


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the latest answer of a unit says about its list."""

    total: int | None = None  # objects in the whole list
    doubts: tuple[str, ...] = ()  # what contradicts the configuration, as sentences
    guesses: tuple[str, ...] = ()  # what may contradict it: members of the answer that are not configured
    is_last: bool = False  # the answer itself says that it is the last
    repeated: tuple[str, ...] = ()  # ids of objects that two answers of its chain, or it and the page before it, show
    aside: tuple[str, ...] = ()  # what was set aside of its latest answer: no doubt, which would keep a baseline open
    is_known: bool = False  # it shows only objects that other pages have shown in the same sweep
    confirms: str | None = None  # key of the page before it, which repeats an earlier page, as this one does
    guessed_total: tuple[str, int] | None = None  # a member that may count the objects of the whole list, and its count

    def dump(self) -> bytes | None:
        """The claims in their stored form; None if there are none."""
        return None if self == NO_CLAIMS else msgspec.json.encode(self)


NO_CLAIMS: Final = Claims()
load_claims = msgspec.json.Decoder(Claims).decode
ASIDE: Final = "aside"  # the member that names what was set aside


def claims_of(unit: UnitState) -> Claims:
    """The stored claims of a unit."""
    return NO_CLAIMS if unit.claims is None else load_claims(unit.claims)


class Uncertainty(msgspec.Struct, frozen=True, kw_only=True):
    """Why the latest complete sweep of an endpoint proves nothing."""

    why: tuple[str, ...]
    since: float  # Unix seconds: the end of the first uncertain sweep in a row
    sweeps: int = 1  # consecutive uncertain sweeps
    repeats_only: bool = False  # the only reason is objects that were on two pages
    is_lasting: bool = True  # it keeps a baseline open
    settled: int = 0  # consecutive sweeps that showed no unknown object
    known: tuple[str, ...] = ()  # patterns of all reasons of consecutive uncertain sweeps: each is reported once

    def dump(self) -> bytes:
        """The uncertainty in its stored form."""
        return msgspec.json.encode(self)

    @classmethod
    def load(cls, raw: bytes | None) -> Uncertainty | None:
        """The stored uncertainty."""
        return None if raw is None else msgspec.json.decode(raw, type=cls)

    @property
    def ends_baseline(self) -> bool:
        """Whether a baseline ends with this sweep although it is uncertain.

        A list that always moves never has a certain sweep, and a guess may be wrong for ever. Objects that such a list
        hides would be reported as created when they show up, so the list must have shown nothing new for a while.
        """
        return not self.is_lasting and (self.settled >= PATIENCE or self.sweeps >= LONGEST)

    @property
    def text(self) -> str:
        """Why, in one line."""
        return "; ".join(self.why)


class SweptList(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete sweep has seen of an endpoint."""

    units: Mapping[str, UnitState]  # units that sweeps poll, at the end of the sweep
    per_parent: bool  # each unit is the list of one parent
    repeated: Sequence[str] = ()  # ids that were on two pages
    clashes: Sequence[str] = ()  # ids under which two pages show different objects
    is_new: bool = False  # it showed objects that were not known before
    hiding: Sequence[str] = ()  # keys of units before the last that show nothing, while objects are missing


def judge(swept: SweptList, before: Uncertainty | None, accepted: Iterable[str], *, now: float) -> Uncertainty | None:
    """The contradictions of a complete sweep, without those that an operator has accepted; None if there are none."""
    known = frozenset(accepted)
    doubts = _unaccepted(_doubts(swept), known)
    guesses = _unaccepted(_guesses(swept), known)
    claims = {key: claims_of(unit) for key, unit in swept.units.items()}
    at_the_end = {one.confirms for one in claims.values()}
    others = [object_id for key, one in claims.items() if key not in at_the_end for object_id in one.repeated]
    repeats = _unaccepted(_repeats([*swept.repeated, *others]), known)
    if not (doubts or guesses or repeats):
        return None
    settled = 0 if before is None else before.settled
    why = (*doubts, *guesses, *repeats)[:MOST]
    reasons = dict.fromkeys([*(before.known if before is not None else ()), *map(pattern_of, why)])
    return Uncertainty(
        why=why,
        known=tuple(reasons)[-MOST_KNOWN:],
        since=now if before is None else before.since,
        sweeps=1 if before is None else before.sweeps + 1,
        repeats_only=not (doubts or guesses),
        is_lasting=bool(doubts),
        settled=0 if swept.is_new else settled + 1,
    )


def _unaccepted(doubts: Iterable[str], accepted: Set[str]) -> list[str]:
    return [text for text in dict.fromkeys(doubts) if pattern_of(text) not in accepted]


def pattern_of(text: str) -> str:
    """A doubt or a note without its numbers and examples: in this form it is accepted, and reported once."""
    many = _ONE.sub(r"# \1s", _VARYING.sub("#", text))
    return many.replace(" was seen", " were seen")


def _hiding(keys: Iterable[str]) -> str:
    return f"objects are missing, and a page before the last shows nothing and may hide them ({', '.join(keys)})"


HIDING: Final = pattern_of(_hiding(()))


def _doubts(swept: SweptList) -> Iterator[str]:
    for unit in swept.units.values():
        yield from claims_of(unit).doubts
    if swept.clashes:
        some = ", ".join(sorted(swept.clashes)[:3])
        yield f"ids that name different objects on two pages: {len(swept.clashes)} ({some}): `id` must tell them apart"
    for units in _lists(swept):
        totals = [total for unit in units if (total := claims_of(unit).total) is not None]
        seen = sum(unit.shown for unit in units)
        if totals and seen < max(totals):
            where = f" (in {units[0].key})" if swept.per_parent else ""
            yield f"{max(totals)} in all, {seen} seen{where}"


def _lists(swept: SweptList) -> list[list[UnitState]]:
    """The units of each list."""
    return [[unit] for unit in swept.units.values()] if swept.per_parent else [[*swept.units.values()]]


def _guesses(swept: SweptList) -> Iterator[str]:
    for unit in swept.units.values():
        yield from claims_of(unit).guesses
    if swept.hiding:
        yield _hiding(swept.hiding)
    for units in _lists(swept):
        totals = [found for unit in units if (found := claims_of(unit).guessed_total) is not None]
        seen = sum(unit.shown for unit in units)
        yield from (
            f"the answer says {name} = {total}, and {counted(seen, 'object')} {'was' if seen == 1 else 'were'} seen"
            for name, total in totals
            if total > seen
        )


def _repeats(ids: Sequence[str]) -> list[str]:
    if not ids:
        return []
    some = ", ".join(sorted(ids)[:3])
    return [f"objects on two pages of one sweep: {len(ids)} ({some}): the list moved, or its order is not stable"]
