"""An app for one command while no worker runs: it owns every budget and subscription until the command ends.

On a file, a running daemon holds the lock. On a database the command is a worker that takes all leases, renews them,
and leaves. If other workers run already, it names them, because they own what the command would spend.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Final

import msgspec

from poller.app import App, Tenure, opened
from poller.config.models import Config
from poller.delivery import handover
from poller.hooks.loading import Plugins
from state.errors import Held, LeaseLost, StateError
from state.leases import Lease, WorkerState, budget_lease, subscription_lease

TTL: Final = 5.0  # seconds that a lease lasts
BEAT: Final = 1.0  # seconds between two renewals
IN_USE: Final = 3.0  # seconds for which leases that a step of a lost worker still uses are waited for
LOOK_AGAIN: Final = 0.1  # seconds between two attempts to take them


class Alone(msgspec.Struct, frozen=True, kw_only=True):
    """An app that owns everything."""

    app: App
    subscriptions: list[Lease] = msgspec.field(default_factory=list)  # leases of subscriptions, on a database

    async def drain(self, until: float) -> None:
        """Deliver everything that is due, then return, at `until` at the latest."""
        await handover.adopt(self.app.deliverer, self.subscriptions)
        await self.app.deliverer.drain(until=until)


@contextlib.asynccontextmanager
async def opened_alone(config: Config, plugins: Plugins) -> AsyncIterator[Alone]:
    """An app that owns everything. Raises PollerError; Held, with names, if other workers run on the state already."""
    async with opened(config, plugins) as app:
        if app.tenure is None:
            yield Alone(app=app)
            return
        async with _owning(app, app.tenure) as leases, _renewing(app, app.tenure), _polling(app, leases):
            is_subscription = {subscription_lease(one.name) for one in app.config.subscriptions}.__contains__
            yield Alone(app=app, subscriptions=[lease for lease in leases if is_subscription(lease.name)])


@contextlib.asynccontextmanager
async def _owning(app: App, tenure: Tenure) -> AsyncIterator[list[Lease]]:
    """Own everything."""
    leases = app.store.leases
    await _refuse_others(app)
    sent = app.clock.steady()
    await app.write(leases.enrol, _described(app, tenure), ttl=TTL)
    try:
        names = [budget_lease(name) for name in app.config.budgets]
        names += [subscription_lease(one.name) for one in app.config.subscriptions]
        taken = await _take(app, tenure, names)
        tenure.until = sent + TTL
        await app.register()
        yield taken
    finally:
        with contextlib.suppress(StateError):
            await app.write(leases.leave, tenure.worker)


async def _take(app: App, tenure: Tenure, names: list[str]) -> list[Lease]:
    """Take all of these leases. Raises Held if others own any, or a step of a lost worker uses one for long."""
    taken: list[Lease] = []
    until = app.clock.steady() + IN_USE
    while True:
        missing = [name for name in names if name not in {lease.name for lease in taken}]
        taken += await app.write(app.store.leases.take, tenure.worker, missing, most=len(missing), ttl=TTL)
        if len(taken) == len(names):
            return taken
        await _refuse_others(app, besides=1)
        if app.clock.steady() >= until:
            raise Held(
                f"{app.config.poller.state}: a transaction of an earlier worker still uses its leases",
                hint="try again; pg_stat_activity shows the transaction",
            )
        await app.clock.sleep(LOOK_AGAIN)


@contextlib.asynccontextmanager
async def _polling(app: App, leases: list[Lease]) -> AsyncIterator[None]:
    """Poll every budget of these leases."""
    try:
        for lease in leases:
            if lease.name == budget_lease(lease.subject):
                await app.engines.adopt(lease)
        yield
    finally:
        for name in list(app.engine.loops):
            with contextlib.suppress(StateError):
                await app.engine.release(name, seconds=TTL)


async def _refuse_others(app: App, *, besides: int = 0) -> None:
    workers = (await app.write(app.store.leases.shares)).workers
    if len(workers) > besides:
        others = ", ".join(one.name for one in workers if app.tenure is None or one.name != app.tenure.worker)
        raise Held(
            f"{app.config.poller.state}: workers run on it ({others}), and own the budgets that this command would use",
            hint="stop them first, or use the commands that work beside them",
        )


def _described(app: App, tenure: Tenure) -> WorkerState:
    return WorkerState(name=tenure.worker, version=version("poller"), digest=app.config.digest[:12], listen="")


@contextlib.asynccontextmanager
async def _renewing(app: App, tenure: Tenure) -> AsyncIterator[None]:
    """Renew every lease while the block runs. Raises LeaseLost, and ends the block, if that fails."""
    block = asyncio.current_task()
    assert block is not None
    lost: list[Exception] = []

    async def renew() -> None:
        try:
            while True:
                await asyncio.sleep(BEAT)
                sent = app.clock.steady()
                if not await app.write.urgent(app.store.leases.renew, tenure.worker, ttl=TTL):
                    raise LeaseLost("the leases of this command have run out: the machine, or the database, was slow")
                tenure.until = sent + TTL
        except StateError as error:
            tenure.until = -math.inf
            lost.append(error)
            block.cancel()

    renewing = asyncio.create_task(renew(), name="renew leases")
    try:
        yield
    except asyncio.CancelledError:
        if lost:
            block.uncancel()
            raise lost[0] from None
        raise
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
