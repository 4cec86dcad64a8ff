"""The sandbox's office: a generated world and the activity that changes it, in real time or step by step.

    office = Office(seed=1)
    office.create("customers", name="Bluebird Ltd")
    office.edit("customers", 154601, city="Laval")
    office.advance(3600)  # the changes of an hour in the office

Everything is deterministic by seed; every change that a reader can see is in `office.journal`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plugins.nutcache.profiles import V4, Profile
from plugins.nutcache.sandbox import acts, drafts, seeding
from plugins.nutcache.sandbox.journal import Journal
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.world import Record, World

MONDAY_MORNING = datetime(2026, 11, 23, 14, 0, tzinfo=UTC).timestamp()  # 9:00 in the office's time zone
ACTS_PER_HOUR = 30.0  # in the busiest working hour
# How busy each hour of a working day is, from midnight on.
_HOURS = (1, 1, 1, 1, 1, 1, 3, 15, 60, 100, 100, 90, 40, 60, 100, 100, 90, 50, 20, 10, 6, 4, 2, 1)
_WEEKEND = 0.03


@dataclass(slots=True)
class _Doing:
    """The current act, if any, and the office time of its next change."""

    act: Iterator[None] | None
    due: float


class Office:
    """A world with people in it. `clock` (Unix seconds) dates the journal; the office's own time is `now`.

    Records have the names of the profile. `create`, `edit` and `delete` are single edits for tests; they are
    journaled like everything else and may be called from any thread.
    """

    def __init__(
        self,
        *,
        profile: Profile = V4,
        seed: int = 1,
        size: Size | None = None,
        start: float = MONDAY_MORNING,
        clock: Callable[[], float] = time.time,
        journal_path: Path | None = None,
    ) -> None:
        self.journal = Journal(clock=clock, path=journal_path)
        self.world = World(profile, journal=self.journal, seed=seed, now=start)
        seeding.seed(self.world, size or Size())
        self.journal.open = True
        self._doing = _Doing(None, self._next_act(start))

    @property
    def now(self) -> float:
        """Unix seconds on the office's own clock."""
        return self.world.now

    @property
    def company(self) -> int:
        """Id of the first company that the user is in."""
        return self.world.visible[0]

    # Looking

    def get(self, resource: str, record_id: int) -> dict[str, Any]:
        """The fields of a record, by their documented names. Raises KeyError."""
        return dict(self.world.tables[resource][record_id].values)

    def ids(self, resource: str, *, parent: int | None = None, company: int | None = None) -> list[int]:
        """The ids of a list, ascending; with `parent`, of that parent's list."""
        known = self.world.profile.resources[resource]
        if resource == self.world.profile.companies:
            return list(self.world.visible)
        scope = parent if parent is not None else (company or self.company) if known.tenant else 0
        return list(self.world.ids(resource, scope))

    # Single edits

    def create(self, resource: str, *, record_id: int | None = None, **values: Any) -> int:
        """Add a record and return its id. Fields that are not given get realistic values."""
        with self.world.lock:
            full = drafts.draft(self.world, resource, self.company, values)
            return self.world.add(resource, full, record_id=record_id).id

    def edit(self, resource: str, record_id: int, **values: Any) -> tuple[str, ...]:
        """Set fields, and return the names of those that changed. Raises KeyError for an unknown record or field."""
        with self.world.lock:
            return self.world.change(self.world.tables[resource][record_id], **values)

    def delete(self, resource: str, record_id: int) -> None:
        """Delete a record and its children. Raises KeyError."""
        with self.world.lock:
            self.world.remove(self.world.tables[resource][record_id])

    def soft_delete(self, resource: str, record_id: int) -> None:
        """Set the status that says "deleted" (invoices and expenses)."""
        self.edit(resource, record_id, status=self.world.profile.resources[resource].deleted_status)

    # Activity

    @property
    def due(self) -> float:
        """The office time of the next change."""
        return self._doing.due

    def step(self) -> int:
        """Move the office's clock to the next activity, and return the number of changes."""
        with self.world.lock:
            before = len(self.journal.entries)
            while len(self.journal.entries) == before:
                self.world.now = max(self.world.now, self._doing.due)
                self._go_on()
            return len(self.journal.entries) - before

    def advance(self, seconds: float) -> int:
        """Let `seconds` of office time pass, and return the number of changed records."""
        with self.world.lock:
            before = len(self.journal.entries)
            end = self.world.now + seconds
            while self._doing.due <= end:
                self.world.now = max(self.world.now, self._doing.due)
                self._go_on()
            self.world.now = end
            return len(self.journal.entries) - before

    def _go_on(self) -> None:
        """Continue the current act, or begin another one."""
        act = self._doing.act or self._choose()
        try:
            next(act)
        except StopIteration:
            self._doing = _Doing(None, self._next_act(self.world.now))
        else:
            self._doing = _Doing(act, self.world.now + self.world.random.uniform(2, 20))

    def _choose(self) -> Iterator[None]:
        pick = self.world.random
        weights = [weight for weight, _ in acts.ACTS]
        [(_, act)] = pick.choices(acts.ACTS, weights)
        return act(self.world, pick.choice(self.world.visible))

    def _next_act(self, after: float) -> float:
        """Thinning (Lewis and Shedler 1979): candidates at the busiest rate, kept as often as the hour is busy."""
        at = after
        while True:
            at += self.world.random.expovariate(ACTS_PER_HOUR / 3600)
            if self.world.random.random() < busyness(at):
                return at


def busyness(at: float) -> float:
    """How busy the office is, from 0 to 1, by hour and weekday in its time zone."""
    wall = datetime.fromtimestamp(math.floor(at) + drafts.OFFSET, UTC)
    return _HOURS[wall.hour] / 100 * (_WEEKEND if wall.weekday() >= 5 else 1.0)


def refresh(world: World, resource: str, record: Record) -> None:
    """Update fields that change by themselves: the minutes of running timers."""
    if resource == "timers" and record["status"] == 0:
        started = record["time_start_utc"]
        minutes = max(0, int((world.now - started) / 60))
        world.touch(record, minutes=minutes, email_reminder_sent=minutes > 1440)


def describe(office: Office) -> Mapping[str, int]:
    """The number of records in each table."""
    return {name: len(office.world.tables[name]) for name in office.world.profile.resources}
