"""Clocks: wall time for people and events, and steady time for budgets.

People, NTP and daylight saving set the wall clock. If a budget used it, a clock set forward would let too many calls
out; and after a clock is set back, a new answer would look older than what it replaces. So `now` never jumps by itself:
it advances with steady time, and adopts a changed wall clock only in `follow_wall`, once everything that compares times
is ready for it.

Steady time starts at the wall time and advances with the kernel's time since boot, including suspend. After a restart
it continues from the saved anchor, independent of the wall clock. After a reboot only the wall clock can say how long
the machine was off. It may have been set before the anchor was saved, and may have been corrected since: the time that
has passed is the shorter one of what the wall shows since then and of what it shows beyond steady time, and never
negative. So steady time is ahead of the true one only where the wall clock was set ahead after the latest call, by more
than it was behind.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import msgspec

JUMP: Final = 1.0  # seconds of deviation from which a wall clock counts as set rather than adjusted gradually
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Source of time for the engine."""

    def now(self) -> float:
        """Wall time in Unix seconds, for events and for people."""
        ...

    def steady(self) -> float:
        """Steady time in seconds, for budgets: it never goes back and never jumps. Close to Unix seconds, but not wall
        time.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` of steady time have passed."""
        ...

    def look(self) -> float:
        """The number of seconds by which the wall clock was set since it was last followed; 0.0 if it was not set."""
        ...

    def follow_wall(self) -> None:
        """Adopt the time to which the wall clock was set."""
        ...


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """Steady time at one moment of a boot; saved with every recorded call."""

    boot_id: str
    boottime: float  # seconds since boot, including suspend
    steady: float
    wall: float  # what the wall clock showed at that moment

    def __str__(self) -> str:
        return f"{self.boot_id} {self.boottime!r} {self.steady!r} {self.wall!r}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """Parse what `str` wrote, or an earlier version did without the wall clock. Raises ValueError."""
        boot_id, boottime, steady, *wall = text.split(" ")
        return cls(
            boot_id=boot_id,
            boottime=float(boottime),
            steady=float(steady),
            wall=float(wall[0]) if wall else float(steady),
        )

    def after_reboot(self, wall: float) -> float:
        """The steady time at which another boot begins whose wall clock shows this time."""
        return self.steady + max(0.0, min(wall - self.wall, wall - self.steady))


def boottime() -> float:
    """Seconds since boot, including suspend where the system provides that (Linux)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str:
    """The id of this boot; empty if the system has none, so that every start counts as a new boot."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class SystemClock:
    """Clock of the machine."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        boottime: Callable[[], float] = boottime,
        boot: str | None = None,
    ) -> None:
        self._wall = wall
        self._boottime = boottime
        self._boot = boot_id() if boot is None else boot
        self._offset = wall() - boottime()
        self._ahead = 0.0  # by how much `now` is ahead of steady time

    @classmethod
    def resume(
        cls,
        saved: Anchor | str | None,
        *,
        wall: Callable[[], float] = time.time,
        boottime: Callable[[], float] = boottime,
        boot: str | None = None,
    ) -> SystemClock:
        """A clock whose steady time continues from the anchor. An anchor that cannot be read is ignored."""
        clock = cls(wall=wall, boottime=boottime, boot=boot)
        clock.follow(_anchor(saved))
        clock.follow_wall()
        return clock

    def now(self) -> float:
        """Wall time in Unix seconds, as last followed."""
        return self.steady() + self._ahead

    def look(self) -> float:
        """See `Clock`. A deviation of less than a second is not a jump, and is followed at once."""
        moved = self._wall() - self.now()
        if abs(moved) >= JUMP:
            return moved
        self._ahead += moved
        return 0.0

    def follow_wall(self) -> None:
        """See `Clock`."""
        self._ahead = self._wall() - self.steady()

    def steady(self) -> float:
        """Steady time in seconds."""
        return self._boottime() + self._offset

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed."""
        await asyncio.sleep(seconds)

    def anchor(self) -> Anchor:
        """The anchor for the current steady time."""
        since = self._boottime()
        return Anchor(boot_id=self._boot, boottime=since, steady=since + self._offset, wall=self._wall())

    def follow(self, saved: Anchor | None) -> None:
        """Continue from `saved`: exactly within the same boot, otherwise by what the wall clock says."""
        if saved is None:
            return
        since = self._boottime()
        # A time since boot that went back belongs to another machine or container.
        if self._boot and saved.boot_id == self._boot and saved.boottime <= since:
            self._offset = saved.steady - saved.boottime
        else:
            self._offset = saved.after_reboot(self._wall()) - since


def _anchor(saved: Anchor | str | None) -> Anchor | None:
    if not isinstance(saved, str):
        return saved
    try:
        return Anchor.parse(saved)
    except ValueError:
        return None


class VirtualClock:
    """Clock that moves only on command: for tests, the simulator and `poller.testing`."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._steady = start
        self._set = 0.0  # by how much the wall clock was set away from steady time
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> float:
        """Wall time in Unix seconds."""
        return self._steady + self._set

    def steady(self) -> float:
        """Steady time in seconds; only `advance` moves it."""
        return self._steady

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._steady + seconds, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Advance the clock and wake the sleepers that are due, the earliest first. Raises ValueError for a negative
        number.
        """
        if seconds < 0:
            raise ValueError("time does not go back; set_wall moves the wall clock")
        self._steady += seconds
        while self._sleepers and self._sleepers[0][0] <= self._steady:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def next_waking(self) -> float | None:
        """The steady time at which the next sleeper wakes; None if nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def look(self) -> float:
        """See `Clock`; this clock follows the wall as soon as it is set."""
        return 0.0

    def follow_wall(self) -> None:
        """See `Clock`."""

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back if negative; steady time does not change."""
        self._set += seconds
