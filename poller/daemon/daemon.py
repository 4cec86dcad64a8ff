"""The daemon: timers wake the budgets, uvicorn serves HTTP, and signals and systemd are handled."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from poller.app import App, opened
from poller.config.load import load
from poller.config.models import Config
from poller.daemon.heartbeat import status_line
from poller.daemon.outages import OutageKeeper
from poller.daemon.reloader import Reloader
from poller.daemon.systemd import Notifier
from poller.daemon.timers import Timers
from poller.daemon.upkeep import Upkeep
from poller.daemon.workers import Workers
from poller.hooks.loading import Plugins
from poller.operations.planners import check_promises
from poller.operations.running import RunningProgram
from poller.web.server import HttpServer, serve
from state.errors import Unavailable

log = structlog.get_logger("poller")

OBEYED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
LOOK_EVERY: Final = 1.0  # seconds between two checks of the clock and of failures


class Daemon:
    """One app with its timers, until `stop` is set."""

    def __init__(self, app: App, *, reload: Callable[[], Config], notifier: Notifier) -> None:
        self.app = app
        self.stop = asyncio.Event()
        self._http: HttpServer | None = None  # set once it answers
        self.upkeep = Upkeep(app)
        self._program = RunningProgram(app)
        self._reloader = Reloader(app, read=reload, resumed=self._resumed, notifier=notifier)
        self._notifier = notifier
        self._timers = Timers(app.clock, may_run=self._may_run)
        self._outages = OutageKeeper(app, resumed=self._resumed)
        self._reloads: set[asyncio.Task[None]] = set()
        self._woken = app.engine  # the engine whose budgets are scheduled
        self._workers = None if app.tenure is None else Workers(app, app.tenure, woken=self._timers.add)

    @property
    def url(self) -> str | None:
        """Its URL, once it answers."""
        return None if self._http is None else self._http.url

    async def run(self) -> None:
        """Listen, report READY, poll and deliver until stopped; then end cleanly within seconds."""
        self._handle_signals()
        sharing = contextlib.nullcontext() if self._workers is None else self._workers.running()
        async with sharing, serve(self._program, self.stop) as self._http, asyncio.TaskGroup() as group:
            group.create_task(self._deliver())
            keeping = group.create_task(self._outages.run())
            self._wake()
            self.upkeep.begin(self._timers, self._program)
            self._notifier.ready(status=status_line(self.app))
            await self.app.plugins.observe("started")
            log.info(
                "poller.started", sources=len(self.app.config.sources), listen=self.app.config.poller.listen or "off"
            )
            try:
                await self._until_stopped()
            finally:
                self._notifier.stopping()
                await self.app.plugins.observe("stopping")
                keeping.cancel()
                self.stop.set()
                await self._timers.close()
                await self.app.engines.close()
        log.info("poller.stopped")

    def _handle_signals(self) -> None:
        """Obey signals. The set-up of a plugin's source, which a reload repeats, may replace the handlers."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)  # `poller run` lets a SIGHUP that came early wait

    async def _deliver(self) -> None:
        try:
            await self.app.deliverer.run(self.stop)
        except Unavailable as error:
            if not self.stop.is_set():
                raise
            log.warning("delivery.not_recorded", error=str(error), hint="what left unrecorded is delivered again")

    def _reload_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self.reload(), name="reload")
        self._reloads.add(task)  # a task without a reference may be garbage collected
        task.add_done_callback(self._reloads.discard)

    async def reload(self) -> None:
        """Use the current `poller.toml`, or keep the old configuration."""
        await self._reloader.reload(self._http)

    async def _until_stopped(self) -> None:
        interval = self._notifier.watchdog_interval
        while not self.stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), min(interval or LOOK_EVERY, LOOK_EVERY))
            self._handle_signals()
            self._raise_failures()
            await self._follow_clock()
            if self._may_run():
                self._resumed()  # a command may have replaced the engine
            self._notifier.alive(status=status_line(self.app))

    def _raise_failures(self) -> None:
        """Raise the exception that has ended the polling of a budget, unless it is an outage of the state."""
        for poll_loop in self.app.engine.loops.values():
            if poll_loop.tasks.failure is not None and not isinstance(poll_loop.tasks.failure, Unavailable):
                raise poll_loop.tasks.failure
        self._timers.raise_failures()
        if self._workers is not None:
            self._workers.raise_failures()

    async def _follow_clock(self) -> None:
        """Apply a time to which the machine's clock was set."""
        moved = self.app.clock.look()
        if not moved or not self._may_run():
            return
        log.warning("clock.set", seconds=round(moved, 1), why="the machine's clock was set")
        with contextlib.suppress(Unavailable):
            await self.app.follow_clock(moved)
        self._resumed()

    def _may_run(self) -> bool:
        return self.app.is_polling and self.app.write.outage is None

    def _resumed(self) -> None:
        """Wake the budgets of the current engine. An engine that polled before keeps the work that it has chosen."""
        if self.app.engine is self._woken:
            return
        for poll_loop in self.app.engine.loops.values():
            poll_loop.refresh()
        self._wake()

    def _wake(self) -> None:
        self._woken = self.app.engine
        self._timers.wake(self.app.engine.loops.values())


async def run_daemon(
    config: Config,
    plugins: Plugins,
    *,
    until: Callable[[Daemon], Awaitable[Any]] | None = None,
    listen: str | None = None,
) -> None:
    """Run in the foreground until SIGTERM or SIGINT, or until `until` returns. Raises PollerError: ConfigError for a
    `max_staleness` that cannot be kept. `listen` replaces the file's, also at a reload.
    """
    check_promises(config)

    def reloaded() -> Config:
        fresh = load(config.path, plugins, listen=listen, worker=True)
        check_promises(fresh)
        return fresh

    async with opened(config, plugins) as app:
        daemon = Daemon(app, reload=reloaded, notifier=Notifier())
        if until is None:
            await daemon.run()
            return

        async def limited() -> None:
            await until(daemon)
            daemon.stop.set()

        async with asyncio.TaskGroup() as group:
            limit = group.create_task(limited())
            await daemon.run()
            limit.cancel()
