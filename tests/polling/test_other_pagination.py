"""Another pagination in the configuration: units that began at positions of the old one are polled no longer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.polling.unit_keys import is_swept
from tests.support.upstream import serving

ROWS = [{"id": number, "name": f"thing {number}"} for number in range(1, 9)]
STYLES = {
    "list": "",
    "page": 'pagination = { type = "page", size_param = "limit", size = 3 }',
    "offset": 'pagination = { type = "offset", size = 3 }',
    "larger offset": 'pagination = { type = "offset", size = 4 }',
    "since": 'updated_since = { param = "since", field = "at" }',
}


async def things(request: Request) -> Response:
    """All rows, or those that page or offset, and limit, choose."""
    asked = {name: int(text) for name, text in request.query_params.items() if text.isdigit()}
    size = asked.get("limit", len(ROWS))
    begin = asked.get("offset", (asked.get("page", 1) - 1) * size)
    return JSONResponse(ROWS[begin : begin + size])


@asynccontextmanager
async def opened(folder: Path, url: str, table: str) -> AsyncIterator[App]:
    source = f'[sources.api]\nplugin = "rest"\nbase_url = "{url}"\nbudget = "api"\n'
    text = f'[budgets.api]\nlimits = ["1000/s"]\n{source}'
    (folder / "poller.toml").write_text(f'{text}[sources.api.endpoints.things]\npath = "/things"\n{table}\n')
    plugins = load_plugins(lazily=True)
    async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
        yield app


def units(app: App) -> set[str]:
    return set(app.engine.sources["api"].endpoints["things"].units)


def events(app: App) -> list[Any]:
    return [event.type for event in app.store.log.read(limit=1000)]


@pytest.mark.parametrize(("old", "new"), [*permutations(STYLES, 2)])
async def test_only_units_of_the_configured_pagination_are_polled(tmp_path: Path, old: str, new: str) -> None:
    async with serving(Starlette(routes=[Route("/things", things)])) as url:
        async with opened(tmp_path, url, STYLES[old]) as app:
            assert await sweep_once(app) == []
        async with opened(tmp_path, url, STYLES[new]) as app:
            assert await sweep_once(app) == []
            assert await sweep_once(app) == []
            found = units(app)
            state = app.engine.sources["api"].endpoints["things"].state

            assert (state.uncertain, state.objects, events(app)) == (None, len(ROWS), [])
    (tmp_path / "poller.db").unlink()
    async with serving(Starlette(routes=[Route("/things", things)])) as url, opened(tmp_path, url, STYLES[new]) as app:
        for _ in range(2):  # the first sweep looks beyond a short last page
            await sweep_once(app)
        assert found == units(app)
        assert any(map(is_swept, found))


PLUGIN = """
import httpx
from pydantic import BaseModel

from poller import Endpoint, Page, Position, hookimpl


class Options(BaseModel):
    url: str


class Numbered:
    Options = Options
    limits = ()
    auth = None

    def __init__(self, name, options):
        self.url = options.url

    def endpoints(self):
        return [Endpoint(name="things")]

    def request(self, endpoint, at):
        page = "" if at.page is None else f"&page={at.page}"
        return httpx.Request("GET", f"{self.url}/things?limit=3{page}")

    def page(self, endpoint, at, response):
        rows = response.json()
        return Page(objects=rows, next=Position(page=(at.page or 1) + 1) if rows else None)

    def item_request(self, endpoint, object_id):
        return None

    def discover(self):
        return iter(())


@hookimpl
def register_sources(register):
    register("numbered", Numbered)
"""


async def test_numbered_pages_of_a_list_that_begins_without_a_number_are_its_own_after_a_restart(tmp_path: Path):
    rows = [dict(row) for row in ROWS]

    async def listed(request: Request) -> Response:
        page = int(request.query_params.get("page", "1"))
        return JSONResponse(rows[3 * page - 3 : 3 * page])

    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "numbered.py").write_text(PLUGIN)
    async with serving(Starlette(routes=[Route("/things", listed)])) as url:
        (tmp_path / "poller.toml").write_text(
            f'[poller]\nplugins_dir = "plugins.d"\n[budgets.api]\nlimits = ["1000/s"]\n'
            f'[sources.api]\nplugin = "numbered"\nurl = "{url}"\nbudget = "api"\n'
        )
        for run in range(3):
            plugins = load_plugins(tmp_path / "plugins.d")
            async with open_app(load(tmp_path / "poller.toml", plugins), plugins) as app:
                assert run == 0 or units(app) == {"list", "page=2", "page=3", "page=4"}
                if run == 2:
                    rows[4]["name"] = "edited"
                await sweep_once(app)
                subjects = [event.subject for event in app.store.log.read(limit=10)]
    assert subjects == ["things/5"]
