"""304 is not believed for ever: servers whose validators lie, on a real port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
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
from poller.polling.fetch import MOST_UNMODIFIED
from tests.support.upstream import serving

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@dataclass
class Liar:
    """A list that marks every answer alike, and answers 304 to whoever sends the mark back."""

    marks: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=lambda: [{"id": 1, "name": "a"}])
    asked: list[dict[str, str]] = field(default_factory=list)

    async def things(self, request: Request) -> Response:
        sent = {name: value for name, value in request.headers.items() if name.startswith("if-")}
        self.asked.append(sent)
        if sent and request.method == "POST":
            return Response(status_code=412)
        headers = {**self.marks, "date": format_datetime(NOW, usegmt=True)}
        return Response(status_code=304, headers=headers) if sent else JSONResponse(self.rows, headers=headers)


def modified(age: timedelta) -> dict[str, str]:
    return {"last-modified": format_datetime(NOW - age, usegmt=True)}


@asynccontextmanager
async def opened(folder: Path, liar: Liar, table: str = "") -> AsyncIterator[App]:
    async with serving(Starlette(routes=[Route("/things", liar.things, methods=["GET", "POST"])])) as url:
        text = (
            f'[budgets.api]\nlimits = ["1000/s"]\n[sources.api]\nplugin = "rest"\nbase_url = "{url}"\nbudget = "api"\n'
        )
        (folder / "poller.toml").write_text(f'{text}[sources.api.endpoints.things]\npath = "/things"\n{table}')
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
            yield app


@pytest.mark.parametrize("marks", [{"etag": '"constant"'}, modified(timedelta(days=1))], ids=["etag", "last-modified"])
async def test_a_constant_mark_hides_an_edit_for_some_polls_and_no_longer(tmp_path, marks):
    liar = Liar(marks)
    async with opened(tmp_path, liar) as app:
        await sweep_once(app)
        liar.rows[0]["name"] = "edited"
        for _ in range(MOST_UNMODIFIED + 1):
            await sweep_once(app)

        assert [bool(sent) for sent in liar.asked] == [False, *[True] * MOST_UNMODIFIED, False]
        assert [event.type for event in app.store.log.read(limit=10)] == ["api.things.updated"]


async def test_a_young_last_modified_is_not_sent_back(tmp_path):
    liar = Liar(modified(timedelta(seconds=2)))
    async with opened(tmp_path, liar) as app:
        for _ in range(3):
            await sweep_once(app)

        assert liar.asked == [{}, {}, {}]


async def test_an_etag_leaves_the_last_modified_aside(tmp_path):
    liar = Liar({"etag": '"a"', **modified(timedelta(days=1))})
    async with opened(tmp_path, liar) as app:
        for _ in range(2):
            await sweep_once(app)

        assert liar.asked == [{}, {"if-none-match": '"a"'}]


async def test_nothing_is_sent_back_where_that_is_switched_off(tmp_path):
    liar = Liar({"etag": '"a"'})
    async with opened(tmp_path, liar, "conditional = false\n") as app:
        for _ in range(3):
            await sweep_once(app)

        assert liar.asked == [{}, {}, {}]


async def test_a_list_that_is_asked_for_by_post_is_asked_for_unconditionally(tmp_path):
    liar = Liar({"etag": '"a"'})
    async with opened(tmp_path, liar, 'method = "POST"\n') as app:
        for _ in range(2):
            assert await sweep_once(app) == []

        assert liar.asked == [{}, {}]


@dataclass
class Shifting:
    """Two pages of two; the first bears the mark of its newest row, which a row that goes does not change."""

    rows: list[int] = field(default_factory=lambda: [1, 2, 3])
    asked: list[bool] = field(default_factory=list)

    async def things(self, request: Request) -> Response:
        page = int(request.query_params.get("page", "1"))
        shown = [{"id": number} for number in self.rows[2 * page - 2 : 2 * page]]
        if page > 1:
            return JSONResponse(shown)
        self.asked.append("if-none-match" in request.headers)
        headers = {"etag": '"newest"'}
        return Response(status_code=304, headers=headers) if self.asked[-1] else JSONResponse(shown, headers=headers)


async def test_an_object_that_moves_to_a_page_that_is_not_modified_is_not_deleted(tmp_path):
    shop = Shifting()
    table = 'pagination = { type = "page", size_param = "size", size = 2 }\nabsent_for = "0s"\n'
    async with opened(tmp_path, shop, table) as app:
        await sweep_once(app)
        shop.rows.remove(1)
        for _ in range(MOST_UNMODIFIED + 6):
            await sweep_once(app)

        assert [(event.type, event.subject) for event in app.store.log.read(limit=10)] == [
            ("api.things.deleted", "things/1")
        ]


async def test_it_is_not_deleted_after_a_restart_either(tmp_path):
    shop = Shifting()
    table = 'pagination = { type = "page", size_param = "size", size = 2 }\nabsent_for = "0s"\n'
    for runs in range(MOST_UNMODIFIED):
        async with opened(tmp_path, shop, table) as app:
            await sweep_once(app)
            events = [(event.type, event.subject) for event in app.store.log.read(limit=10)]
        if runs == 0:
            shop.rows.remove(1)

        assert ("api.things.deleted", "things/3") not in events


async def test_a_deletion_is_confirmed_though_each_sweep_is_a_run_of_its_own(tmp_path):
    shop = Shifting(rows=[1, 2, 3])
    table = 'pagination = { type = "page", size_param = "size", size = 2 }\nabsent_for = "0s"\n'
    for runs in range(5):
        async with opened(tmp_path, shop, table) as app:
            await sweep_once(app)
            events = [(event.type, event.subject) for event in app.store.log.read(limit=10)]
        if runs == 0:
            shop.rows.remove(3)

    assert events == [("api.things.deleted", "things/3")]
