"""Pure: how the sweep under way of one endpoint goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from poller.changes.comparison import RequestTimes
from poller.polling.unit_keys import CHILD, is_swept
from state.polls import EndpointState, Sweep, UnitState

GIVEN_UP: Final = 3  # failures in a row after which a sweep no longer waits for a list per parent


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
    is_new: bool = False  # it showed objects that were not known


class SweepProgress:
    """The units that a sweep still waits for, and what the others have shown. Requests before `order` do not count."""

    def __init__(self, state: EndpointState, units: Mapping[str, UnitState]) -> None:
        self.order = state.sweep_order
        unseen = {key: unit for key, unit in units.items() if is_swept(key) and unit.asked_order < self.order}
        self.given_up = {key for key, unit in unseen.items() if is_given_up(unit)}  # lists that it does not wait for
        self.pending = unseen.keys() - self.given_up
        self.has_seen = any(is_swept(key) and key not in unseen for key in units)  # a unit went well in it
        self.steady = True  # nothing moved between units
        self.confirms = True  # nothing was too odd to prove that anything is gone
        self.nonempty = False
        self.repeated: dict[str, None] = {}  # ids that two units have shown
        self.clashes: dict[str, None] = {}  # ids under which two units have shown different objects
        self.is_new = False  # it has shown objects that were not known

    def interrupt(self) -> None:
        """What moved, or was empty, in this sweep before a restart is not known any more."""
        self.steady = self.confirms = False
        self.is_new = True

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to wait for. Where lists are given up, at least one other was seen."""
        return not self.pending and (self.has_seen or not self.given_up)

    def give_up(self, unit: UnitState) -> None:
        """Wait no longer for a list per parent that has failed several times."""
        if unit.key in self.pending and is_given_up(unit):
            self.pending.discard(unit.key)
            self.given_up.add(unit.key)

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
            if seen.asked.order >= self.order:
                self.has_seen = True
                self.given_up.discard(seen.key)
            self.steady &= seen.steady
            self.confirms &= seen.confirms
            self.nonempty |= seen.nonempty
            self.repeated |= dict.fromkeys(seen.repeated)
            self.clashes |= dict.fromkeys(seen.clashes)
            self.is_new |= seen.is_new

    def wait_for(self, keys: Iterable[str]) -> None:
        """Wait for units that have appeared."""
        self.pending.update(key for key in keys if is_swept(key))

    def forget(self, key: str) -> None:
        """Wait no longer for a unit that is no more."""
        self.pending.discard(key)
        self.given_up.discard(key)

    def _done(self, seen: Seen) -> set[str]:
        done = {seen.key, *seen.dropped} if seen.asked.order >= self.order else set(seen.dropped)
        return done & self.pending


def is_given_up(unit: UnitState) -> bool:
    """Whether sweeps do without the unit: one list of many, which fails again and again."""
    return unit.key.startswith(CHILD) and unit.failures >= GIVEN_UP
