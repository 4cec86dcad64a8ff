"""Values: what asking for one unit brought, and what became of it."""

from __future__ import annotations

from collections.abc import MutableSet, Sequence

import msgspec

from poller.changes.comparison import RequestTimes
from poller.sources.protocol import Unparsed
from state.polls import Snapshot

InFlight = MutableSet[tuple[str, str, str]]  # units being asked for: source, endpoint, key


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What asking for one unit brought. No pages: it is just what the unit showed before."""

    asked: RequestTimes
    calls: int
    unit: int  # as it was known when it was asked: it may be another one, or none, by now
    digest: bytes | None  # of the answer's bytes
    size: int = 0  # bytes
    pages: Sequence[Unparsed] | None = None
    validators: bytes | None = None
    complete: bool = True  # False: a newest-first list was read up to what is known


class UnitNews(msgspec.Struct, frozen=True, kw_only=True):
    """What a poll changes of the units of its endpoint."""

    added: Sequence[str] = ()  # keys of units that appeared
    dropped: Sequence[str] = ()
    tail_moves: Sequence[tuple[str, str]] = ()  # (new last page, the one before)


class SuspectNews(msgspec.Struct, frozen=True, kw_only=True):
    """What a poll changes of the objects whose own URL is to be asked."""

    missing: bool = False  # objects went missing: suspects
    returned: bool = False  # suspects are shown again
    relisted: Sequence[Snapshot] = ()  # objects that are listed again after their deletion was reported


class PollResult(msgspec.Struct, kw_only=True):
    """What became of one poll, for planner, log and status."""

    changed: int = 0
    calls: int = 0
    events: Sequence[int] = ()  # numbers in the log, of notices too
    units: UnitNews = UnitNews()
    swept: bool = False
    baseline: bool = False  # a first sweep was under way: nothing that it shows is news
    aside: bool = False  # nothing was recorded: it waits for other pages, or the answer came too late
    snapshots: Sequence[Snapshot] = ()  # of the objects created, updated or deleted, as they are now
    created: int = 0  # objects reported as created
    suspects: SuspectNews = SuspectNews()
    notes: Sequence[str] = ()
    noisy: tuple[str, ...] = ()  # fields that are candidates for `ignore` from now on
