"""Plugins that block: a sink or observer delays itself alone. If the event loop itself is blocked, no sign of life
leaves, so that the service manager ends the program.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from poller import Event, Receipt, hookimpl
from poller.app import open_app
from poller.config.load import load
from poller.daemon.daemon import Daemon
from poller.daemon.systemd import Notifier
from poller.hooks.loading import load_plugins
from poller.operations.commands import execute
from tests.support.living import CONFIG, World, swept, until, world

INTERVAL = 0.05  # seconds between two signs of life
BLOCKING = '[[subscriptions]]\nname = "blocking"\nplugin = "blocking"\n'


class Sink:
    """A coroutine that waits without `await`, as one that calls a library without asyncio."""

    class Options(BaseModel):
        pass

    entered, may_go = threading.Event(), threading.Event()
    blocks_in: str | None = None

    def __init__(self, name: str, options: BaseModel) -> None:
        pass

    async def __aenter__(self) -> Sink:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def deliver(self, events: Sequence[Event], attempt: Any) -> Receipt:
        self.block("deliver")
        return Receipt("ok")

    @classmethod
    def block(cls, where: str) -> None:
        if where == cls.blocks_in:
            cls.entered.set()
            cls.may_go.wait(60)


class Plugin:
    @hookimpl
    def event_recorded(self, event: Event) -> None:
        Sink.block("event_recorded")

    @hookimpl
    def register_sinks(self, register: Callable[[str, type], None]) -> None:
        register("blocking", Sink)


class Manager(threading.Thread):
    """A service manager that looks whether signs of life come while the sink blocks, and then lets it go."""

    def __init__(self, address: Path) -> None:
        super().__init__(daemon=True)
        self.looks = threading.Event()  # it is to look now
        self.came_while_blocked: bool | None = None
        self.came_afterwards = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self.start()

    def run(self) -> None:
        self.looks.wait(60)
        self._hear(INTERVAL)  # what was sent before
        self.came_while_blocked = self._hear(10 * INTERVAL)
        Sink.may_go.set()
        if self._hear(60.0):
            self.came_afterwards.set()
        self._socket.close()

    def _hear(self, seconds: float) -> bool:
        """Whether a sign of life comes within so many seconds; all that wait are read."""
        self._socket.settimeout(seconds)
        heard = False
        with suppress(TimeoutError, BlockingIOError):
            while True:
                heard |= b"WATCHDOG=1" in self._socket.recv(4096)
                self._socket.settimeout(0.0)
        return heard


@asynccontextmanager
async def running(folder: Path, upstream: World) -> AsyncIterator[Daemon]:
    """A daemon that gives signs of life, with a sink that may block."""
    systemd = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": f"{INTERVAL * 2e6:.0f}"}
    path = folder / "poller.toml"
    path.write_text(CONFIG.format(url=upstream.url, state="poller.db", listen="") + BLOCKING)
    plugins = load_plugins(lazily=True)
    plugins.add("blocking", Plugin())
    async with open_app(load(path, plugins), plugins) as app:
        daemon = Daemon(app, reload=lambda: load(path, plugins), notifier=Notifier(systemd))
        running = asyncio.create_task(daemon.run())
        try:
            await until("the baseline", lambda: swept(daemon))
            yield daemon
        finally:
            Sink.may_go.set()
            daemon.stop.set()
            await running


@pytest.fixture(autouse=True)
def afresh() -> None:
    Sink.entered.clear()
    Sink.may_go.clear()
    Sink.blocks_in = None


@pytest.mark.parametrize("where", ["deliver", "event_recorded"])
async def test_a_sink_or_observer_that_blocks_delays_nothing_else(where: str, tmp_path: Path) -> None:
    Sink.blocks_in = where
    manager = Manager(tmp_path / "notify")
    async with world() as upstream, running(tmp_path, upstream) as daemon:
        upstream.edit(1, 1)
        await until("the block", Sink.entered.is_set)
        await until("the event, at a sink beside it", lambda: upstream.sizes(1) == [1])
        upstream.edit(2, 7)
        await until("a later event", lambda: upstream.sizes(2) == [7])
        for command in ("pause", "resume"):
            await execute(daemon.app, command, {"subscription": "hook"})
        assert not Sink.may_go.is_set()
        manager.looks.set()
        await until("an answer", manager.came_afterwards.is_set)
    assert manager.came_while_blocked


async def test_a_blocked_event_loop_gives_no_sign_of_life_until_it_goes_on(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    async with world() as upstream, running(tmp_path, upstream):
        manager.looks.set()
        Sink.may_go.wait(60)  # on the loop of the daemon
        await until("the end of the block", manager.came_afterwards.is_set)
    assert manager.came_while_blocked is False
