"""A list API on loopback whose answers go wrong on command, and the program that watches it."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brotli
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations.gathering import status
from poller.operations.live import live_of
from poller.operations.status import document
from poller.polling.endpoint import WatchedEndpoint, waits_for_others
from poller.polling.on_demand import OnDemandSweep
from poller.polling.source import ActiveSource
from state.records import Event
from state.sqlite.store import open_reader
from tests.support.upstream import serving

SIZE = 20  # objects on a page
TOKEN = "s3cret"
PATIENCE = 60.0  # seconds

CONFIG = """
[poller]
state = "poller.db"
[budgets.api]
limits = ["1000/s"]
concurrency = 1
[sources.api]
plugin = "rest"
base_url = "{url}"
auth = {{ type = "bearer", token = "{token}" }}
timeout = "{timeout}"
max_answer = "20kB"
max_depth = 8
[sources.api.endpoints.things]
path = "/things"
items = "$.items"
order = "id"
absent_for = "0s"
pagination = {{ type = "page", size = {size}, size_param = "size" }}
{items}
"""

Body = dict[str, Any]
Wrong = Callable[["Api", Body], Response]


@dataclass
class Api:
    """The list: three pages of twenty objects, in order of their ids. `wrong` answers page `page` instead (0: all)."""

    objects: list[Body] = field(default_factory=lambda: [thing(n) for n in range(1, 3 * SIZE + 1)])
    wrong: Wrong | None = None
    page: int = 2
    elsewhere: str = ""  # another server
    strangers: list[Request] = field(default_factory=list)  # what that one was asked
    asked: list[str] = field(default_factory=list)

    def break_(self, page: int, wrong: Wrong) -> None:
        """Let a page go wrong from now on."""
        self.page, self.wrong = page, wrong

    async def list(self, request: Request) -> Response:
        number = int(request.query_params["page"])
        self.asked.append(f"page {number}")
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Response(status_code=401)
        body = {"items": self.objects[(number - 1) * SIZE : number * SIZE]}
        if self.wrong is not None and self.page in (0, number):
            answer = self.wrong(self, body)
            if answer.headers.get("x-late"):
                await asyncio.sleep(3)
            return answer
        return json(body)

    async def item(self, request: Request) -> Response:
        number = request.path_params["number"]
        self.asked.append(f"thing {number}")
        found = next((one for one in self.objects if one["id"] == number), None)
        return json(found) if found else Response(status_code=404)

    async def other(self, request: Request) -> Response:
        self.strangers.append(request)
        return json({"items": []})


def thing(n: int) -> Body:
    return {"id": n, "name": f"thing {n}", "owner": {"id": 1, "name": "Ada"}}


def json(body: Any, status: int = 200, **headers: str) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


def zipped(body: Any) -> Response:
    return Response(gzip.compress(orjson.dumps(body)), headers={"content-encoding": "gzip"})


def brotlied(body: Any) -> Response:
    return Response(brotli.compress(orjson.dumps(body)), headers={"content-encoding": "br"})


def dripping() -> Response:
    async def drops() -> AsyncIterator[bytes]:
        yield b'{"items": ['
        while True:
            await asyncio.sleep(0.1)
            yield b" "

    return StreamingResponse(drops(), media_type="application/json")


def redirect(to: str) -> Response:
    return RedirectResponse(to)


@dataclass
class Ward:
    """The API, the running program on it, and what it said."""

    api: Api
    app: App
    opened: AsyncExitStack

    async def restart(self) -> None:
        """End the program, and begin it again on the same state."""
        path = self.app.config.path
        await self.opened.aclose()
        self.app = await opened_app(path, self.opened)

    async def look(self) -> None:
        """Ask for every page once, and for the own URLs of what is missing; what fails is not tried again."""
        sweeping = await self.app.engine.interventions.begin_sweeps()
        began = time.monotonic()
        for poll_loop in self.app.engine.loops.values():
            poll_loop.pace.hurry = True
        while not self._has_looked(sweeping):
            assert time.monotonic() - began < PATIENCE, sweeping.stuck(self.app.clock.now())
            if not self._all_seen(sweeping):  # else a page that was set aside would be asked for again
                for poll_loop in self.app.engine.loops.values():
                    await poll_loop.wake()
            await asyncio.sleep(0.005)
        self.app.engine.interventions.end_sweeps()

    def _has_looked(self, sweeping: OnDemandSweep) -> bool:
        engine = self.app.engine
        if any(poll_loop.tasks for poll_loop in engine.loops.values()):
            return False
        return self._all_seen(sweeping)

    def _all_seen(self, sweeping: OnDemandSweep) -> bool:
        return all(self._is_seen(run, w, sweeping) for run, w in sweeping)

    def _is_seen(self, run: ActiveSource, w: WatchedEndpoint, sweeping: OnDemandSweep) -> bool:
        now = self.app.clock.now()
        if sweeping.is_held(run, w) or run.health.blocked_until(w.name, now) is not None:
            return True
        asked = {unit.key for unit in w.units.failing()} | w.guards.quarantine.keys()
        is_left = any(key not in asked and not waits_for_others(w, key) for key in w.sweep.pending)
        return (sweeping.is_swept(run, w) or not is_left) and not run.deletions.queue.waiting.get(w.name)

    async def heal(self) -> None:
        """The API is well again, somebody reloads, and everything is swept three times."""
        self.api.wrong = None
        self.app.engine.interventions.probe_now()
        for _ in range(3):
            assert await sweep_once(self.app) == []

    def told(self) -> list[Event]:
        with open_reader(self.app.config.poller.state) as reader:
            return reader.log.read(limit=10_000)

    def status(self) -> dict[str, Any]:
        with open_reader(self.app.config.poller.state) as reader:
            return document(status(reader, self.app.config, now=self.app.clock.now(), live=live_of(self.app)))


@asynccontextmanager
async def ward(folder: Path, *, has_items: bool = True, timeout: str = "30s") -> AsyncIterator[Ward]:
    """The program after its silent baseline of a healthy API."""
    api = Api()
    routes = [Route("/things", api.list), Route("/things/{number:int}", api.item)]
    elsewhere = Starlette(routes=[Route("/{path:path}", api.other)])
    async with serving(Starlette(routes=routes)) as url, serving(elsewhere) as api.elsewhere:
        items = 'item_path = "/things/{id}"' if has_items else ""
        (folder / "poller.toml").write_text(
            CONFIG.format(url=url, token=TOKEN, size=SIZE, timeout=timeout, items=items)
        )
        async with AsyncExitStack() as opened:
            app = await opened_app(folder / "poller.toml", opened)
            assert await sweep_once(app) == []
            yield Ward(api, app, opened)


async def opened_app(config: Path, stack: AsyncExitStack) -> App:
    """The program, until the stack is closed."""
    plugins = load_plugins(lazily=True)
    return await stack.enter_async_context(open_app(load(config, plugins), plugins))
