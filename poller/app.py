"""A running poller: state, engine and deliveries together, for the daemon, for one sweep, and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import httpx
import msgspec
import structlog

from poller.clock import Clock, SystemClock
from poller.config.models import Config, SubscriptionConfig
from poller.delivery.service import Deliverer
from poller.delivery.subscription import Route, Subscription
from poller.hooks.forks import NOT_FORKED
from poller.hooks.loading import Plugins
from poller.hooks.observers import Observers
from poller.hooks.payloads import AttemptFinished, Polled
from poller.hooks.plugin_loops import PluginLoops, is_ours
from poller.hooks.sink_on_loop import SinkOnLoop
from poller.late import late
from poller.polling.engine import Engine
from poller.polling.engines import Engines
from poller.polling.threads import Apart, AtOnce, SourceThread
from poller.sinks.protocol import Sink
from state.errors import PollerError, Unavailable
from state.leases import LOCAL, Worker
from state.notices import Notice
from state.open import Runner, held, open_state
from state.records import Event
from state.steps import Steps, Writer
from state.store import Store

if TYPE_CHECKING:
    import apscheduler.triggers.cron as cron
else:
    cron = late("apscheduler.triggers.cron")

log = structlog.get_logger("poller")


class News(msgspec.Struct, frozen=True, kw_only=True):
    """Receives what the engine does, wakes delivery for new events, and informs plugins."""

    deliverer: Deliverer
    observers: Observers
    poll_ears: list[Callable[[Polled], None]] = msgspec.field(default_factory=list)  # called with every finished poll
    attempt_ears: list[Callable[[AttemptFinished], None]] = msgspec.field(
        default_factory=list
    )  # called with every finished attempt

    def recorded(self, numbers: list[int]) -> None:
        """Events with these numbers are in the log."""
        self.deliverer.log_grew()
        self.observers.tell_recorded(numbers)

    def polled(self, poll: Polled) -> None:
        """A poll has ended."""
        self.observers.tell("poll_finished", poll=poll)
        for hear in self.poll_ears:
            hear(poll)

    def attempted(self, attempt: AttemptFinished) -> None:
        """An attempt of a delivery has ended."""
        self.observers.tell("delivery_finished", delivery=attempt)
        for hear in self.attempt_ears:
            hear(attempt)


class Tenure(msgspec.Struct, kw_only=True):
    """Until when this worker certainly owns what it has leased. Other workers run on the same state."""

    worker: Worker
    until: float = -math.inf  # steady seconds

    def __call__(self) -> float:
        return self.until


class Renaming(Protocol):
    """A change of names in the state that goes with another configuration."""

    async def do(self) -> None:
        """Rename. Raises PollerError, with nothing changed."""
        ...

    async def undo(self) -> None:
        """Undo the renaming, if it was done."""
        ...


class App:
    """Everything that runs on one state: the deliveries, and one engine at a time."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        *,
        store: Store,
        write: Writer,
        clock: Clock,
        news: News,
        tenure: Tenure | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        apart: Callable[[str], Apart] = SourceThread,
    ) -> None:
        self.config = config
        self.plugins = plugins
        self.store = store
        self.write = write
        self.clock = clock
        self.news = news
        self.refused: str | None = None  # why the file was refused at the latest reload
        self.tenure = tenure  # None: no other worker runs on the state

        def build(config: Config, steps: Steps) -> Engine:
            return Engine(
                config,
                plugins,
                store=store,
                write=steps,
                clock=clock,
                listener=news,
                transport=transport,
                apart=apart,
                worker=LOCAL if tenure is None else tenure.worker,
                valid_until=tenure,
            )

        self.engines = Engines(config, write, build=build)

    @property
    def deliverer(self) -> Deliverer:
        """The deliveries, which outlive every engine."""
        return self.news.deliverer

    @property
    def engine(self) -> Engine:
        """The current engine; a reload or an outage replaces it."""
        return self.engines.engine

    @property
    def is_polling(self) -> bool:
        """Whether an engine is open."""
        return self.engines.is_polling

    async def open(self) -> None:
        """Register the subscriptions and open the engine. Raises PollerError."""
        try:
            await self.engine.prepare()
            if self.tenure is None:
                await self.register()
            await self.engines.open()
        except BaseException:
            await self.engines.abandon()
            raise

    async def register(self) -> None:
        """Register the subscriptions in the state; those that are not configured are marked as removed.

        Among workers that share a state, only those with the newest configuration do so.
        """
        now = self.clock.now()
        registrations = [route.registration(now) for route in routes_of(self.config, self.plugins)]
        await self.write(self.store.deliveries.register, registrations, now=now)

    @property
    def is_well(self) -> bool:
        """Whether everything that should be polled is polled and can be recorded."""
        return self.is_polling and self.write.outage is None and self.engine.watch.is_well()

    async def reconfigure(self, config: Config, *, renaming: Renaming | None = None) -> None:
        """Continue with another configuration, already validated.

        Errors of its plugins and rules are raised while the old engine still runs. Raises PollerError with everything
        unchanged: if the old engine was closed by then, it is opened again.
        """
        async with self.engines.changing:
            if self.write.outage is not None:
                raise self.write.outage
            opened = self.engines.beside(config)
            try:
                await opened.engine.prepare()
                self.deliverer.check(routes_of(config, self.plugins))
                await self.engines.close()
                if renaming is None:
                    await opened.engine.open(self.engine)
                    await self.deliverer.reconfigure(routes_of(config, self.plugins))
                else:
                    await self.deliverer.reconfigure(routes_of(config, self.plugins), meanwhile=renaming.do)
                    await opened.engine.open()  # from the state alone, because names in memory are the old ones
            except BaseException as error:
                await opened.abandon()
                if isinstance(error, Exception) and not self.is_polling:
                    await self._go_back(renaming)
                raise
            opened.engine.interventions.probe_now()
            self.config = config
            self.engines.use(opened)

    async def _go_back(self, renaming: Renaming | None) -> None:
        """Open an engine for the configuration in use again, after it was closed for one that cannot be opened."""
        try:
            undo = None if renaming is None else renaming.undo
            await self.deliverer.reconfigure(routes_of(self.config, self.plugins), meanwhile=undo)
            await self.engines.reopen()
        except PollerError as error:  # the caller that keeps this app open tries again
            log.warning("engine.not_opened", error=str(error))

    async def follow_clock(self, moved: float) -> None:
        """Apply a wall clock that was set by so many seconds, between two engines. Raises PollerError."""
        async with self.engines.changing:
            if not self.is_polling:
                return
            await self.engines.close()
            self.clock.follow_wall()
            await self.engines.reopen(moved=moved)
            await self.write(self.store.notices.tell, [_clock_set(moved, self.clock.now())])
            self.deliverer.wake()  # waiting deliveries are due at other times now


