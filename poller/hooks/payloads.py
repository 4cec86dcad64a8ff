"""Arguments of observers: finished polls and attempts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from state.deliveries import AttemptRow, Job
from state.records import Event


class Polled(msgspec.Struct, frozen=True, kw_only=True):
    """A finished poll."""

    source: str
    endpoint: str
    unit: str
    calls: int = 0
    changed: int = 0  # changed objects
    events: tuple[int, ...] = ()  # numbers of its events in the log
    error: str | None = None  # why nothing was recorded


class AttemptFinished(msgspec.Struct, frozen=True, kw_only=True):
    """A finished attempt."""

    subscription: str
    jobs: tuple[Job, ...]
    state: str
    attempt: AttemptRow
    due: float | None = None  # while pending: time of the next attempt, unless the breaker delays it further
    is_in_order: bool = True  # False: replayed or redelivered, outside the object's order
    is_repeated: bool = False  # an earlier failure, or an earlier dead letter, of the same episode was reported


def own(argument: Any) -> Any:
    """The argument for one plugin: it can be changed nowhere but in the parsed data of its events."""
    if isinstance(argument, Event):
        return replace(argument)
    if isinstance(argument, AttemptFinished):
        jobs = (msgspec.structs.replace(job, event=replace(job.event)) for job in argument.jobs)
        return msgspec.structs.replace(argument, jobs=tuple(jobs))
    return argument
