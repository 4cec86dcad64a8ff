"""Delivery as a whole: deliveries are read from the log, and each subscription has a consumer that makes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Literal

import structlog

from poller.clock import Clock
from poller.delivery.consumer import Shared
from poller.delivery.consumers import Consumers
from poller.delivery.dispatch import Wanted, dispatch
from poller.delivery.notices import dropped
from poller.delivery.subscription import Route
from poller.delivery.wakeup import Wakeup
from poller.events.cloudevents import iso
from poller.hooks.payloads import AttemptFinished
from state.errors import Conflict, Held, StateError, Unavailable
from state.leases import FOREVER, LOCAL, Worker, subscription_lease
from state.steps import Steps
from state.store import DeliverySteps, Leases

ATTEMPT_LIMIT = 60.0  # seconds of one whole attempt; sinks have shorter limits
GRACE = 10.0  # seconds that attempts have to end when the program stops

_LOUD = {"delivered": "debug", "pending": "info", "dead": "warning"}

log = structlog.get_logger("poller.delivery")


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
        valid_until: Callable[[], float] | None = None,
        clock: Clock,
        random: Random | None = None,
        limit: float = ATTEMPT_LIMIT,
        grace: float = GRACE,
        finished: Callable[[AttemptFinished], None] | None = None,
    ) -> None:
        self.shared = Shared(
            store=store,
            steps=write,
            clock=clock,
            random=random or Random(),
            limit=limit,
            grace=grace,
            log_grew=self.log_grew,
            at_rest=lambda: self._calm.set(),
            finished=partial(_report, finished),
            valid_until=valid_until,
        )
        self.ears: list[Callable[[], None]] = []  # called when the log has grown
        self._store = store
        self._leases = leases
        self._worker = worker
        self._is_shared = valid_until is not None  # other workers deliver as well: see `handover`
        self.wanted = _compile(routes)
        self.consumers = Consumers(self.shared, failed=self._fail)
        self._wakeup = Wakeup(clock)
        self._calm = Wakeup(clock)
        self.changing = asyncio.Lock()
        self._state: Literal["off", "busy", "at rest", "failed"] = "off"

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then end within seconds. Raises StateError if the state cannot be written."""
        self._state = "busy"
        ending = asyncio.create_task(_then(stop, self._wakeup.set))
        try:
            await _insist(self._start, stop, self.shared.clock)
            await self._read_log(stop)
        finally:
            ending.cancel()
            self._state = "off"
            async with self.changing:
                await self.consumers.end()
            await self._wakeup.close()
            await self._calm.close()

    def wake(self) -> None:
        """Something was recorded, or a command has changed the store."""
        self.log_grew()
        self.consumers.wake()

    def log_grew(self) -> None:
        """Something was recorded, or there is room to read on."""
        if self._state == "at rest":
            self._state = "busy"
        self._wakeup.set()
        for hear in self.ears:
            hear()

    async def drain(self, until: float | None = None) -> None:
        """Read to the end of the log and deliver everything that is due, then return, at `until` at the latest.

        Deliveries that wait for a retry or for their digest remain pending.
        """
        stop, clock = asyncio.Event(), self.shared.clock
        running = asyncio.create_task(self.run(stop))
        try:
            while not (self._is_calm or running.done() or (until is not None and clock.now() >= until)):
                calm = asyncio.create_task(self._calm.wait(until))
                await asyncio.wait([calm, running], return_when=asyncio.FIRST_COMPLETED)
                calm.cancel()
        finally:
            stop.set()
            await running

    def check(self, routes: Sequence[Route]) -> None:
        """Raise ExpressionError for an invalid `where`."""
        _compile(routes)

    async def reconfigure(
        self, routes: Sequence[Route], *, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Continue with these subscriptions. Raises ExpressionError, and changes nothing, for an invalid `where`."""
        wanted = _compile(routes)
        async with self.changing:
            await self.consumers.end()
            if meanwhile is not None:
                await meanwhile()
            self.wanted = wanted
        if self._state == "off" and not self._is_shared:
            await self._register()
        else:
            await self._start()
            self.wake()

    async def resume(self) -> None:
        """Start the consumers that a reconfiguration has ended and could not start again. Raises StateError."""
        if self._state != "off" and not self.consumers and not self._is_shared:
            await self._start()

    async def purge(self, upto: int, *, before: float) -> int:
        """Delete the events up to number `upto`, and return how many. Undelivered ones are reported. What else is kept
        as long as events is deleted by its time: `before`.

        If another transaction uses the log for long, such as a backup, the rest is left to the next purge.
        """
        steps, total = self.shared.steps, 0
        try:
            await steps(self._store.prepare, before)
            while (old := await steps(self._store.expiring, upto, before=before)) is not None:
                now = self.shared.clock.now()
                notices = [dropped(name, events, now=now) for name, events in old.dropped.items()]
                with contextlib.suppress(Conflict):  # some were delivered meanwhile: count again
                    total += await steps(self._store.purge, old, before=before, notices=notices)
        except Held as error:
            log.info("purge.postponed", reason=str(error), hint=error.hint)
        if total:
            self.wake()
        return total

    @property
    def _is_calm(self) -> bool:
        return self._state == "at rest" and not self._wakeup.is_set and self.consumers.are_idle

    async def _register(self) -> None:
        now = self.shared.clock.now()
        registrations = [one.route.registration(now) for one in self.wanted]
        await self.shared.steps(self._store.register, registrations, now=now)

    async def _start(self) -> None:
        """Register the subscriptions, take their leases, and start their consumers."""
        if self._is_shared:  # the owner of the leases registers, and takes them
            return
        async with self.changing:
            await self._register()
            by_lease = {subscription_lease(one.route.subscription.name): one.route for one in self.wanted}
            leases = await self.shared.steps(
                self._leases.take, self._worker, list(by_lease), most=len(by_lease), ttl=FOREVER
            )
            for lease in leases:
                self.consumers.start(by_lease[lease.name], lease)

    def _fail(self) -> None:
        self._state = "failed"
        self._wakeup.set()

    async def _read_log(self, stop: asyncio.Event) -> None:
        """Read on whenever the log has grown or a subscription has room again."""
        while not (stop.is_set() or self._state == "failed"):
            if await self._read_on():
                continue
            if not self._wakeup.is_set:
                self._state = "at rest"
            self._calm.set()
            await self._wakeup.wait()
            if self._state == "at rest":
                self._state = "busy"

    async def _read_on(self) -> bool:
        """Read on for every subscription that has room; returns whether more could be read at once."""
        shared = self.shared
        try:
            done = await dispatch(self._store, shared.steps, self.wanted, self.consumers.leases, now=shared.clock.now())
        except Conflict:
            return True
        except StateError as error:
            if not isinstance(error, Unavailable):  # outages are reported once, where they are handled
                log.error("dispatch.not_recorded", error=str(error))
            await shared.clock.sleep(1.0)
            return True
        for name in done.queued:
            self.consumers.wake(name)
        for name, lost in done.lost.items():
            self.consumers.drop(name, lost)
        return done.more


async def _insist(act: Callable[[], Awaitable[None]], stop: asyncio.Event, clock: Clock) -> None:
    """Repeat something until the state can be written again."""
    while not stop.is_set():
        with contextlib.suppress(Unavailable):
            await act()
            return
        await clock.sleep(1.0)


def _report(observe: Callable[[AttemptFinished], None] | None, attempt: AttemptFinished) -> None:
    """Log an attempt that has ended, quietly if it only repeats what was logged, and report it to observers."""
    getattr(log, "debug" if attempt.is_repeated else _LOUD[attempt.state])(
        "delivery.failed" if attempt.state == "pending" else f"delivery.{attempt.state}",
        subscription=attempt.subscription,
        sequence=attempt.jobs[0].event.seq,
        attempt=attempt.attempt.number,
        status=attempt.attempt.status,
        **({} if attempt.due is None else {"next_attempt": iso(attempt.due)}),
    )
    if observe is not None:
        observe(attempt)


async def _then(event: asyncio.Event, act: Callable[[], None]) -> None:
    await event.wait()
    act()


def _compile(routes: Sequence[Route]) -> list[Wanted]:
    return [Wanted(route=route, filter=route.subscription.filter()) for route in routes]
