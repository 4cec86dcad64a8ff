"""The leases that this worker holds: a poll loop for each budget, a consumer for each subscription.

Opening and giving up take a while, and a lease may be lost meanwhile. Each therefore runs in a separate task, which
is then cancelled, so that nothing waits for it and nothing of a lost budget remains.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Final

import structlog

from poller.app import App
from poller.delivery import handover
from poller.polling.loop import PollLoop
from state.errors import LeaseLost, PollerError, Unavailable
from state.leases import Lease, budget_lease

ASIDE: Final = 30.0  # seconds for which a budget that could not be opened is left to other workers
AT_ONCE: Final = 2  # budgets that are opened side by side: each takes some milliseconds, and renewals must not wait
GRACE: Final = 5.0  # seconds that running work of a released budget has to end

log = structlog.get_logger("poller")


class Holdings:
    """The leases of one app. `woken` is called with budgets that are newly polled."""

    def __init__(self, app: App, *, woken: Callable[[Iterable[PollLoop]], None]) -> None:
        self._app = app
        self._woken = woken
        self._held: dict[str, Lease] = {}
        self._taken_at: dict[str, float] = {}  # by lease: steady time
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by lease: tasks that open it or give it up
        self._aside: dict[str, float] = {}  # by lease: steady time until which it is left to other workers
        self._failure: BaseException | None = None
        self._opening = asyncio.Semaphore(AT_ONCE)

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __len__(self) -> int:
        return len(self._held)

    @property
    def aside(self) -> tuple[str, ...]:
        """Leases left to other workers for a while, because they could not be opened here."""
        now = self._app.clock.steady()
        self._aside = {name: until for name, until in self._aside.items() if until > now}
        return tuple(self._aside)

    def raise_failure(self) -> None:
        """Raise an exception that has ended opening or giving up and is not the fault of the state, a source or
        a sink.
        """
        if self._failure is not None:
            raise self._failure

    async def adopt(self, leases: list[Lease]) -> None:
        """Deliver newly taken subscriptions; a budget is opened by the next `serve`."""
        self._held |= {lease.name: lease for lease in leases}
        self._taken_at |= {lease.name: self._app.clock.steady() for lease in leases}
        subscriptions = [lease for lease in leases if not _is_budget(lease)]
        if subscriptions:
            await handover.adopt(self._app.deliverer, subscriptions)

    async def drop_lost(self, sent: float, renewed: Mapping[str, Lease]) -> None:
        """Drop leases that a renewal begun at `sent` did not find, unless they were taken since."""
        for name, lease in list(self._held.items()):
            renewal = renewed.get(name)
            if self._taken_at[name] < sent and (renewal is None or renewal.epoch != lease.epoch):
                await self._drop(lease, LeaseLost(f"{name}: the lease has run out"))

    def keep_only(self, names: Iterable[str]) -> None:
        """Give up everything else, each in a separate task."""
        for name in self._held.keys() - set(names):
            if name not in self._tasks:
                self._begin(name, self._give_up(self._held[name]))

    async def serve(self) -> None:
        """Poll what is owned but not polled: newly taken budgets, and all budgets after the engine was replaced.

        Work that has ended although the lease is still held (it seemed to have expired) is dropped, and taken again.
        """
        consumed = frozenset(self._app.deliverer.consumers.leases)
        for name, lease in list(self._held.items()):
            if name in self._tasks:
                continue
            if not _is_budget(lease):
                if lease not in consumed:
                    await self._drop(lease, LeaseLost(f"{name}: it is no longer delivered here"))
            elif (poll_loop := self._app.engine.loops.get(lease.subject)) is None:
                self._begin(name, self._open(lease))
            elif poll_loop.tasks.is_over:
                await self._drop(lease, LeaseLost(f"{name}: it is no longer polled here"))

    async def close(self) -> None:
        """End all running tasks."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, name: str, work: Coroutine[None, None, None]) -> None:
        self._tasks[name] = asyncio.create_task(work, name=name)
        self._tasks[name].add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(name, None)
        if not task.cancelled():
            self._failure = self._failure or task.exception()

    async def _drop(self, lease: Lease, error: LeaseLost) -> None:
        """Drop a lease without writing to the state."""
        if self._held.get(lease.name) != lease:  # another task was quicker
            return
        del self._held[lease.name]
        if (task := self._tasks.get(lease.name)) is not None:
            task.cancel()
            await asyncio.wait([task])
        if _is_budget(lease):
            log.warning("budget.lease_lost", budget=lease.subject, error=str(error))
            await self._app.engine.drop(lease.subject)
        else:
            handover.drop(self._app.deliverer, lease.subject, error)

    async def _open(self, lease: Lease) -> None:
        try:
            async with self._opening:
                poll_loop = await self._app.engines.adopt(lease)
        except (LeaseLost, Unavailable):
            return
        except PollerError as error:
            self._aside[lease.name] = self._app.clock.steady() + ASIDE
            log.error("budget.not_opened", budget=lease.subject, error=str(error), hint=error.hint)
            await self._give_up(lease)
            return
        if poll_loop is not None:  # None: the engine is being replaced
            self._woken([poll_loop])

    async def _give_up(self, lease: Lease) -> None:
        """Leave a lease to the other workers, with everything learned under it. This worker owns it until then."""
        with contextlib.suppress(LeaseLost, Unavailable):
            if not _is_budget(lease):
                await handover.release(self._app.deliverer, lease.subject)
            elif lease.subject in self._app.engine.loops:
                await self._app.engine.release(lease.subject, seconds=GRACE)
            await self._app.write(self._app.store.leases.give_up, [lease])
            log.info("worker.gave_up", lease=lease.name)
        if self._held.get(lease.name) == lease:
            del self._held[lease.name]


def _is_budget(lease: Lease) -> bool:
    return lease.name == budget_lease(lease.subject)
