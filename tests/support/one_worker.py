"""One worker on PostgreSQL whose beats a test makes itself: nothing happens between two of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from poller.app import App, open_app
from poller.clock import Clock
from poller.config.load import load
from poller.daemon.workers import Workers
from poller.hooks.loading import load_plugins
from poller.polling.loop import PollLoop
from state.leases import Lease
from tests.support.cluster import Api, Receiver, configured, serving


class OneWorker:
    """An app on a database, and its part in sharing it."""

    def __init__(self, app: App, url: str) -> None:
        assert app.tenure is not None
        self.app = app
        self.tenure = app.tenure
        self.url = url
        self.woken: list[str] = []
        self.workers = Workers(app, app.tenure, woken=self._wake)

    def _wake(self, loops: Iterable[PollLoop]) -> None:
        self.woken += [poll_loop.name for poll_loop in loops]

    @property
    def leases(self) -> dict[str, Lease]:
        """What it owns, as the database says."""
        owners = self.app.store.leases.shares().owners
        return {name: lease for name, lease in owners.items() if lease.worker == self.tenure.worker}

    @property
    def polled(self) -> set[str]:
        """The budgets that it polls."""
        return {name for name, one in self.app.engine.loops.items() if name in self.woken and not one.tasks.is_over}

    @property
    def delivered(self) -> set[str]:
        """The subscriptions that it delivers."""
        return {lease.subject for lease in self.app.deliverer.consumers.leases}

    async def beat(self) -> None:
        """One renewal, and one sharing out."""
        await self.workers.renew()
        await self.workers.share()

    async def until(self, is_so: Callable[[], object]) -> None:
        """Let it go on until something is so: a hang is a failure."""
        async with asyncio.timeout(60):
            while not is_so():
                await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Beats until everything of the configuration is polled and delivered here."""
        config = self.app.config
        wanted = len(config.budgets), len(config.subscriptions)
        async with asyncio.timeout(60):
            while (len(self.polled), len(self.delivered)) != wanted:
                await self.beat()
                await asyncio.sleep(0.001)

    async def poll(self, key: str) -> None:
        """One poll of a key, as soon as its budget allows one."""
        poll_loop = self.app.engine.loops[key]
        poll_loop.pace.hurry, begun = True, poll_loop.limiter.calls
        while poll_loop.limiter.calls == begun and not poll_loop.tasks.is_over:
            await poll_loop.wake()
            await asyncio.sleep(0.001)
        await self.until(lambda: not poll_loop.tasks)

    def sql(self, statement: str) -> None:
        """Run one statement, past the worker."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(statement.encode())


@asynccontextmanager
async def one_worker(
    folder: Path, url: str, *, keys: int = 1, subscriptions: int = 1, clock: Clock | None = None
) -> AsyncIterator[OneWorker]:
    """A worker on an empty database whose sources and receivers answer."""
    api, receiver = Api(keys), Receiver(fails=0.0)
    with serving(api, receiver):
        config = configured(folder, url, api, receiver, subscriptions=subscriptions)
        async with joined(config, url, clock=clock) as worker:
            yield worker


@asynccontextmanager
async def joined(
    config: Path, url: str, *, name: str = "alone", digest: str = "the same", clock: Clock | None = None
) -> AsyncIterator[OneWorker]:
    """One more worker on a configuration; it gives itself that name in its requests."""
    own = config.with_name(f"{name}.toml")
    own.write_text(config.read_text().replace('{ env = "WORKER" }', f'"{name}"'))
    plugins = load_plugins()
    loaded = load(own, plugins, worker=True).model_copy(update={"digest": digest})
    async with open_app(loaded, plugins, clock=clock) as app:
        worker = OneWorker(app, url)
        stop = asyncio.Event()
        delivering = asyncio.create_task(app.deliverer.run(stop))
        try:
            yield worker
        finally:
            worker.tenure.until = math.inf
            await worker.workers.close()
            stop.set()
            await delivering
