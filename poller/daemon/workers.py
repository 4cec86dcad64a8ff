"""One worker among those that share a state: leases are taken, renewed and given up.

A beat every half second renews all leases in one statement. A lease that is not renewed within two seconds is free:
the budget or subscription is taken over by another worker, under a higher epoch. What this worker has lost it drops at
once and may take again; what is more than its even part it gives up, and everything when it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import structlog

from poller.app import App, Tenure
from poller.daemon.enrolment import Enrolment
from poller.daemon.sharing import shared_out
from poller.delivery import handover
from poller.polling.loop import PollLoop
from state.errors import LeaseLost, PollerError, StateError, Unavailable
from state.leases import Lease, budget_lease, subscription_lease

TTL: Final = 2.0  # seconds that a lease lasts
BEAT: Final = 0.5  # seconds between two renewals
ASIDE: Final = 30.0  # seconds for which a budget that could not be opened is left to others
GRACE: Final = 5.0  # seconds for what is under way of a budget that is given up

log = structlog.get_logger("poller")


class Workers:
    """The leases of one app. `woken` is called with budgets that are polled from now on."""

    def __init__(self, app: App, tenure: Tenure, *, woken: Callable[[Iterable[PollLoop]], None]) -> None:
        self._app = app
        self._tenure = tenure
        self._woken = woken
        self._enrolment = Enrolment(app, tenure.worker)
        self._held: dict[str, Lease] = {}
        self._aside: dict[str, float] = {}  # by lease: steady time until when it is left to others
        self._taken_at: dict[str, float] = {}  # by lease, steady
        self._leaving: dict[str, asyncio.Task[None]] = {}  # by lease: it is being given up
        self._anew = False  # what was written last may not be known here: everything is taken anew

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part while the block runs; leave everything to the others at its end."""
        self._app.write.on_news(self._hear)
        tasks = [
            asyncio.create_task(_again(self.renew), name="renew leases"),
            asyncio.create_task(_again(self.share), name="share out"),
        ]
        try:
            yield
        finally:
            for task in (*tasks, *self._leaving.values()):
                task.cancel()
            await asyncio.gather(*tasks, *self._leaving.values(), return_exceptions=True)
            with contextlib.suppress(Unavailable):
                await self._enrolment.leave()

    async def renew(self) -> None:
        """Renew what is held, and drop what is lost."""
        app = self._app
        if app.write.outage is not None:
            self._anew = True
            return
        if self._anew:
            await self._begin_anew()
        sent = app.clock.steady()
        renewed = await app.write.urgent(app.store.leases.renew, self._tenure.worker, ttl=TTL)
        await self._drop_lost(sent, {lease.name: lease for lease in renewed})
        self._tenure.until = sent + TTL
        if self._enrolment.is_due(sent) or not renewed:
            await self._enrolment.tell(sent, lacks=self._aside, ttl=TTL)
            self._aside = {name: until for name, until in self._aside.items() if until > sent}

    async def share(self) -> None:
        """Give up what is too much, and take what is this worker's part."""
        if self._app.write.outage is None and not self._anew:
            self._app.deliverer.log_grew()  # a notification may be lost
            if self._app.is_polling:
                await self._share()

    def _hear(self, news: str) -> None:
        if news == "deliveries":
            self._app.deliverer.wake()
        elif news == "log":
            self._app.deliverer.log_grew()

    async def _begin_anew(self) -> None:
        """After an outage: nobody knows which step was written last, so all is read again, under new epochs."""
        await self._drop_lost(self._app.clock.steady(), {})
        await self._enrolment.leave()
        self._anew = False

    async def _drop_lost(self, sent: float, renewed: dict[str, Lease]) -> None:
        """Drop what is not among the leases that a renewal begun at `sent` has found, unless it was taken since."""
        for name, lease in list(self._held.items()):
            if self._taken_at[name] < sent and (renewed.get(name) is None or renewed[name].epoch != lease.epoch):
                del self._held[name]
                await self._drop(lease, LeaseLost(f"{name}: the lease has run out"))

    async def _drop(self, lease: Lease, error: LeaseLost) -> None:
        if lease.name == budget_lease(lease.subject):
            log.warning("budget.lease_lost", budget=lease.subject, error=str(error))
            await self._app.engine.drop(lease.subject)
        else:
            handover.drop(self._app.deliverer, lease.subject, error)

    async def _share(self) -> None:
        """Own the even part that is this worker's."""
        app, worker = self._app, self._tenure.worker
        shares = await app.write(app.store.leases.shares)
        self._enrolment.compare(shares.workers)
        budgets = [budget_lease(name) for name in app.config.budgets]
        subscriptions = [subscription_lease(one.name) for one in app.config.subscriptions]
        owners = {name: lease.worker for name, lease in shares.owners.items()}
        parts = {
            **shared_out(budgets, owners, shares.workers),
            **shared_out(subscriptions, owners, shares.workers),
        }
        for name, lease in list(self._held.items()):
            if parts.get(name) != worker and name not in self._leaving:
                self._leaving[name] = asyncio.create_task(self._give_up(lease), name=f"give up {name}")
                self._leaving[name].add_done_callback(partial(self._left, name))
        missing = [name for name, owner in parts.items() if owner == worker and name not in self._held]
        free = [name for name in missing if owners.get(name) in (None, worker)]
        if free:
            taken = await app.write(app.store.leases.take, worker, free, most=len(free), ttl=TTL)
            await self._adopt(taken)
        await self._reopen()

    async def _adopt(self, leases: list[Lease]) -> None:
        self._held |= {lease.name: lease for lease in leases}
        self._taken_at |= {lease.name: self._app.clock.steady() for lease in leases}
        subscriptions = [lease for lease in leases if lease.name == subscription_lease(lease.subject)]
        if subscriptions:
            await handover.adopt(self._app.deliverer, subscriptions)
        if leases:
            log.info("worker.took_over", leases=len(leases), held=len(self._held))

    async def _reopen(self) -> None:
        """Poll what is owned and not polled: budgets just taken, and all of them after the engine was replaced."""
        polled = self._app.engine.loops
        missing = [
            lease
            for name, lease in self._held.items()
            if name == budget_lease(lease.subject) and lease.subject not in polled and name not in self._leaving
        ]
        await asyncio.gather(*(self._open(lease) for lease in missing))

    async def _open(self, lease: Lease) -> None:
        app = self._app
        try:
            poll_loop = await app.adopt(lease)
        except (LeaseLost, Unavailable):
            return
        except PollerError as error:
            self._aside[lease.name] = app.clock.steady() + ASIDE
            log.error("budget.not_opened", budget=lease.subject, error=str(error), hint=error.hint)
            await self._give_up(lease)
            return
        if poll_loop is None:
            return
        if self._held.get(lease.name) != lease:  # it was lost while it was opened
            await app.engine.drop(lease.subject)
            return
        self._woken([poll_loop])

    async def _give_up(self, lease: Lease) -> None:
        """Leave something to the others, with all that was learned of it. It stays this worker's until then."""
        with contextlib.suppress(LeaseLost, Unavailable):
            if lease.name != budget_lease(lease.subject):
                await handover.release(self._app.deliverer, lease.subject)
            elif lease.subject in self._app.engine.loops:
                await self._app.release(lease.subject, seconds=GRACE)
            await self._app.write(self._app.store.leases.give_up, [lease])
            log.info("worker.gave_up", lease=lease.name)
        if self._held.get(lease.name) == lease:
            del self._held[lease.name]

    def _left(self, name: str, task: asyncio.Task[None]) -> None:
        self._leaving.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("worker.failed", exc_info=error)


async def _again(work: Callable[[], Awaitable[None]]) -> None:
    """Do something at every beat. What it raises is told, and ends nothing; an outage is seen through elsewhere."""
    while True:
        try:
            await work()
        except (Unavailable, LeaseLost):
            pass
        except StateError as error:
            log.error("worker.failed", error=str(error), hint=error.hint)
        await asyncio.sleep(BEAT)
