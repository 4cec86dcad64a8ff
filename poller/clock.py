"""Two times: the wall's for people and events, and a steady one for budgets.

The wall clock is set by people, NTP and daylight; a budget that trusted it would let more calls out after it
was set forward, and an answer that arrived after it was set back would look older than what it replaces. So even
`now` does not jump by itself: it advances with steady time, and takes over a wall clock that was set only when it
is told to (`follow_wall`), once everything that compares times is ready for it.

Steady time begins as the wall's, advances with the kernel's time since boot (suspend included) and goes on from the
saved anchor after a restart, whatever the wall clock says by then. Only across a reboot, when nothing else is left, it
follows the wall again, and never back behind the anchor.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Protocol

JUMP: Final = 1.0  # seconds by which a wall clock was set, rather than slowed down or sped up
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Where the engine gets its time from."""

    def now(self) -> float:
        """Wall time, Unix seconds: for events and what people read."""
        ...

    def steady(self) -> float:
        """Seconds that never go back and never jump: for budgets. Near Unix seconds, but not wall time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` of steady time have passed."""
        ...

    def look(self) -> float:
        """How far the wall clock was set since it was last followed, in seconds; 0.0 where it was not."""
        ...

    def follow_wall(self) -> None:
        """Take over the time to which the wall clock was set."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Where steady time stood at a moment of a boot; saved with every call that is written down."""

    boot_id: str
    boottime: float  # seconds since boot, suspend included
    steady: float

    def __str__(self) -> str:
        return f"{self.boot_id} {self.boottime!r} {self.steady!r}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """The anchor that `str` wrote. Raises ValueError."""
        boot_id, boottime, steady = text.rsplit(" ", 2)
        return cls(boot_id=boot_id, boottime=float(boottime), steady=float(steady))


def boottime() -> float:
    """Seconds since boot, suspend included where the system can tell (Linux)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str:
    """The name of this boot, empty where the system has none (then every start counts as a new boot)."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class SystemClock:
    """The machine's clocks."""

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
        self._ahead = 0.0  # of `now` before steady time

    @classmethod
    def resume(
        cls,
        saved: Anchor | str | None,
        *,
        wall: Callable[[], float] = time.time,
        boottime: Callable[[], float] = boottime,
        boot: str | None = None,
    ) -> SystemClock:
        """A clock whose steady time goes on from the anchor. One that cannot be read counts as none."""
        clock = cls(wall=wall, boottime=boottime, boot=boot)
        clock.follow(_anchor(saved))
        clock.follow_wall()
        return clock

    def now(self) -> float:
        """Wall time, Unix seconds, as it was last followed."""
        return self.steady() + self._ahead

    def look(self) -> float:
        """See `Clock`. What is less than a second is no jump, and followed at once."""
        moved = self._wall() - self.now()
        if abs(moved) >= JUMP:
            return moved
        self._ahead += moved
        return 0.0

    def follow_wall(self) -> None:
        """See `Clock`."""
        self._ahead = self._wall() - self.steady()

    def steady(self) -> float:
        """Seconds that never go back and never jump."""
        return self._boottime() + self._offset

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed."""
        await asyncio.sleep(seconds)

    def anchor(self) -> Anchor:
        """Where steady time stands now."""
        since = self._boottime()
        return Anchor(boot_id=self._boot, boottime=since, steady=since + self._offset)

    def follow(self, saved: Anchor | None) -> None:
        """Go on from `saved`: exactly within the same boot, else at the wall's time but not before it."""
        if saved is None:
            return
        since = self._boottime()
        # A time since boot that went back is another machine's or another container's.
        if self._boot and saved.boot_id == self._boot and saved.boottime <= since:
            self._offset = saved.steady - saved.boottime
        else:
            self._offset = max(self._wall(), saved.steady) - since


def _anchor(saved: Anchor | str | None) -> Anchor | None:
    if not isinstance(saved, str):
        return saved
    try:
        return Anchor.parse(saved)
    except ValueError:
        return None


class VirtualClock:
    """A clock that moves only when told: for tests, the simulator and `poller.testing`."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._steady = start
        self._set = 0.0  # how far the wall was set away from steady time
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> float:
        """Wall time, Unix seconds."""
        return self._steady + self._set

    def steady(self) -> float:
        """Seconds that only `advance` moves."""
        return self._steady

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._steady + seconds, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move on and wake who has slept long enough, the earliest first. Raises ValueError if negative."""
        if seconds < 0:
            raise ValueError("time does not go back; set_wall moves the wall clock")
        self._steady += seconds
        while self._sleepers and self._sleepers[0][0] <= self._steady:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def next_waking(self) -> float | None:
        """Steady time at which the next sleeper wants to wake; None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def look(self) -> float:
        """See `Clock`: this one is followed as it is set."""
        return 0.0

    def follow_wall(self) -> None:
        """See `Clock`."""

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back if negative; steady time does not move."""
        self._set += seconds
