"""Deliveries -> sinks: one consumer per subscription, and the dispatcher that feeds them from the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import structlog

from poller.clock import Clock
from poller.delivery.consumer import Consumer
from poller.delivery.dispatch import Wanted, dispatch
from poller.delivery.notices import dropped
from poller.delivery.settlement import AttemptFinished
from poller.delivery.subscription import Route
from poller.delivery.wakeup import SettlementBatches, Wakeup
from poller.events.cloudevents import iso
from state.deliveries import DeliveryStore
from state.errors import Conflict, StateError, Unavailable
from state.sqlite.writer import Write

ATTEMPT_LIMIT = 60.0  # seconds of one attempt, whole; sinks have shorter ones of their own
GRACE = 10.0  # seconds in which attempts may end when the program stops

_LOUD = {"delivered": "debug", "pending": "info", "dead": "warning"}

log = structlog.get_logger("poller.delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A consumer at work."""

    consumer: Consumer
    task: asyncio.Task[None]
    stop: asyncio.Event


class Deliverer:
    """Everything between the log and the sinks, running."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        store: DeliveryStore,
        write: Write,
        clock: Clock,
        random: Random | None = None,
        limit: float = ATTEMPT_LIMIT,
        grace: float = GRACE,
        finished: Callable[[AttemptFinished], None] | None = None,
    ) -> None:
        self.settle = SettlementBatches(store, write)
        self.clock = clock
        self.random = random or Random()
        self.limit = limit
        self.grace = grace
        self._store = store
        self._write = write
        self._observe = finished
        self._wanted = _compile(routes)
        self.ears: list[Callable[[], None]] = []  # called when the log has grown
        self._posts: dict[str, Post] = {}
        self._wakeup = Wakeup(clock)
        self._calm = Wakeup(clock)
        self._resting = False
        self._posting = asyncio.Lock()
        self._running = False
        self._failed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then end within seconds. Raises StateError where the state cannot be written."""
        await self._insist(self._store.free_leases, stop)
        self._running = True
        try:
            await self._post()
            ending = asyncio.create_task(self._set_at(stop))
            try:
                await self._dispatch(stop)
            finally:
                ending.cancel()
        finally:
            self._running = False
            async with self._posting:
                await self._recall()
            await self._wakeup.close()
            await self._calm.close()

    def wake(self) -> None:
        """Something was recorded, or a command has changed something in the store."""
        self.log_grew()
        for post in self._posts.values():
            post.consumer.wake()

    async def drain(self, until: float | None = None) -> None:
        """Read on to the end of the log and deliver all that is due, then return; at `until` at the latest.

        What waits for a retry or for its digest stays pending.
        """
        stop = asyncio.Event()
        running = asyncio.create_task(self.run(stop))
        try:
            while not (self._is_calm() or running.done() or (until is not None and self.clock.now() >= until)):
                calm = asyncio.create_task(self._calm.wait(until))
                await asyncio.wait([calm, running], return_when=asyncio.FIRST_COMPLETED)
                calm.cancel()
        finally:
            stop.set()
            await running

    def check(self, routes: Sequence[Route]) -> None:
        """Raise ExpressionError for a `where` without sense."""
        _compile(routes)

    async def reconfigure(self, routes: Sequence[Route]) -> None:
        """Go on with these subscriptions. Raises ExpressionError, and changes nothing, for a `where` without sense."""
        wanted = _compile(routes)
        async with self._posting:
            await self._recall()
            self._wanted = wanted
        if self._running:
            await self._post()
            self.wake()
        else:
            await self._register()

    async def resume(self) -> None:
        """Start the couriers that a reconfiguration has ended and could not start again. Raises StateError."""
        if self._running and not self._posts:
            await self._post()

    async def _insist(self, step: Callable[[], None], stop: asyncio.Event) -> None:
        """Take a step as soon as the state can be written, which somebody else sees to."""
        while not stop.is_set():
            with contextlib.suppress(Unavailable):
                await self._write(step)
                return
            await self.clock.sleep(1.0)

    async def purge(self, before: float) -> int:
        """Forget the events from before that time, and return how many; what was not given by then is told."""
        total = 0
        while (old := await self._write(self._store.expiring, before)) is not None:
            now = self.clock.now()
            notices = [dropped(name, events, now=now) for name, events in old.dropped.items()]
            with contextlib.suppress(Conflict):  # somebody was given some of them meanwhile: counted again
                total += await self._write(self._store.purge, old, before=before, notices=notices)
        if total:
            self.wake()
        return total

    # What consumers ask for.

    def log_grew(self) -> None:
        """Something was recorded, or there is room to read on."""
        self._resting = False
        self._wakeup.set()
        for hear in self.ears:
            hear()

    def at_rest(self) -> None:
        """A consumer has nothing to do for now."""
        self._calm.set()

    def finished(self, attempt: AttemptFinished) -> None:
        """An attempt is over."""
        getattr(log, _LOUD[attempt.state])(
            "delivery.failed" if attempt.state == "pending" else f"delivery.{attempt.state}",
            subscription=attempt.subscription,
            sequence=attempt.jobs[0].event.seq,
            attempt=attempt.attempt.number,
            status=attempt.attempt.status,
            **({} if attempt.due is None else {"next_attempt": iso(attempt.due)}),
        )
        if self._observe is not None:
            self._observe(attempt)

    def _is_calm(self) -> bool:
        return self._resting and not self._wakeup.is_set and all(post.consumer.is_idle for post in self._posts.values())

    async def _register(self) -> None:
        registrations = [one.route.registration(self.clock.now()) for one in self._wanted]
        await self._write(self._store.register, registrations, now=self.clock.now())

    async def _post(self) -> None:
        """Make the subscriptions known and give each its consumer."""
        async with self._posting:
            await self._register()
            for one in self._wanted:
                consumer, stop = Consumer(one.route, self), asyncio.Event()
                task = asyncio.create_task(consumer.run(stop), name=f"consumer {one.route.subscription.name}")
                task.add_done_callback(self._notice_failure)
                self._posts[one.route.subscription.name] = Post(consumer=consumer, task=task, stop=stop)

    async def _recall(self) -> None:
        """End all consumers, each with what it is just doing."""
        posts, self._posts = list(self._posts.values()), {}
        for post in posts:
            post.stop.set()
            post.consumer.wake()
        for result in await asyncio.gather(*(post.task for post in posts), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _notice_failure(self, task: asyncio.Task[None]) -> None:
        """A consumer never ends by itself: what it raised ends the run."""
        if not task.cancelled() and task.exception() is not None:
            self._failed = True
            self._wakeup.set()

    async def _set_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wakeup.set()

    async def _dispatch(self, stop: asyncio.Event) -> None:
        """Read the log on whenever it has grown or somebody has room again."""
        while not (stop.is_set() or self._failed):
            more = await self._read_on()
            if not more:
                self._resting = not self._wakeup.is_set
                self._calm.set()
                await self._wakeup.wait()
                self._resting = False

    async def _read_on(self) -> bool:
        """One step; whether there may be more to read at once."""
        try:
            done = await self._write(dispatch, self._store, self._wanted, now=self.clock.now())
        except Conflict:
            return True
        except StateError as error:
            if not isinstance(error, Unavailable):  # that is told once, where the outage is seen through
                log.error("dispatch.not_recorded", error=str(error))
            await self.clock.sleep(1.0)
            return True
        for name in done.queued & self._posts.keys():
            self._posts[name].consumer.wake()
        return done.more


def _compile(routes: Sequence[Route]) -> list[Wanted]:
    return [Wanted(route=route, filter=route.filter()) for route in routes]
