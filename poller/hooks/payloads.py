"""What observers are given: polls and attempts that are over."""

from __future__ import annotations

from dataclasses import dataclass

from state.deliveries import AttemptRow, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """A poll that is over."""

    source: str
    endpoint: str
    unit: str
    calls: int = 0
    changed: int = 0  # objects
    events: tuple[int, ...] = ()  # their numbers in the log
    error: str | None = None  # why nothing was recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """An attempt that is over."""

    subscription: str
    jobs: tuple[Job, ...]
    state: str
    attempt: AttemptRow
    due: float | None = None  # while pending: when it leaves again, unless the breaker holds it back for longer
    is_in_order: bool = True  # False: replayed or redelivered, outside of the object's order
