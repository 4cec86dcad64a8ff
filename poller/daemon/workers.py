"""One worker among those that share a state: it takes, renews and gives up leases.

A beat every half second renews all leases in one statement. A lease that is not renewed within two seconds is free:
another worker takes over the budget or subscription under a higher epoch. A worker drops what it has lost at once, and
may take it again. It gives up what exceeds its even part, and everything when it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog

from poller.app import App, Tenure
from poller.daemon.enrolment import Enrolment
from poller.daemon.holdings import Holdings
from poller.daemon.log_end import LogEnd
from poller.daemon.sharing import shared_out
from poller.polling.loop import PollLoop
from state.errors import LeaseLost, StateError, Unavailable
from state.leases import Lease, Shares, WorkerState, budget_lease, subscription_lease

TTL: Final = 2.0  # seconds that a lease lasts
BEAT: Final = 0.5  # seconds between two renewals, and between two looks at what is free
LOOK_AGAIN: Final = 5.0  # seconds between two checks for deliveries without a notification
MOMENT: Final = 0.02  # seconds after which leases that have run out are looked at
IN_USE: Final = 0.1  # seconds until the next attempt to take leases that steps of an earlier owner still use

log = structlog.get_logger("poller")


class Workers:
    """The leases of one app. `woken` is called with budgets that are newly polled."""

    def __init__(self, app: App, tenure: Tenure, *, woken: Callable[[Iterable[PollLoop]], None]) -> None:
        self._app = app
        self._tenure = tenure
        self._enrolment = Enrolment(app, tenure.worker)
        self._holdings = Holdings(app, woken=woken)
        self._log_end = LogEnd(app)
        self._tasks: list[asyncio.Task[None]] = []
        self._part: tuple[object, list[str]] = (None, [])  # this worker's part, and what it was computed from
        self._looked_at = 0.0  # steady time of the latest look at the log without a reason
        self._registered = ""  # the digest of the configuration whose subscriptions the state knows
        self._anew = False  # the outcome of the last write may be unknown: take everything again

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part while the block runs; at its end leave everything to the other workers."""
        self._app.write.on_news(self._hear)
        self._tasks = [
            asyncio.create_task(_again(self.renew), name="renew leases"),
            asyncio.create_task(_again(self.share), name="share out"),
        ]
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Leave everything to the other workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._holdings.close()
        with contextlib.suppress(Unavailable):
            await self._enrolment.leave()

    def raise_failures(self) -> None:
        """Raise an exception that has ended a part of this worker, because one that renews its leases without taking
        any would block others.
        """
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        self._holdings.raise_failure()

    async def renew(self) -> None:
        """Renew the held leases, and drop what is lost."""
        app = self._app
        if app.write.outage is not None:
            self._anew = True
            return
        if self._anew:
            await self._begin_anew()
        sent = app.clock.steady()
        renewed = await app.write.urgent(app.store.leases.renew, self._tenure.worker, ttl=TTL)
        await self._holdings.drop_lost(sent, {lease.name: lease for lease in renewed})
        self._tenure.until = sent + TTL
        if self._enrolment.is_due(sent) or not renewed:
            await self._enrolment.tell(sent, lacks=self._holdings.aside, ttl=TTL)

    async def share(self) -> float:
        """Give up what exceeds this worker's part, or take what is missing. Returns seconds until the next check."""
        if self._app.write.outage is None and not self._anew:
            wait = await self._share() if self._app.is_polling else BEAT
            await self._look_at_log()
            return wait
        return BEAT

    async def _look_at_log(self) -> None:
        """See whether the log has grown; notifications may be lost, and now and then one that was not about it."""
        has_grown, now = await self._log_end.look(), self._app.clock.steady()
        if has_grown or now - self._looked_at >= LOOK_AGAIN:
            self._looked_at = now
            self._app.deliverer.log_grew()

    def _hear(self, news: str) -> None:
        if news == "deliveries":
            self._app.deliverer.wake()
        elif news == "log":
            self._app.deliverer.log_grew()

    async def _begin_anew(self) -> None:
        """After an outage: the last written step is not known, so everything is read again under new epochs."""
        await self._holdings.drop_lost(self._app.clock.steady(), {})
        await self._log_end.compare()
        await self._enrolment.leave()
        self._anew = False

    async def _share(self) -> float:
        """Own this worker's even part, and look again as soon as another worker's leases may be free.

        Leases are read and taken on a connection for leases alone: other steps may wait for the lost worker's locks.
        """
        app, worker, holdings, looked_at = self._app, self._tenure.worker, self._holdings, self._app.clock.steady()
        shares = await app.write.urgent(app.store.leases.shares)
        self._enrolment.compare(shares.workers, shares.newest)
        # Those with an older configuration do nothing: what they do not know they would take for removed.
        able = [one for one in shares.workers if one.digest == shares.newest]
        await self._register(is_able=worker in {one.name for one in able})
        part = self._part_of(shares, able)
        holdings.keep_only(part)
        missing = [name for name in part if name not in holdings]
        free = [name for name in missing if name not in shares.owners or shares.owners[name].worker == worker]
        taken: list[Lease] = []
        if free:
            taken = await app.write.urgent(app.store.leases.take, worker, free, most=len(free), ttl=TTL)
            await holdings.adopt(taken)
            if taken:
                log.info("worker.took_over", leases=len(taken), held=len(holdings))
        await holdings.serve()
        passed = app.clock.steady() - looked_at
        ends = [max(0.0, one.left - passed) + MOMENT for one in shares.workers if one.name != worker]
        return min([BEAT if len(taken) == len(free) else IN_USE, *ends])

    async def _register(self, *, is_able: bool) -> None:
        """Register the subscriptions once, unless this worker has an older configuration than others."""
        digest = self._app.config.digest if is_able else ""
        if digest and digest != self._registered:
            await self._app.register()
        self._registered = digest

    def _part_of(self, shares: Shares, able: Sequence[WorkerState]) -> list[str]:
        """What this worker should own. Computed again if a lease, a worker or the configuration has changed."""
        config = self._app.config
        seen = (shares.owners, [(one.name, one.lacks) for one in able], config.digest)
        if self._part[0] != seen:
            budgets = [budget_lease(name) for name in config.budgets]
            subscriptions = [subscription_lease(one.name) for one in config.subscriptions]
            owners = {name: lease.worker for name, lease in shares.owners.items()}
            parts = {**shared_out(budgets, owners, able), **shared_out(subscriptions, owners, able)}
            self._part = seen, [name for name, owner in parts.items() if owner == self._tenure.worker]
        return self._part[1]


async def _again(work: Callable[[], Awaitable[float | None]]) -> None:
    """Run something at every beat, or when it says. Its exceptions are logged; outages are handled elsewhere."""
    while True:
        wait: float | None = None
        try:
            wait = await work()
        except (Unavailable, LeaseLost):
            pass
        except StateError as error:
            log.error("worker.failed", error=str(error), hint=error.hint)
        await asyncio.sleep(BEAT if wait is None else wait)
