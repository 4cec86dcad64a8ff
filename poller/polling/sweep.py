"""Progress of the current sweep of one endpoint. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from poller.changes.comparison import RequestTimes
from poller.polling.unit_keys import CHILD, is_swept
from state.polls import EndpointState, Sweep, UnitState

GIVEN_UP: Final = 3  # consecutive failures after which a sweep stops waiting for a list per parent


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one poll contributes to the current sweep."""

    key: str
    asked: RequestTimes
    added: Sequence[str] = ()  # keys of units that it added
    dropped: Sequence[str] = ()  # keys of units that it removed
    steady: bool = True  # no object moved between units
    confirms: bool = True  # normal enough to prove that objects are gone
    nonempty: bool = True  # it showed objects
    repeated: Sequence[str] = ()  # ids that another unit has also shown in this sweep
    clashes: Sequence[str] = ()  # ids that name other objects in another unit
    is_new: bool = False  # it showed unknown objects
    hides: bool = False  # it still shows nothing, although the list goes on after it


class SweepProgress:
    """The units that a sweep still waits for, and what the others have shown. Requests before `order` do not count."""

    def __init__(self, state: EndpointState, units: Mapping[str, UnitState]) -> None:
        self.order = state.sweep_order
        unseen = {key: unit for key, unit in units.items() if is_swept(key) and unit.asked_order < self.order}
        self.given_up = {key for key, unit in unseen.items() if is_given_up(unit)}  # lists that it does not wait for
        self.pending = unseen.keys() - self.given_up
        self.has_seen = any(is_swept(key) and key not in unseen for key in units)  # whether a unit succeeded in it
        self.steady = True  # no object moved between units
        self.confirms = True  # every poll was normal enough to prove that objects are gone
        self.nonempty = False
        self.repeated: dict[str, None] = {}  # ids that two units have shown
        self.clashes: dict[str, None] = {}  # ids under which two units have shown different objects
        self.is_new = False  # it has shown unknown objects
        self.hiding: dict[str, None] = {}  # keys of units that still show nothing, although the list goes on after them
        asked = [unit.asked_at for key, unit in units.items() if is_swept(key) and key not in unseen]
        self.since = min([state.sweep_began, *(at for at in asked if at is not None)])  # the time that it shows

    def interrupt(self) -> None:
        """Note a restart: whether objects moved or pages were empty before it is not known."""
        self.steady = self.confirms = False
        self.is_new = True

    @property
    def is_done(self) -> bool:
        """Whether no unit is left to wait for. If lists were given up, at least one other was read."""
        return not self.pending and (self.has_seen or not self.given_up)

    def give_up(self, unit: UnitState) -> None:
        """Stop waiting for a list per parent that has failed several times."""
        if unit.key in self.pending and is_given_up(unit):
            self.pending.discard(unit.key)
            self.given_up.add(unit.key)

    def ended_by(self, seen: Seen) -> Sweep | None:
        """The sweep that this poll completes, or None."""
        may_be_done = not seen.added and len(self.pending) <= 1 + len(seen.dropped)
        if not (may_be_done and is_swept(seen.key)) or len(self.pending) > len(self._done(seen)):
            return None
        return Sweep(
            ended_at=seen.asked.answered_at,
            ended_order=seen.asked.answered_order,
            began=min(self.since, seen.asked.at),
            steady=self.steady and seen.steady,
            confirms=self.confirms and seen.confirms and (self.nonempty or seen.nonempty),
        )

    def take(self, seen: Seen) -> None:
        """Count a poll."""
        self.pending -= self._done(seen)
        if is_swept(seen.key):
            if seen.asked.order >= self.order:
                self.has_seen = True
                self.since = min(self.since, seen.asked.at)
                self.given_up.discard(seen.key)
            self.steady &= seen.steady
            self.confirms &= seen.confirms
            self.nonempty |= seen.nonempty
            if seen.repeated or seen.clashes:
                self.repeated |= dict.fromkeys(seen.repeated)
                self.clashes |= dict.fromkeys(seen.clashes)
            self.is_new |= seen.is_new
            if seen.hides:
                self.hiding[seen.key] = None

    def wait_for(self, keys: Iterable[str]) -> None:
        """Wait for new units."""
        self.pending.update(key for key in keys if is_swept(key))

    def forget(self, key: str) -> None:
        """Stop waiting for a unit that no longer exists."""
        self.pending.discard(key)
        self.given_up.discard(key)

    def _done(self, seen: Seen) -> set[str]:
        done = {seen.key, *seen.dropped} if seen.asked.order >= self.order else set(seen.dropped)
        return done & self.pending


def is_given_up(unit: UnitState) -> bool:
    """Whether sweeps do without the unit: a list per parent that fails again and again."""
    return unit.key.startswith(CHILD) and unit.failures >= GIVEN_UP
