"""What lies between many tasks and one store: a wakeup to wait for, and commits that are shared."""

from __future__ import annotations

import asyncio

from poller.clock import Clock
from state.deliveries import DeliveryStore, Settled, Settlement
from state.errors import StateError
from state.sqlite.writer import Write


class Wakeup:
    """Waits until somebody rings or an instant has come, whichever is first."""

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
        """Return when it was set, at `until` at the latest (Unix seconds); now and then for no reason."""
        if until is not None:
            self._set_alarm(until)
        await self._event.wait()
        self._event.clear()

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
        self._alarm = asyncio.create_task(self._set_at(until))

    async def _set_at(self, until: float) -> None:
        await self._clock.sleep(max(0.0, until - self._clock.now()))
        self._event.set()


class SettlementBatches:
    """Settlements of many subscriptions, written together: what arrives while a commit runs shares the next one."""

    def __init__(self, store: DeliveryStore, write: Write) -> None:
        self._store = store
        self._write = write
        self._waiting: list[tuple[Settlement, asyncio.Future[Settled]]] = []
        self._lock = asyncio.Lock()

    async def __call__(self, settlement: Settlement) -> Settled:
        """Write one settlement. Raises StateError when the whole commit could not be written."""
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._waiting.append((settlement, future))
        async with self._lock:
            if not future.done():
                batch, self._waiting = self._waiting, []
                # Whoever carries the batch may be cancelled; what the others have in it is written all the same.
                await asyncio.shield(asyncio.ensure_future(self._commit(batch)))
        return await future

    async def _commit(self, batch: list[tuple[Settlement, asyncio.Future[Settled]]]) -> None:
        try:
            given = await self._write(self._store.settle, [one for one, _ in batch])
        except StateError as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # whoever waited for it may be gone
            return
        for (_, future), settled in zip(batch, given, strict=True):
            if not future.done():
                future.set_result(settled)
