"""A chain of cursors during which the form of the objects changes, on a real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from tests.support.upstream import serving

CONFIG = """
[budgets.api]
limits = ["1000/s"]
[sources.api]
plugin = "rest"
base_url = "{url}"
budget = "api"
[sources.api.endpoints.things]
path = "/things"
items = "$.items"
pagination = {{ type = "cursor" }}
"""
PAGES, SIZE = 4, 12


class Things:
    """A chain of pages; from page `torn` on, objects have one more field."""

    def __init__(self) -> None:
        self.torn: int = PAGES
        self.whole_after: int | None = None  # requests from now on, after which all have it
        self.edited: dict[int, dict[str, Any]] = {}

    async def list(self, request: Request) -> Response:
        page = int(request.query_params.get("cursor", 0))
        if self.whole_after is not None:
            self.whole_after -= 1
            if self.whole_after < 0:
                self.torn = 0
        more = {"colour": "red"} if page >= self.torn else {}
        items = [{"id": n, **more, **self.edited.get(n, {})} for n in range(page * SIZE, (page + 1) * SIZE)]
        return JSONResponse({"items": items, "next": str(page + 1) if page + 1 < PAGES else None})


@asynccontextmanager
async def opened(folder: Path, things: Things) -> AsyncIterator[App]:
    async with serving(Starlette(routes=[Route("/things", things.list)])) as url:
        (folder / "poller.toml").write_text(CONFIG.format(url=url))
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
            assert await sweep_once(app) == []
            yield app


def told(app: App) -> list[str]:
    return [event.type for event in app.store.log.read(limit=1000)]


@pytest.mark.parametrize("torn", [0, 1, 2, 3])
async def test_a_change_of_form_in_the_middle_of_a_chain_is_one_schema_change(tmp_path, torn):
    things = Things()
    async with opened(tmp_path, things) as app:
        things.torn, things.whole_after = torn, PAGES  # the reading that is torn; the next one is not
        for _ in range(2):
            assert await sweep_once(app) == []

        assert told(app) == ["poller.endpoint.schema_changed"]


async def test_a_field_that_some_objects_in_a_row_have_got_is_an_update_of_each(tmp_path):
    things = Things()
    async with opened(tmp_path, things) as app:
        things.edited = {n: {"colour": "red"} for n in range(20, 32)}
        for _ in range(2):
            assert await sweep_once(app) == []

        assert told(app) == ["api.things.updated"] * 12
