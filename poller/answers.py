"""What asking for one unit brought, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from poller.sources import Unparsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """When a poll's first request left, and when its last answer had arrived."""

    at: float
    answered_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What asking for one unit brought. No pages: it is just what the unit showed before."""

    asked: Asked
    calls: int
    unit: int  # as it was known when it was asked: it may be another one, or none, by now
    digest: bytes | None  # of the answer's bytes
    pages: Sequence[Unparsed] | None = None
    validators: bytes | None = None
    complete: bool = True  # False: a newest-first list was read up to what is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """A poll that is over, as observers are told."""

    source: str
    endpoint: str
    unit: str
    calls: int = 0
    changed: int = 0  # objects
    events: tuple[int, ...] = ()  # their numbers in the log
    error: str | None = None  # why nothing was recorded


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one poll, for planner, log and status."""

    changed: int = 0
    calls: int = 0
    events: list[int] = field(default_factory=list)
    added: list[str] = field(default_factory=list)  # keys of units that appeared
    dropped: list[str] = field(default_factory=list)
    heirs: list[tuple[str, str]] = field(default_factory=list)  # (new last page, the one before)
    swept: bool = False
    baseline: bool = False  # a first sweep was under way: nothing that it shows is news
    aside: bool = False  # nothing was recorded: it waits for other pages, or the answer came too late
    touched: list[str] = field(default_factory=list)  # ids of objects created, restored or updated
    gone: list[str] = field(default_factory=list)  # ids of objects deleted
    missing: bool = False  # objects went missing: suspects
    notes: list[str] = field(default_factory=list)
    noisy: tuple[str, ...] = ()  # fields that are candidates for `ignore` from now on
