"""Values: the result of fetching one unit, and the result of a poll."""

from __future__ import annotations

from collections.abc import MutableSet, Sequence

import httpx
import msgspec

from poller.changes.comparison import RequestTimes
from poller.sources.protocol import Unparsed
from state.polls import Snapshot

InFlight = MutableSet[tuple[str, str, str]]  # units being fetched: source, endpoint, key


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """The result of fetching one unit. No pages: the unit is unchanged."""

    asked: RequestTimes
    calls: int
    unit: int  # id of the unit when it was requested; it may have been replaced or removed since
    digest: bytes | None  # digest of the answer's bytes
    size: int = 0  # bytes
    pages: Sequence[Unparsed] | None = None
    validators: bytes | None = None
    complete: bool = True  # False: a newest-first list was read only up to known objects
    latest: httpx.Response | None = None  # the last answer


class UnitNews(msgspec.Struct, frozen=True, kw_only=True):
    """How a poll changes the units of its endpoint."""

    added: Sequence[str] = ()  # keys of new units
    dropped: Sequence[str] = ()
    tail_moves: Sequence[tuple[str, str]] = ()  # (new last page, the one before)


class SuspectNews(msgspec.Struct, frozen=True, kw_only=True):
    """How a poll changes the objects whose own URL is to be requested."""

    missing: bool = False  # objects went missing and are suspects
    returned: bool = False  # suspects were shown again
    relisted: Sequence[Snapshot] = ()  # objects that are listed again after their deletion was reported


class PollResult(msgspec.Struct, kw_only=True):
    """The result of one poll, for planner, log and status."""

    changed: int = 0
    calls: int = 0
    events: Sequence[int] = ()  # numbers in the log, including those of notices
    units: UnitNews = UnitNews()
    swept: bool = False
    baseline: bool = False  # a first sweep was under way, so its objects are not changes
    aside: bool = False  # nothing was recorded: it waits for other pages, or the answer was late
    snapshots: Sequence[Snapshot] = ()  # current snapshots of the objects created, updated or deleted
    created: int = 0  # objects reported as created
    suspects: SuspectNews = SuspectNews()
    notes: Sequence[str] = ()
    noisy: tuple[str, ...] = ()  # new candidates for `ignore`
