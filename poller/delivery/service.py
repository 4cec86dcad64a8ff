"""Deliveries -> sinks: one consumer per subscription, and the dispatcher that feeds them from the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

import structlog

from poller.clock import Clock
from poller.delivery.consumer import Consumer, Shared
from poller.delivery.dispatch import BATCH, Wanted, read_on
from poller.delivery.notices import dropped
from poller.delivery.settlement import AttemptFinished
from poller.delivery.subscription import Route
from poller.delivery.wakeup import Wakeup
from poller.events.cloudevents import iso
from state.deliveries import Dispatched
from state.errors import Conflict, LeaseLost, StateError, Unavailable
from state.leases import FOREVER, LOCAL, Lease, Worker, subscription_lease
from state.records import Event
from state.steps import Steps
from state.store import DeliverySteps, Leases

ATTEMPT_LIMIT = 60.0  # seconds of one attempt, whole; sinks have shorter ones of their own
GRACE = 10.0  # seconds in which attempts may end when the program stops

_LOUD = {"delivered": "debug", "pending": "info", "dead": "warning"}

log = structlog.get_logger("poller.delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A consumer at work."""

    lease: Lease
    consumer: Consumer
    task: asyncio.Task[None]
    stop: asyncio.Event


class Deliverer:
    """Everything between the log and the sinks, running."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        store: DeliverySteps,
        leases: Leases,
        write: Steps,
        worker: Worker = LOCAL,
        clock: Clock,
        random: Random | None = None,
        limit: float = ATTEMPT_LIMIT,
        grace: float = GRACE,
        finished: Callable[[AttemptFinished], None] | None = None,
    ) -> None:
        self._store = store
        self._steps = write
        self.clock = clock
        self.random = random or Random()
        self.limit = limit
        self.grace = grace
        self._leases = leases
        self._worker = worker
        self._observe = finished
        self._wanted = _compile(routes)
        self.ears: list[Callable[[], None]] = []  # called when the log has grown
        self._posts: dict[str, Post] = {}
        self._leaving: list[Post] = []  # of subscriptions that other workers own by now
        self._wakeup = Wakeup(clock)
        self._calm = Wakeup(clock)
        self._resting = False
        self._posting = asyncio.Lock()
        self._running = False
        self._failed = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then end within seconds. Raises StateError where the state cannot be written."""
        self._running = True
        try:
            await self._insist(self._post, stop)
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

    async def _insist(self, act: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Do something as soon as the state can be written, which somebody else sees to."""
        while not stop.is_set():
            with contextlib.suppress(Unavailable):
                await act()
                return
            await self.clock.sleep(1.0)

    async def purge(self, before: float) -> int:
        """Forget the events from before that time, and return how many; what was not given by then is told."""
        total = 0
        while (old := await self._steps(self._store.expiring, before)) is not None:
            now = self.clock.now()
            notices = [dropped(name, events, now=now) for name, events in old.dropped.items()]
            with contextlib.suppress(Conflict):  # somebody was given some of them meanwhile: counted again
                total += await self._steps(self._store.purge, old, before=before, notices=notices)
        if total:
            self.wake()
        return total

    def log_grew(self) -> None:
        """Something was recorded, or there is room to read on."""
        self._resting = False
        self._wakeup.set()
        for hear in self.ears:
            hear()

    def _finished(self, attempt: AttemptFinished) -> None:
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
        await self._steps(self._store.register, registrations, now=self.clock.now())

    async def _post(self) -> None:
        """Make the subscriptions known, take their leases, and give each its consumer."""
        async with self._posting:
            await self._register()
            by_lease = {subscription_lease(one.route.subscription.name): one for one in self._wanted}
            leases = await self._steps(self._leases.take, self._worker, list(by_lease), most=len(by_lease), ttl=FOREVER)
            for lease in leases:
                self._start(by_lease[lease.name].route, lease)

    def _start(self, route: Route, lease: Lease) -> None:
        consumer, stop = Consumer(route, lease, self._shared()), asyncio.Event()
        task = asyncio.create_task(consumer.run(stop), name=f"consumer {route.subscription.name}")
        task.add_done_callback(self._notice_failure)
        self._posts[route.subscription.name] = Post(lease=lease, consumer=consumer, task=task, stop=stop)

    def _shared(self) -> Shared:
        return Shared(
            store=self._store,
            steps=self._steps,
            clock=self.clock,
            random=self.random,
            limit=self.limit,
            grace=self.grace,
            log_grew=self.log_grew,
            at_rest=self._calm.set,
            finished=self._finished,
        )

    async def _recall(self) -> None:
        """End all consumers, each with what it is just doing."""
        posts, self._posts, self._leaving = [*self._posts.values(), *self._leaving], {}, []
        for post in posts:
            post.stop.set()
            post.consumer.wake()
        for result in await asyncio.gather(*(post.task for post in posts), return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, LeaseLost):
                raise result

    def _notice_failure(self, task: asyncio.Task[None]) -> None:
        """A consumer ends by itself only where its lease is another's; anything else that it raised ends the run."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, LeaseLost):
            for name in [name for name, post in self._posts.items() if post.task is task]:
                self._drop(name, error)
            return
        self._failed = True
        self._wakeup.set()

    def _drop(self, name: str, lost: LeaseLost) -> None:
        """End a subscription that another worker owns by now: what it has in hand is not written."""
        log.warning("subscription.lease_lost", subscription=name, error=str(lost))
        post = self._posts.pop(name)
        self._leaving = [one for one in self._leaving if not one.task.done()] + [post]
        post.stop.set()
        post.consumer.wake()

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
        """Read on for every subscription that has room; whether there may be more to read at once."""
        try:
            return await self._dispatch_once()
        except Conflict:
            return True
        except StateError as error:
            if not isinstance(error, Unavailable):  # that is reported once, where the outage is seen through
                log.error("dispatch.not_recorded", error=str(error))
            await self.clock.sleep(1.0)
            return True

    async def _dispatch_once(self) -> bool:
        """Events are read once for all subscriptions whose cursor is at the same number."""
        wanted = {one.route.subscription.name: one for one in self._wanted}
        posts = {name: post for name, post in self._posts.items() if name in wanted}
        feeds = await self._steps(self._store.feeds, [post.lease for post in posts.values()])
        now = self.clock.now()
        read: dict[int, list[Event]] = {}
        dispatched: dict[str, list[Dispatched]] = {}
        for feed in feeds:
            if feed.cursor not in read:
                read[feed.cursor] = await self._steps(self._store.read, feed.cursor, BATCH)
            one = read_on(feed, read[feed.cursor], wanted[feed.subscription], now=now)
            dispatched.setdefault(feed.subscription, []).append(one)
            await asyncio.sleep(0)  # the loop goes on between two subscriptions
        written = await asyncio.gather(  # in one commit
            *(self._steps(self._store.dispatch, posts[name].lease, ones, now=now) for name, ones in dispatched.items()),
            return_exceptions=True,
        )
        for name, ones in dispatched.items():
            if any(one.matches for one in ones) and name in self._posts:
                self._posts[name].consumer.wake()
        for name, failure in zip(dispatched, written, strict=True):
            if isinstance(failure, LeaseLost) and name in self._posts:
                self._drop(name, failure)
            elif isinstance(failure, BaseException):
                raise failure
        return any(one.upto > one.feed.cursor and not one.done for ones in dispatched.values() for one in ones)


def _compile(routes: Sequence[Route]) -> list[Wanted]:
    return [Wanted(route=route, filter=route.filter()) for route in routes]
