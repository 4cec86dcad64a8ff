"""The daemon: timers wake the budgets, uvicorn answers, signals and systemd are heard."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from poller.app import App, opened
from poller.config.load import load
from poller.config.models import Config
from poller.daemon.heartbeat import beat
from poller.daemon.journal import Journal
from poller.daemon.logs import configure
from poller.daemon.outages import OutageKeeper
from poller.daemon.reloads import reload_of
from poller.daemon.systemd import Notifier
from poller.daemon.timers import Timers
from poller.hooks.loading import Plugins, said
from poller.operations import commands
from poller.operations.planners import check_promises
from poller.operations.running import RunningProgram
from poller.web.server import HttpServer, serve
from state.errors import PollerError, Unavailable

log = structlog.get_logger("poller")

LOOK_EVERY = 1.0  # seconds between two looks at the clock, and at what has failed
PURGE_EVERY = 1800.0  # seconds
TELL_EVERY = 1.0  # seconds between two looks for notices
HOUR = 3600.0  # seconds
COMMANDS_EVERY = 0.5  # seconds


class Daemon:
    """One app with its timers, until `stop` is set."""

    def __init__(self, app: App, *, reload: Callable[[], Config], notifier: Notifier) -> None:
        self.app = app
        self.stop = asyncio.Event()
        self._http: HttpServer | None = None  # once it answers
        self.started_at = time.time()
        self._reload = reload
        self._notifier = notifier
        self._timers = Timers(app.clock, may_run=self._may_run)
        self._outages = OutageKeeper(app, resumed=self._resumed)
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._woken = app.engine  # the engine whose budgets are scheduled

    @property
    def url(self) -> str | None:
        """Where it answers, once it does."""
        return None if self._http is None else self._http.url

    async def run(self) -> None:
        """Listen, say READY, poll and deliver until stopped; then end cleanly within seconds."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop.set)
        async with serve(RunningProgram(self.app), self.stop) as self._http, asyncio.TaskGroup() as group:
            group.create_task(self._deliver())
            keeping = group.create_task(self._outages.run())
            self._begin()
            self._notifier.ready(status=self._status_line())
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
                await self.app.close()
        log.info("poller.stopped")

    async def _deliver(self) -> None:
        try:
            await self.app.deliverer.run(self.stop)
        except Unavailable as error:
            if not self.stop.is_set():
                raise
            log.warning("delivery.not_recorded", error=str(error), hint="what left unrecorded is delivered again")

    def _reload_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self.reload(), name="reload")
        self._reloads.add(task)  # a task that nobody holds may vanish
        task.add_done_callback(self._reloads.discard)

    async def reload(self) -> None:
        """Take over `poller.toml` as it is now; keep the old one, and say so, where it cannot be used."""
        async with self._reloading:
            self._notifier.reloading()
            try:
                before = self.app.config.poller
                taken = reload_of(self.app.config, self._reload())
                await self._take_over(taken.config)
            except PollerError as error:
                self._refused(str(error), error.hint)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything: its configuration is refused
                self._refused(said(error), "this is a bug, of a plugin or of Poller", exc_info=error)
            else:
                self.app.refused = None
                settings = self.app.config.poller
                if (settings.log_level, settings.log_format) != (before.log_level, before.log_format):
                    configure(settings.log_level, settings.log_format)
                self._resumed()
                log.info("config.reloaded", changed=", ".join(taken.changed) or "nothing")
                if taken.kept:
                    log.warning("config.not_taken_over", keys=", ".join(taken.kept), hint="restart to change these")
            self._notifier.ready(status=self._status_line())

    async def _take_over(self, config: Config) -> None:
        """Run another configuration: what it listens on is bound before, and served after, everything else."""
        listening = None if self._http is None else self._http.prepare(config.poller)
        try:
            await self.app.reconfigure(config)
        except BaseException:
            if listening is not None:
                listening.discard()
            raise
        if self._http is not None and listening is not None:
            await self._http.adopt(listening)

    def _refused(self, error: str, hint: str | None, **more: object) -> None:
        self.app.refused = error
        log.error("config.refused", error=error, hint=hint, runs_on="the configuration as it was", **more)
        if self.app.is_polling:
            self._resumed()  # it may have been opened anew

    async def _until_stopped(self) -> None:
        interval = self._notifier.watchdog_interval
        while not self.stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), min(interval or LOOK_EVERY, LOOK_EVERY))
            self._raise_failures()
            await self._follow_clock()
            self._notifier.alive(status=self._status_line())

    def _raise_failures(self) -> None:
        """Raise what has ended the polling of a budget; an outage of the state is seen through, and does not."""
        for poll_loop in self.app.engine.loops.values():
            if poll_loop.failure is not None and not isinstance(poll_loop.failure, Unavailable):
                raise poll_loop.failure
        self._timers.raise_failures()

    async def _follow_clock(self) -> None:
        """Take over a time to which the machine's clock was set."""
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
        """Wake the budgets of the engine that polls now. One that polled before keeps the work it has chosen."""
        if self.app.engine is self._woken:
            return
        for poll_loop in self.app.engine.loops.values():
            poll_loop.refresh()
        self._wake()

    def _begin(self) -> None:
        self._wake()
        self._timers.every(COMMANDS_EVERY, "commands", self._commands)
        self._timers.every(60.0, "save what was learned", self._save)
        self._timers.every(30.0, "watch for stalls", self._watch)
        self._timers.every(60.0, "heartbeat", self._heartbeat)
        self._timers.every(PURGE_EVERY, "purge", self._purge)
        journal = Journal(self.app)
        journal.open()
        self._timers.every(TELL_EVERY, "tell notices", journal.tell_notices)
        self._timers.every(HOUR, "sum up the hour", journal.sum_up)

    def _wake(self) -> None:
        self._woken = self.app.engine
        self._timers.wake(self.app.engine.loops.values())

    async def _commands(self) -> None:
        await commands.run_posted(self.app)
        await self.app.engine.save_times()  # what others see of the state is half a second old at most

    async def _save(self) -> None:
        await self.app.engine.save()

    async def _watch(self) -> None:
        await self.app.engine.watch()

    async def _heartbeat(self) -> None:
        if self.app.is_well and self.app.refused is None:
            await beat(self.app)

    async def _purge(self) -> None:
        # Whichever is earlier: a wall clock that was set years ahead must not make everything look old.
        now = min(self.app.clock.now(), self.app.clock.steady())
        gone = await self.app.deliverer.purge(now - self.app.config.poller.retention)
        if gone:
            log.info("events.purged", events=gone)
        await self.app.engine.forget_calls()

    def _status_line(self) -> str:
        if (outage := self.app.write.outage) is not None:
            return f"paused: {outage}"
        engine = self.app.engine
        endpoints = sum(len(run.endpoints) for run in engine.sources.values())
        calls = sum(poll_loop.calls for poll_loop in engine.loops.values())
        return f"watching {endpoints} endpoints, {calls} calls since the start"


async def run_daemon(
    config: Config, plugins: Plugins, *, until: Callable[[Daemon], Awaitable[Any]] | None = None
) -> None:
    """Run in the foreground until SIGTERM or SIGINT, or until `until` returns. Raises PollerError: ConfigError for a
    `max_staleness` that cannot be kept.
    """
    check_promises(config)

    def reloaded() -> Config:
        fresh = load(config.path, plugins)
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
