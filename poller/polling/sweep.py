"""Pure: how the sweep under way of one endpoint goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from poller.changes.page import RequestTimes
from poller.polling.unit_keys import is_swept
from state.polls import EndpointState, Sweep, UnitState


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll means to the sweep under way."""

    key: str
    asked: RequestTimes
    added: Sequence[str] = ()  # keys of units that appear after it
    dropped: Sequence[str] = ()  # keys of units that are no more
    steady: bool = True  # nothing moved to or from other units
    confirms: bool = True  # not too odd to prove that anything is gone
    nonempty: bool = True  # it showed objects
    repeated: Sequence[str] = ()  # ids that another unit has shown in this sweep, too
    clashes: Sequence[str] = ()  # ids that belong to other objects of another unit


class SweepProgress:
    """The units that a sweep still waits for, and what the others have shown. Requests before `order` do not count."""

    def __init__(self, state: EndpointState, units: Mapping[str, UnitState]) -> None:
        self.order = state.sweep_order
        self.pending = {key for key, unit in units.items() if is_swept(key) and unit.asked_order < self.order}
        self.steady = True  # nothing moved between units
        self.confirms = True  # nothing was too odd to prove that anything is gone
        self.nonempty = False
        self.repeated: dict[str, None] = {}  # ids that two units have shown
        self.clashes: dict[str, None] = {}  # ids under which two units have shown different objects

    def interrupt(self) -> None:
        """What moved, or was empty, in this sweep before a restart is not known any more."""
        self.steady = self.confirms = False

    def ended_by(self, seen: Seen) -> Sweep | None:
        """The sweep that this poll completes, if it does."""
        if not is_swept(seen.key) or seen.added or len(self.pending) > len(self._done(seen)):
            return None
        return Sweep(
            ended_at=seen.asked.answered_at,
            ended_order=seen.asked.answered_order,
            steady=self.steady and seen.steady,
            confirms=self.confirms and seen.confirms and (self.nonempty or seen.nonempty),
        )

    def take(self, seen: Seen) -> None:
        """Count a poll."""
        self.pending -= self._done(seen)
        if is_swept(seen.key):
            self.steady &= seen.steady
            self.confirms &= seen.confirms
            self.nonempty |= seen.nonempty
            self.repeated |= dict.fromkeys(seen.repeated)
            self.clashes |= dict.fromkeys(seen.clashes)

    def wait_for(self, keys: Iterable[str]) -> None:
        """Wait for units that have appeared."""
        self.pending.update(key for key in keys if is_swept(key))

    def forget(self, key: str) -> None:
        """Wait no longer for a unit that is no more."""
        self.pending.discard(key)

    def _done(self, seen: Seen) -> set[str]:
        done = {seen.key, *seen.dropped} if seen.asked.order >= self.order else set(seen.dropped)
        return done & self.pending
