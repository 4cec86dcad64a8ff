"""A plugin that blocks the event loop: no sign of life leaves, so that the service manager ends the program."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from poller import Event, Receipt, hookimpl
from poller.app import open_app
from poller.config.load import load
from poller.daemon.daemon import Daemon
from poller.daemon.systemd import Notifier
from poller.hooks.loading import load_plugins
from tests.support.living import CONFIG, swept, until, world

INTERVAL = 0.05  # seconds between two signs of life
BLOCKING = '[[subscriptions]]\nname = "blocking"\nplugin = "blocking"\n'


class Sink:
    """A coroutine that waits without `await`, as one that calls a library without asyncio."""

    class Options(BaseModel):
        pass

    entered, may_go = threading.Event(), threading.Event()

    def __init__(self, name: str, options: BaseModel) -> None:
        pass

    async def __aenter__(self) -> Sink:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def deliver(self, events: Sequence[Event], attempt: Any) -> Receipt:
        self.entered.set()
        self.may_go.wait(60)
        return Receipt("ok")


class Plugin:
    @hookimpl
    def register_sinks(self, register: Callable[[str, type], None]) -> None:
        register("blocking", Sink)


class Manager(threading.Thread):
    """A service manager that looks whether signs of life come while the sink blocks, and then lets it go."""

    def __init__(self, address: Path) -> None:
        super().__init__(daemon=True)
        self.came_while_blocked: bool | None = None
        self.came_afterwards = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self.start()

    def run(self) -> None:
        Sink.entered.wait(60)
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


async def test_a_plugin_that_blocks_the_event_loop_gives_no_sign_of_life_until_it_returns(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    systemd = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": f"{INTERVAL * 2e6:.0f}"}
    async with world() as upstream:
        path = tmp_path / "poller.toml"
        path.write_text(CONFIG.format(url=upstream.url, state="poller.db", listen="") + BLOCKING)
        plugins = load_plugins(lazily=True)
        plugins.add("blocking", Plugin())
        async with open_app(load(path, plugins), plugins) as app:
            daemon = Daemon(app, reload=lambda: load(path, plugins), notifier=Notifier(systemd))
            running = asyncio.create_task(daemon.run())
            try:
                await until("the baseline", lambda: swept(daemon))
                upstream.edit(1, 1)
                await until("the block and its end", manager.came_afterwards.is_set)
                await until("the event, at a sink beside it", lambda: upstream.sizes(1) == [1])
            finally:
                Sink.may_go.set()
                daemon.stop.set()
                await running
    assert manager.came_while_blocked is False
