"""A whole poller in this process: the daemon on a real loop, an API that it watches, and a receiver of its events."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poller.app import open_app
from poller.clock import Clock
from poller.config.load import load
from poller.daemon.daemon import Daemon
from poller.daemon.systemd import Notifier
from poller.hooks.loading import load_plugins
from state.records import Event
from state.sqlite.store import open_reader
from tests.support.upstream import serving

PATIENCE = 60.0  # seconds

CONFIG = """
[poller]
state = "{state}"
listen = "{listen}"
[budgets.api]
limits = ["1000/s"]
concurrency = 2
[sources.api]
plugin = "rest"
base_url = "{url}"
[sources.api.endpoints.things]
path = "/things"
item_path = "/things/{{id}}"
absent_for = "0s"
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{url}/hook"
allow_private = true
types = ["*", "poller.*"]
retry = ["200ms", "200ms", "200ms", "200ms", "200ms", "200ms", "200ms", "200ms"]
"""


@dataclass
class World:
    """An API with one list, and a receiver."""

    things: dict[int, dict[str, Any]] = field(default_factory=lambda: {n: {"id": n, "size": 0} for n in range(1, 21)})
    received: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    refusals: int = 0  # of the receiver, to come
    status: int = 200  # of the list
    url: str = ""
    edits: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def edit(self, number: int, size: int) -> None:
        self.things[number] = {"id": number, "size": size}
        self.edits[number].append(size)

    @property
    def told(self) -> list[dict[str, Any]]:
        """What was received of the things."""
        return [event for event in self.received if event["source"] == "/sources/api"]

    def sizes(self, number: int) -> list[int]:
        return [event["data"]["object"]["size"] for event in self.told if event["subject"] == f"things/{number}"]

    async def list(self, _: Request) -> Response:
        self.asked += 1
        if self.status != 200:
            return Response(status_code=self.status)
        return Response(orjson.dumps(list(self.things.values())), media_type="application/json")

    async def item(self, request: Request) -> Response:
        found = self.things.get(request.path_params["number"])
        return Response(orjson.dumps(found), media_type="application/json") if found else Response(status_code=404)

    async def hook(self, request: Request) -> Response:
        if self.refusals:
            self.refusals -= 1
            return Response(status_code=503)
        self.received.append(orjson.loads(await request.body()))
        return Response(status_code=204)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """The API and the receiver, answering."""
    made = World()
    routes = [
        Route("/things", made.list),
        Route("/things/{number:int}", made.item),
        Route("/hook", made.hook, methods=["POST"]),
    ]
    async with serving(Starlette(routes=routes)) as made.url:
        yield made


@asynccontextmanager
async def living(config: Path, *, clock: Clock | None = None) -> AsyncIterator[Daemon]:
    """The daemon on a configuration file, stopped at the end."""
    plugins = load_plugins(lazily=True)
    loaded = load(config, plugins)
    async with open_app(loaded, plugins, clock=clock) as app:
        daemon = Daemon(app, reload=lambda: load(config, plugins), notifier=Notifier({}))
        running = asyncio.create_task(daemon.run())
        try:
            yield daemon
            assert not running.done(), "the daemon has ended by itself"
        finally:
            daemon.stop.set()
            await running


async def until(what: str, is_so: Callable[[], object]) -> None:
    """Return once it is so."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, f"waited {PATIENCE:g} s in vain: {what}"
        await asyncio.sleep(0.01)


def log_of(state: Path) -> list[Event]:
    with open_reader(state) as reader:
        return reader.log.read(limit=100_000)


def swept(daemon: Daemon) -> bool:
    return all(
        w.state.last_sweep is not None for run in daemon.app.engine.sources.values() for w in run.endpoints.values()
    )