@contextlib.asynccontextmanager
async def open_app(
    config: Config,
    plugins: Plugins,
    *,
    clock: Clock | None = None,
    runner: Runner | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[App]:
    """Open the state and everything on it. Nothing is polled or delivered until it is requested.

    If `runner` is given, it runs the steps of the store, and plugins run on the event loop of the caller, too. If
    `transport` is given, sources use it; the caller keeps ownership.

    Raises PollerError. The caller holds the state's lock.
    """
    plugins.loops = PluginLoops(is_one=runner is not None)
    async with plugins.loops, open_state(config.poller.state, now=time.time(), runner=runner) as (store, write):
        clock = clock or SystemClock.resume(await write(store.calls.anchor), wall=store.wall)
        tenure = Tenure(worker=_new_worker()) if store.is_shared else None
        observers = Observers(plugins, partial(_event, write, store))
        deliverer = Deliverer(
            routes_of(config, plugins),
            store=store.deliveries,
            leases=store.leases,
            write=write,
            clock=clock,
            finished=lambda attempt: news.attempted(attempt),
            valid_until=tenure,
        )
        news = News(deliverer=deliverer, observers=observers)
        apart: Callable[[str], Apart] = SourceThread if runner is None else lambda _: AtOnce()
        app = App(
            config,
            plugins,
            store=store,
            write=write,
            clock=clock,
            news=news,
            tenure=tenure,
            transport=transport,
            apart=apart,
        )
        async with observers:
            await app.open()
            try:
                yield app
            finally:
                await app.engines.close()


@contextlib.asynccontextmanager
async def opened(config: Config, plugins: Plugins) -> AsyncIterator[App]:
    """An app that holds its state's lock. Raises Held if another process runs on it."""
    with held(config.poller.state) as lock:
        if lock is not None:
            NOT_FORKED.add(lock)
        async with open_app(config, plugins) as app:
            yield app


def _clock_set(moved: float, now: float) -> Notice:
    """The notice of a clock that was set: times before and after it are not comparable."""
    way = "ahead" if moved > 0 else "back"
    summary = f"The machine's clock was set {way} by {abs(moved):.0f} s."
    return Notice(kind="clock.set", subject="clock", summary=summary, detail={"seconds": round(moved, 1)}, time=now)


def _new_worker() -> Worker:
    """A name that no other process has, now or later."""
    return Worker(f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}")


async def _event(write: Writer, store: Store, number: int) -> Event | None:
    """One event of the log for observers; None if the state is unavailable, so that they are called later."""
    while True:
        try:
            return await write(store.log.event, number)
        except Unavailable:
            await asyncio.sleep(1.0)


def routes_of(config: Config, plugins: Plugins) -> list[Route]:
    """The subscriptions in the form that delivery uses."""
    return [_route(subscription, config, plugins) for subscription in config.subscriptions]


def subscription_of(settings: SubscriptionConfig) -> Subscription:
    """The settings of a subscription in the form that delivery uses."""
    return Subscription(
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


def _route(settings: SubscriptionConfig, config: Config, plugins: Plugins) -> Route:
    """The route of a subscription. A sink of an installed plugin runs on the plugin's own loop."""
    open_sink: Callable[[], Sink] = settings.build
    if not is_ours(settings.cls):
        open_sink = partial(SinkOnLoop, settings.build, plugins.loop_of_sink(settings.plugin))
    next_digest = partial(_next_digest, settings.digest, config) if isinstance(settings.digest, str) else None
    return Route(subscription=subscription_of(settings), open_sink=open_sink, next_digest=next_digest)


def _next_digest(crontab: str, config: Config, after: float) -> float:
    trigger = cron.CronTrigger.from_crontab(crontab, timezone=config.poller.zone)
    fire = trigger.get_next_fire_time(None, datetime.fromtimestamp(after, tz=config.poller.zone))
    return after + 86400.0 if fire is None else float(fire.timestamp())


async def sweep_once(
    app: App,
    endpoints: Collection[tuple[str, str]] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Run one complete sweep of every endpoint, or of those named (source, endpoint), beginning now.

    The sweep is limited only by the short windows. `progress` is called with (units polled, units). Returns what could
    not be read, as texts.
    """
    engine, changed = app.engine, asyncio.Event()
    sweeping = await engine.interventions.begin_sweeps(endpoints)
    for poll_loop in engine.loops.values():
        poll_loop.pace.hurry, poll_loop.poke = True, changed.set
        poll_loop.limiter.say_pause()
    # Running polls may still find deletions to be confirmed.
    while sweeping.goes_on(app.clock.now()) or any(poll_loop.tasks for poll_loop in engine.loops.values()):
        changed.clear()
        for poll_loop in engine.loops.values():
            await poll_loop.wake()
            if poll_loop.tasks.failure is not None:
                raise poll_loop.tasks.failure
        if progress is not None:
            progress(*sweeping.progress())
        due = min((poll_loop.next_at() for poll_loop in engine.loops.values()), default=math.inf) - app.clock.steady()
        if due == math.inf and not any(poll_loop.tasks for poll_loop in engine.loops.values()):
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), max(0.001, min(due, 1.0)))
    engine.interventions.end_sweeps()
    for poll_loop in engine.loops.values():
        poll_loop.pace.hurry, poll_loop.poke = False, lambda: None
    return sweeping.stuck(app.clock.now())
