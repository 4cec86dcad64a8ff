"""A wakeup that a loop waits for between two rounds."""

from __future__ import annotations

import asyncio

from poller.clock import Clock


class Wakeup:
    """Waits until `set` is called or a time has come, whichever is first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether a wait would end at once."""
        return self._event.is_set()

    def set(self) -> None:
        """End the wait, or the next one."""
        self._event.set()

    async def wait(self, until: float | None = None) -> None:
        """Return when it was set, at `until` at the latest (Unix seconds); sometimes without a reason."""
        if until is not None:
            self._set_alarm(until)
        await self._event.wait()
        self._event.clear()

    async def close(self) -> None:
        """End the timer."""
        if self._alarm is not None:
            self._alarm.cancel()
            await asyncio.wait([self._alarm])

    def _set_alarm(self, until: float) -> None:
        """Set the timer. An earlier one stays, because ending a wait too early is cheaper than a task for every
        wait.
        """
        if self._alarm is not None and not self._alarm.done():
            if self._alarm_at <= until:
                return
            self._alarm.cancel()
        self._alarm_at = until
        self._alarm = asyncio.create_task(self._set_at(until))

    async def _set_at(self, until: float) -> None:
        await self._clock.sleep(max(0.0, until - self._clock.now()))
        self._event.set()
