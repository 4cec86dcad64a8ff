"""One running poller: state, engine and deliveries together, for the daemon, for one sweep, and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import httpx
from apscheduler.triggers.cron import CronTrigger

from poller.clock import Clock, SystemClock
from poller.config.models import Config, SubscriptionConfig
from poller.delivery.service import Deliverer
from poller.delivery.subscription import Route, Subscription
from poller.hooks.loading import Plugins
from poller.hooks.observers import Observers
from poller.polling.engine import Engine
from poller.polling.results import Polled
from state.sqlite.store import Store
from state.sqlite.writer import Runner, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Who hears what the engine does: what it records may be delivered, and plugins are told of it."""

    deliverer: Deliverer
    observers: Observers

    def recorded(self, numbers: list[int]) -> None:
        """Events with these numbers are in the log."""
        self.deliverer.log_grew()
        self.observers.tell_recorded(numbers)

    def polled(self, poll: Polled) -> None:
        """A poll is over."""
        self.observers.tell("poll_finished", poll=poll)


@dataclass(slots=True, kw_only=True)
class App:
    """What runs on one state."""

    config: Config
    plugins: Plugins
    store: Store
    write: Writer
    clock: Clock
    engine: Engine
    deliverer: Deliverer
    news: News
    transport: httpx.AsyncBaseTransport | None  # None: sources ask over the network

    def _engine_for(self, config: Config) -> Engine:
        """An engine for a configuration, on this app's state and clock."""
        return Engine(
            config,
            self.plugins,
            store=self.store,
            write=self.write,
            clock=self.clock,
            listener=self.news,
            transport=self.transport,
        )

    async def reconfigure(self, config: Config) -> None:
        """Go on with another configuration, already validated. Raises PollerError, with nothing changed."""
        engine = self._engine_for(config)
        await self.deliverer.reconfigure(routes_of(config))
        await self.engine.close()
        await engine.open()
        engine.probe_now()
        self.config, self.engine = config, engine


@contextlib.asynccontextmanager
async def open_app(
    config: Config,
    plugins: Plugins,
    *,
    clock: Clock | None = None,
    runner: Runner | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[App]:
    """Open the state and everything on it. Nothing is polled or delivered before it is asked for.

    Sources ask over `transport` if it is given, which stays the caller's.

    Raises PollerError. The caller holds the state's lock.
    """
    with Writer(runner) as write:
        store = await write(Store.open, config.poller.state, now=time.time())
        write.group = store.group
        try:
            clock = clock or SystemClock.resume(await write(store.calls.anchor))
            observers = Observers(plugins, lambda number: write(store.log.event, number))
            deliverer = Deliverer(
                routes_of(config),
                store=store.deliveries,
                write=write,
                clock=clock,
                finished=lambda delivery: observers.tell("delivery_finished", delivery=delivery),
            )
            news = News(deliverer=deliverer, observers=observers)
            engine = Engine(config, plugins, store=store, write=write, clock=clock, listener=news, transport=transport)
            now = clock.now()
            registrations = [route.registration(now) for route in routes_of(config)]
            await write(store.deliveries.register, registrations, now=now)
            await engine.open()
            app = App(
                config=config,
                plugins=plugins,
                store=store,
                write=write,
                clock=clock,
                engine=engine,
                deliverer=deliverer,
                news=news,
                transport=transport,
            )
            async with observers:
                try:
                    yield app
                finally:
                    await app.engine.close()
        finally:
            await write(store.flush)  # a step that ends what still waits for a commit: the file is closed behind it
            await write(store.close)


def routes_of(config: Config) -> list[Route]:
    """The subscriptions as delivery takes them."""
    return [_route(subscription, config) for subscription in config.subscriptions]


def _route(settings: SubscriptionConfig, config: Config) -> Route:
    subscription = Subscription(
        name=settings.name,
        plugin=settings.plugin,
        types=settings.types,
        sources=settings.sources,
        where=settings.where,
        start=settings.start,
        enabled=settings.enabled,
        concurrency=settings.concurrency,
        retry=settings.retry,
        digest=settings.digest,
    )
    next_digest = partial(_next_digest, settings.digest, config) if isinstance(settings.digest, str) else None
    return Route(subscription=subscription, open_sink=settings.build, next_digest=next_digest)


def _next_digest(crontab: str, config: Config, after: float) -> float:
    trigger = CronTrigger.from_crontab(crontab, timezone=config.poller.zone)
    fire = trigger.get_next_fire_time(None, datetime.fromtimestamp(after, tz=config.poller.zone))
    return after + 86400.0 if fire is None else float(fire.timestamp())


async def sweep_once(
    app: App,
    endpoints: Collection[tuple[str, str]] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """One complete sweep of every endpoint (or those named: source, endpoint), begun now.

    Not paced: as fast as the short windows allow. `progress` is told (units polled, units). Returns what could not
    be seen, in words.
    """
    engine, changed = app.engine, asyncio.Event()
    sweeping = await engine.begin_sweeps(endpoints)
    for lane in engine.lanes.values():
        lane.hurry, lane.poke = True, changed.set
    # What is in flight may yet find something to ask for: deletions to be confirmed.
    while sweeping.goes_on(app.clock.now()) or any(lane.in_flight for lane in engine.lanes.values()):
        changed.clear()
        for lane in engine.lanes.values():
            await lane.wake()
            if lane.failure is not None:
                raise lane.failure
        if progress is not None:
            progress(*sweeping.progress())
        due = min((lane.next_at() for lane in engine.lanes.values()), default=math.inf) - app.clock.steady()
        if due == math.inf and not any(lane.in_flight for lane in engine.lanes.values()):
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), max(0.001, min(due, 1.0)))
    engine.end_sweeps()
    for lane in engine.lanes.values():
        lane.hurry, lane.poke = False, lambda: None
    return sweeping.stuck()
