"""A method of a source plugin that blocks delays its own source, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import BaseModel

from poller import Endpoint, Page, Position, hookimpl
from poller.app import open_app, sweep_once
from poller.config.load import load
from poller.daemon.daemon import Daemon
from poller.daemon.systemd import Notifier
from poller.hooks.loading import load_plugins
from poller.operations.commands import execute
from tests.support.living import swept, until, world

CONFIG = """
[poller]
state = "poller.db"
listen = ""
[budgets.slow]
limits = ["1000/s"]
[budgets.quick]
limits = ["1000/s"]
[sources.slow]
plugin = "slow"
budget = "slow"
base_url = "{slow}"
[sources.quick]
plugin = "rest"
budget = "quick"
base_url = "{quick}"
[sources.quick.endpoints.things]
path = "/things"
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{quick}/hook"
allow_private = true
"""
COMMANDS = 5


class Block:
    """Blocks whatever method is named, until it may go on."""

    def __init__(self) -> None:
        self.method: str | None = None
        self.entered, self.may_go = threading.Event(), threading.Event()

    def at(self, method: str) -> None:
        if method == self.method:
            self.entered.set()
            self.may_go.wait(60)


def plugin_of(block: Block) -> object:
    """A plugin with a source whose methods pass `block`."""

    class Slow:
        class Options(BaseModel):
            base_url: str

        limits: Sequence[Any] = ()
        auth = None

        def __init__(self, name: str, options: Options) -> None:
            self._url = options.base_url

        def discover(self) -> Iterator[httpx.Request]:
            block.at("discover")
            yield httpx.Request("GET", f"{self._url}/things")

        def endpoints(self) -> list[Endpoint]:
            return [Endpoint(name="things")]

        def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
            block.at("request")
            return httpx.Request("GET", f"{self._url}/things")

        def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
            block.at("page")
            return Page(objects=orjson.loads(response.content), next=None)

        def item_request(self, endpoint: Endpoint, object_id: str) -> httpx.Request:
            block.at("item_request")
            return httpx.Request("GET", f"{self._url}/things/{object_id}")

    class Plugin:
        @hookimpl
        def register_sources(self, register: Callable[[str, type], None]) -> None:
            register("slow", Slow)

    return Plugin()


@pytest.fixture
def block() -> Iterator[Block]:
    made = Block()
    yield made
    made.may_go.set()


@asynccontextmanager
async def running(path: Path, block: Block, *, first_sweep: bool) -> Any:
    plugins = load_plugins(lazily=True)
    plugins.add("slow", plugin_of(block))
    async with open_app(load(path, plugins), plugins) as app:
        if first_sweep:
            assert await sweep_once(app) == []
        daemon = Daemon(app, reload=lambda: load(path, plugins), notifier=Notifier({}))
        task = asyncio.create_task(daemon.run())
        try:
            yield daemon
        finally:
            block.may_go.set()
            daemon.stop.set()
            await task


@pytest.mark.parametrize("method", ["request", "page", "item_request", "discover"])
async def test_a_method_that_blocks_delays_its_own_source_and_nobody_else(
    tmp_path: Path, block: Block, method: str
) -> None:
    path = tmp_path / "poller.toml"
    async with world() as slow, world() as quick:
        path.write_text(CONFIG.format(slow=slow.url, quick=quick.url))
        if method == "discover":  # it is called before the first poll only
            block.method = method
        async with running(path, block, first_sweep=method != "discover") as daemon:
            block.method = method
            del slow.things[1]  # own URLs are asked for what is missing
            await until("the method to block", block.entered.is_set)
            if method == "discover":
                await until("the baseline of the other source", lambda: quick.asked > 2)
            quick.edit(2, 7)
            await until(
                "an event of the other source", lambda: 7 in [e["data"]["object"]["size"] for e in quick.received]
            )
            begun = daemon.app.engine.loops["quick"].tasks.begun
            for _ in range(COMMANDS):
                await execute(daemon.app, "pause", {"subscription": "hook"})
                await execute(daemon.app, "resume", {"subscription": "hook"})
            await until("more polls of it", lambda: daemon.app.engine.loops["quick"].tasks.begun > begun + COMMANDS)
            assert not block.may_go.is_set()

            block.may_go.set()
            await until("the baseline of the source that waited", lambda: swept(daemon))
            slow.edit(3, 9)
            await until("an event of the source that waited", lambda: sizes(quick.received, "slow", 3) == [9])


def sizes(received: Sequence[dict[str, Any]], source: str, number: int) -> list[int]:
    """The sizes of one thing in the received events of a source."""
    wanted = f"/sources/{source}", f"things/{number}"
    return [event["data"]["object"]["size"] for event in received if (event["source"], event["subject"]) == wanted]
