"""The running consumers: one for each subscription whose lease this worker holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from poller.delivery.consumer import Consumer, Shared
from poller.delivery.subscription import Route
from state.errors import LeaseLost, Unavailable
from state.leases import Lease

log = structlog.get_logger("poller.delivery")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer, and the event that ends it."""

    lease: Lease
    consumer: Consumer
    task: asyncio.Task[None]
    stop: asyncio.Event

    def end(self) -> None:
        """Let it finish its attempts, and stop."""
        self.stop.set()
        self.consumer.wake()


class Consumers:
    """Starts and ends consumers. `failed` is called if one ends by an error other than the loss of its lease."""

    def __init__(self, shared: Shared, *, failed: Callable[[], None]) -> None:
        self._shared = shared
        self._failed = failed
        self._running: dict[str, Running] = {}
        self._leaving: list[Running] = []  # consumers of subscriptions that other workers own now

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, route: Route, lease: Lease) -> None:
        """Deliver a subscription from now on."""
        consumer, stop = Consumer(route, lease, self._shared), asyncio.Event()
        task = asyncio.create_task(consumer.run(stop), name=f"consumer {lease.subject}")
        task.add_done_callback(self._ended)
        self._running[lease.subject] = Running(lease=lease, consumer=consumer, task=task, stop=stop)

    async def end(self, name: str | None = None) -> None:
        """End one or all consumers, after their running attempts. Raises the exception of one that failed."""
        if name is not None:
            ending = [one for one in (self._running.pop(name, None),) if one is not None]
        else:
            ending, self._running, self._leaving = [*self._running.values(), *self._leaving], {}, []
        for one in ending:
            one.end()
        for result in await asyncio.gather(*(one.task for one in ending), return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, LeaseLost):
                raise result

    def drop(self, name: str, lost: LeaseLost) -> None:
        """End a subscription that another worker owns now, without writing its results."""
        if (one := self._running.pop(name, None)) is not None:
            log.warning("subscription.lease_lost", subscription=name, error=str(lost))
            self._leaving = [*(left for left in self._leaving if not left.task.done()), one]
            one.end()

    def wake(self, name: str | None = None) -> None:
        """Tell one or all consumers that the store has something new."""
        for subject, one in self._running.items():
            if name is None or subject == name:
                one.consumer.wake()

    @property
    def leases(self) -> list[Lease]:
        """The leases of the subscriptions that are delivered here."""
        return [one.lease for one in self._running.values()]

    @property
    def are_idle(self) -> bool:
        """Whether nothing is under way, to be written, or due."""
        return all(one.consumer.is_idle for one in self._running.values())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Report a consumer that ended by itself, unless its lease was lost."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        names = [name for name, one in self._running.items() if one.task is task]
        if not isinstance(error, LeaseLost) and (names or not isinstance(error, Unavailable)):
            self._failed()
            return
        self._leaving = [one for one in self._leaving if one.task is not task]
        for name in names:
            self.drop(name, LeaseLost(str(error)))
