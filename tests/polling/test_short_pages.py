"""Pages with fewer objects than were asked for, on a real server: the list is read to its end."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.clock import Clock, VirtualClock
from poller.config.load import load
from poller.hooks.loading import load_plugins
from tests.polling.test_odd_ends import jumping
from tests.support.upstream import serving

PAGES = 'pagination = { type = "page", size_param = "size", size = 10 }'
OFFSETS = 'pagination = { type = "offset", size_param = "size", size = 10 }'
LARGE = PAGES.replace("10", "25")


@dataclass
class List:
    """A list of which a page shows at most `cap` objects, and none of those that are `hidden`."""

    ids: list[int] = field(default_factory=lambda: list(range(1, 26)))
    cap: int = 10
    hidden: frozenset[int] = frozenset()
    beyond: Callable[[], Response] | None = None  # the answer for a page behind the last one
    asked: list[int] = field(default_factory=list)

    def answer(self, params: Any) -> Response:
        size = min(int(params.get("size", 10)), self.cap)
        begin = int(params["offset"]) if "offset" in params else (int(params.get("page", 1)) - 1) * size
        self.asked.append(begin)
        if begin >= len(self.ids) > 0 and self.beyond is not None:
            return self.beyond()
        shown = [number for number in self.ids[begin : begin + size] if number not in self.hidden]
        return JSONResponse([{"id": number, "name": f"thing {number}"} for number in shown])


@asynccontextmanager
async def opened(
    folder: Path, table: str, found: List, more: str = "", clock: Clock | None = None, limits: str = "1000/s"
) -> AsyncIterator[App]:
    async def things(request: Request) -> Response:
        return found.answer(request.query_params)

    async def parents(_: Request) -> Response:
        return JSONResponse([{"id": 1}])

    routes = [Route("/things", things), Route("/parents", parents)]
    async with serving(Starlette(routes=routes)) as url:
        source = f'[sources.api]\nplugin = "rest"\nbase_url = "{url}"\nbudget = "api"\n{more}'
        text = f'[budgets.api]\nlimits = ["{limits}"]\n{source}'
        path = "/things?of={parent.id}" if more else "/things"
        endpoint = f'[sources.api.endpoints.things]\npath = "{path}"\nabsent_for = "0s"\n{table}\n'
        (folder / "poller.toml").write_text(f"{text}{endpoint}")
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins, clock=clock) as app:
            yield app


def known(app: App) -> int:
    state = app.engine.sources["api"].endpoints["things"].state
    assert state.uncertain is None
    assert state.baseline_before is None
    return state.objects


def told(app: App) -> list[tuple[str, str]]:
    events = app.store.log.read(limit=1000)
    return [(e.type.rpartition(".")[2], e.subject) for e in events if not e.type.startswith("poller.")]


@pytest.mark.parametrize("table", [PAGES, OFFSETS])
@pytest.mark.parametrize("cap", [4, 7, 9])
async def test_a_list_is_read_whole_whose_server_caps_pages_at_fewer_objects_than_were_asked_for(tmp_path, table, cap):
    found = List(cap=cap)
    async with opened(tmp_path, table, found) as app:
        assert await sweep_once(app) == []
        assert (known(app), told(app)) == (25, [])

        found.ids += [*range(26, 40)]
        for _ in range(2):
            assert await sweep_once(app) == []
        assert (known(app), told(app)) == (39, [("created", f"things/{number}") for number in range(26, 40)])

        del found.ids[5:30]
        for _ in range(8):
            assert await sweep_once(app) == []
        assert known(app) == 14
        assert sorted(told(app)[14:]) == sorted(("deleted", f"things/{number}") for number in range(6, 31))


async def test_a_list_is_read_whole_whose_server_takes_objects_out_of_a_page(tmp_path):
    found = List(hidden=frozenset({3, 12, 13, 25}))
    async with opened(tmp_path, PAGES, found) as app:
        for _ in range(2):
            assert await sweep_once(app) == []
        assert (known(app), told(app)) == (21, [])

        found.hidden = frozenset({3, 12, 13})
        found.ids += [*range(26, 36)]
        assert await sweep_once(app) == []
        assert sorted(told(app)) == [("created", f"things/{number}") for number in range(25, 36)]


async def test_a_list_that_goes_on_after_short_pages_does_so_after_a_restart(tmp_path):
    found = List(cap=7)
    async with opened(tmp_path, PAGES, found) as app:
        assert await sweep_once(app) == []
    found.ids += [*range(26, 40)]
    async with opened(tmp_path, PAGES, found) as app:
        assert await sweep_once(app) == []
        assert known(app) == 39


class Django(List):
    """A list as Django REST framework gives it, which answers 404 for a page after the last one."""

    def answer(self, params: Any) -> Response:
        page = int(params["page"])
        begin, end = (page - 1) * self.cap, page * self.cap
        if page > 1 and begin >= len(self.ids):
            return JSONResponse({"detail": "Invalid page."}, 404)
        before, after = (
            (page > 1 and f"?page={page - 1}") or None,
            (end < len(self.ids) and f"?page={page + 1}") or None,
        )
        shown = [{"id": number} for number in self.ids[begin:end]]
        return JSONResponse({"count": len(self.ids), "next": after, "previous": before, "results": shown})


@pytest.mark.parametrize("table", [PAGES, 'pagination = { type = "page" }'])
async def test_a_list_whose_last_page_is_full_ends_at_a_404_where_that_page_says_that_it_is_the_last(tmp_path, table):
    found = Django(ids=[*range(1, 21)])
    async with opened(tmp_path, f'items = "$.results"\n{table}', found) as app:
        assert await sweep_once(app) == []
        assert (known(app), told(app)) == (20, [])

        found.ids += [21, 22]
        assert await sweep_once(app) == []
        del found.ids[20:]
        for _ in range(4):
            assert await sweep_once(app) == []
        assert [what for what, _ in told(app)] == ["created"] * 2 + ["deleted"] * 2


NO_SUCH_PAGE: dict[str, Callable[[], Response]] = {
    **{
        str(status): lambda status=status: JSONResponse({"error": "no such page"}, status)
        for status in (400, 403, 404, 410, 416, 422, 500)
    },
    "null": lambda: JSONResponse(None),
    "an object": lambda: JSONResponse({"error": "no such page"}),
    "text": lambda: PlainTextResponse("no such page"),
    "204": lambda: Response(status_code=204),
}


@pytest.mark.parametrize("table", [PAGES, OFFSETS])
@pytest.mark.parametrize("beyond", NO_SUCH_PAGE.values(), ids=NO_SUCH_PAGE.keys())
async def test_whatever_is_answered_behind_a_short_last_page_it_is_looked_at_once(tmp_path, table, beyond):
    found = List(beyond=beyond)
    async with opened(tmp_path, table, found) as app:
        assert await sweep_once(app) == []
        assert len(found.asked) == 4
        assert (known(app), told(app)) == (25, [])

        found.asked.clear()
        for _ in range(3):
            assert await sweep_once(app) == []
        assert sorted(found.asked) == sorted([0, 10, 20] * 3)


async def test_a_refusal_for_too_many_calls_is_no_end(tmp_path):
    answers, clock = chain([429], repeat(404)), VirtualClock()
    found = List(beyond=lambda: JSONResponse({}, next(answers), headers={"retry-after": "0"}))
    async with opened(tmp_path, PAGES, found, clock=clock, limits="1/s") as app:
        await jumping(app, clock).run(60)
        assert found.asked.count(30) == 2
        assert known(app) == 25


@pytest.mark.parametrize("beyond", ["the first page", "the last page"])
async def test_a_server_that_repeats_a_page_behind_a_short_last_page_contradicts_nothing(tmp_path, beyond):
    ids = [*range(1, 9)] if beyond == "the first page" else [*range(1, 26)]
    found = List(ids=ids)
    found.beyond = lambda: found.answer({"size": 10, "page": 1 if beyond == "the first page" else 3})
    async with opened(tmp_path, PAGES, found) as app:
        for _ in range(3):
            assert await sweep_once(app) == []
            assert (known(app), told(app)) == (len(ids), [])
        assert len(app.engine.sources["api"].endpoints["things"].units) == (len(ids) + 9) // 10


async def test_a_server_that_begins_anew_behind_the_last_page_contradicts_nothing(tmp_path):
    found = List()
    found.beyond = lambda: found.answer({"size": 10, "page": 1})
    async with opened(tmp_path, PAGES, found) as app:
        for _ in range(3):
            assert await sweep_once(app) == []
            assert (known(app), told(app)) == (25, [])
        assert len(app.engine.sources["api"].endpoints["things"].units) == 3


@pytest.mark.parametrize("ids", [range(1, 26), range(1, 21)])
async def test_a_list_with_as_many_objects_on_its_last_page_as_servers_often_show_is_as_it_was(tmp_path, ids):
    found = List(ids=[*ids], cap=30)
    async with opened(tmp_path, LARGE.replace("25", "30"), found) as app:
        for _ in range(3):
            assert await sweep_once(app) == []
            assert (known(app), told(app)) == (len(ids), [])


async def test_a_server_that_always_fails_behind_the_last_page_keeps_no_list_open(tmp_path):
    found, clock = List(beyond=lambda: JSONResponse({}, 503)), VirtualClock()
    async with opened(tmp_path, PAGES, found, clock=clock, limits="1/s") as app:
        await jumping(app, clock).run(90)
        assert (known(app), told(app)) == (25, [])
        assert app.engine.sources["api"].health.snapshot().state == "ok"
        assert "page=4" not in app.engine.sources["api"].endpoints["things"].units


async def test_a_server_that_knows_neither_size_nor_page_may_have_more_than_it_shows(tmp_path):
    found = List(ids=[*range(1, 11)])
    found.beyond = lambda: found.answer({"size": 10, "page": 1})
    async with opened(tmp_path, LARGE, found) as app:
        for _ in range(2):
            assert "page=2 shows what page=1 shows" in (await sweep_once(app))[0]
            assert app.engine.sources["api"].endpoints["things"].in_baseline

        found.ids.append(11)
        found.cap = 25
        assert await sweep_once(app) == []
        assert (known(app), told(app)) == (11, [])


async def test_a_page_that_grows_to_as_many_objects_as_servers_often_show_is_looked_behind(tmp_path):
    found = List(ids=[*range(1, 9)])
    async with opened(tmp_path, LARGE, found) as app:
        for _ in range(2):
            assert await sweep_once(app) == []
        found.ids += [9, 10, 11, 12]
        for _ in range(2):
            assert await sweep_once(app) == []
        assert (known(app), told(app)) == (12, [("created", f"things/{number}") for number in range(9, 13)])


async def test_a_list_of_a_parent_goes_on_after_as_many_objects_as_servers_often_show(tmp_path):
    found = List()
    parents = '[sources.api.endpoints.parents]\npath = "/parents"\n'
    async with opened(tmp_path, f'parent = "parents"\n{LARGE}', found, more=parents) as app:
        assert await sweep_once(app) == []
        assert known(app) == 25
        found.beyond, found.ids = NO_SUCH_PAGE["400"], [*range(1, 31)]
        assert await sweep_once(app) == []
        assert known(app) == 30
