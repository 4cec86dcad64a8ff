"""What a sweep on command makes of a server that refuses: a stray 401, a refused key, a pause within a chain."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations.commands import execute
from tests.support.upstream import serving

CONFIG = """
[poller]
plugins_dir = "plugins.d"
[budgets.api]
limits = ["1000/s"]
[sources.api]
plugin = "{plugin}"
{url}
budget = "api"
[sources.api.endpoints.things]
"""
REST = 'path = "/things"\npagination = { type = "cursor" }\nitems = "$.items"\n'
ASKING_FIRST = """
import httpx
from pydantic import BaseModel
from poller import Endpoint, Page, hookimpl

class Asking:
    class Options(BaseModel):
        pass
    limits = ()
    auth = None
    def __init__(self, name, options):
        pass
    def endpoints(self):
        return [Endpoint(name="things")]
    def discover(self):
        yield httpx.Request("GET", "URL/things")
    def request(self, endpoint, at):
        return httpx.Request("GET", "URL/things")
    def page(self, endpoint, at, response):
        return Page(objects=response.json()["items"])

@hookimpl
def register_sources(register):
    register("asking", Asking)
"""

Answer = Callable[[Request], Response]


def things(request: Request) -> Response:
    return JSONResponse({"items": [{"id": 1}]})


@asynccontextmanager
async def opened(folder: Path, answers: list[Answer], *, plugin: str = "rest") -> AsyncIterator[App]:
    """The program on a server that gives these answers, and then the last of them for ever."""

    async def answer(request: Request) -> Response:
        return (answers.pop(0) if len(answers) > 1 else answers[0])(request)

    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as url:
        (folder / "plugins.d").mkdir(mode=0o700)
        (folder / "plugins.d" / "asking.py").write_text(ASKING_FIRST.replace("URL", url))
        text = CONFIG.format(plugin=plugin, url=f'base_url = "{url}"' if plugin == "rest" else "")
        (folder / "poller.toml").write_text(text + (REST if plugin == "rest" else ""))
        plugins = load_plugins(folder / "plugins.d")
        async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
            yield app


def refused(_: Request) -> Response:
    return JSONResponse({"error": "who are you?"}, 401)


def paused(_: Request) -> Response:
    headers = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3000"}
    return JSONResponse({"items": [{"id": 1}], "next": "2"}, headers=headers)


@pytest.mark.parametrize("plugin", ["rest", "asking"])
async def test_a_stray_401_closes_no_source(tmp_path, plugin):
    async with opened(tmp_path, [refused, things], plugin=plugin) as app:
        assert await sweep_once(app) == []
        assert app.engine.sources["api"].health.snapshot().state == "ok"
        assert app.store.log.read(limit=10) == []


@pytest.mark.parametrize("plugin", ["rest", "asking"])
async def test_a_refused_key_is_said_at_once(tmp_path, plugin):
    began = time.monotonic()
    async with opened(tmp_path, [refused], plugin=plugin) as app:
        stuck = await sweep_once(app)

    assert "401 Unauthorized" in stuck[0]
    assert time.monotonic() - began < 30.0  # it was 90 s and more


async def test_a_pause_in_the_middle_of_a_chain_ends_the_sweep_and_says_until_when(tmp_path):
    async with opened(tmp_path, [paused]) as app:
        (stuck,) = await sweep_once(app)
        looked = await execute(app, "inspect", {"endpoint": "api/things"})

    assert "the server wants no call of budget api before 20" in stuck
    assert "the server wants no call of budget api before 20" in str(looked)
