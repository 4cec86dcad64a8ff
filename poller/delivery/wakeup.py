"""What lies between many tasks and one store: a bell to wait for, and commits that are shared."""

from __future__ import annotations

import asyncio

from poller.clock import Clock
from state.deliveries import DeliveryStore, Turn, Turned
from state.errors import StateError
from state.sqlite.writer import Write


class Bell:
    """Waits until somebody rings or an instant has come, whichever is first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0

    @property
    def is_rung(self) -> bool:
        """Whether a wait would end at once."""
        return self._rung.is_set()

    def ring(self) -> None:
        """End the wait, or the next one."""
        self._rung.set()

    async def wait(self, until: float | None = None) -> None:
        """Return when it was rung, at `until` at the latest (Unix seconds); now and then for no reason."""
        if until is not None:
            self._set_alarm(until)
        await self._rung.wait()
        self._rung.clear()

    async def close(self) -> None:
        """End the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
            await asyncio.wait([self._alarm])

    def _set_alarm(self, until: float) -> None:
        """An alarm that is set for earlier stays: a wait that ends too early is cheaper than a task for every wait."""
        if self._alarm is not None and not self._alarm.done():
            if self._alarm_at <= until:
                return
            self._alarm.cancel()
        self._alarm_at = until
        self._alarm = asyncio.create_task(self._ring_at(until))

    async def _ring_at(self, until: float) -> None:
        await self._clock.sleep(max(0.0, until - self._clock.now()))
        self._rung.set()


class Turns:
    """Turns of many subscriptions, written together: what arrives while a commit runs shares the next one."""

    def __init__(self, store: DeliveryStore, write: Write) -> None:
        self._store = store
        self._write = write
        self._waiting: list[tuple[Turn, asyncio.Future[Turned]]] = []
        self._lock = asyncio.Lock()

    async def __call__(self, turn: Turn) -> Turned:
        """Write one turn. Raises StateError when the whole commit could not be written."""
        future: asyncio.Future[Turned] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, future))
        async with self._lock:
            if not future.done():
                batch, self._waiting = self._waiting, []
                # Whoever carries the batch may be cancelled; what the others have in it is written all the same.
                await asyncio.shield(asyncio.ensure_future(self._commit(batch)))
        return await future

    async def _commit(self, batch: list[tuple[Turn, asyncio.Future[Turned]]]) -> None:
        try:
            given = await self._write(self._store.turn, [turn for turn, _ in batch])
        except StateError as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # whoever waited for it may be gone
            return
        for (_, future), turned in zip(batch, given, strict=True):
            if not future.done():
                future.set_result(turned)
