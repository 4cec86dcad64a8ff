"""What the engine makes of a budget and a planner: a real list API, the real state, and a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poller.app import App, open_app
from poller.clock import VirtualClock
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.planner.planner import Unit
from tests.support.upstream import serving

CONFIG = """
[poller]
listen = ""
[budgets.shop]
limits = {limits}
share = 1
[sources.shop]
plugin = "rest"
base_url = "{url}"
[sources.shop.endpoints.items]
path = "/items"
pagination = {{ type = "page", size_param = "size", size = 4 }}
order = "id"
item_path = "/items/{{id}}"
{more}
"""

CHILDREN = """
[sources.shop.endpoints.lines]
parent = "items"
path = "/items/{parent.id}/lines"
"""


class Shop:
    """An API with a list of items in pages, and a list per item."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.status = 200
        for number in range(1, 11):
            self.put(number)

    def put(self, number: int, **fields: Any) -> None:
        self.items[number] = {"id": number, **fields}

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked.append(path + (f"?{request.query_params['page']}" if "page" in request.query_params else ""))
        if self.status != 200:
            return Response(status_code=self.status)
        if path.endswith("/lines"):
            return Response("[]")
        if path != "/items":
            known = self.items.get(int(path.rpartition("/")[2]))
            return Response(orjson.dumps(known), 200 if known else 404)
        page, size = int(request.query_params["page"]), int(request.query_params["size"])
        shown = [self.items[number] for number in sorted(self.items)][(page - 1) * size : page * size]
        return Response(orjson.dumps(shown))


class World:
    """One app that polls the shop, and time that moves on when it waits for nothing else."""

    def __init__(self, app: App, shop: Shop, clock: VirtualClock) -> None:
        self.app, self.shop, self.clock = app, shop, clock
        self.poll_loop = app.engine.loops["shop"]

    async def run(self, seconds: float) -> None:
        end = self.clock.steady() + seconds
        async with asyncio.timeout(60):  # real seconds: a hang is a failure
            while self.clock.steady() < end:
                await self._settled()
                assert self.poll_loop.tasks.failure is None
                self.clock.advance(max(0.001, min(self.poll_loop.next_at(), end) - self.clock.steady()))

    async def _settled(self) -> None:
        """Nothing is under way. A call that waits for a window would wait for ever if time stood still."""
        waking = asyncio.ensure_future(self.poll_loop.wake())
        while not waking.done() or self.poll_loop.tasks:
            if waking.done():
                waking.result()
                waking = asyncio.ensure_future(self.poll_loop.wake())
            await asyncio.sleep(0.001)
            if (at := self.clock.next_waking()) is not None:
                self.clock.advance(max(0.0, at - self.clock.steady()))
        waking.result()

    async def asked(self, seconds: float) -> list[str]:
        self.shop.asked.clear()
        await self.run(seconds)
        return list(self.shop.asked)

    def events(self, glob: str = "*") -> list[Any]:
        return self.app.store.log.read(limit=1000, type_glob=glob)


@asynccontextmanager
async def world(
    folder: Path, *, limits: str = '["10/min"]', more: str = "", clock: VirtualClock | None = None, crash: bool = False
) -> AsyncIterator[World]:
    shop, clock = Shop(), clock or VirtualClock()
    async with serving(Starlette(routes=[Route("/{path:path}", shop.answer)])) as url:
        path = folder / "poller.toml"
        path.write_text(CONFIG.format(url=url, limits=limits, more=more))
        config = load(path, plugins := load_plugins())
        async with open_app(config, plugins, clock=clock) as app:
            yield World(app, shop, clock)
            if crash:
                app.engine.loops.clear()  # nothing is saved


def page(number: int) -> Unit:
    return Unit("shop", "items", f"page={number}")


async def test_a_first_sweep_takes_what_the_short_windows_allow_and_a_quarter_of_the_longest(tmp_path):
    async with world(tmp_path, limits='["2/s", "8/h"]') as w:
        assert await w.asked(1.5) == ["/items?1", "/items?2"]
        assert w.poll_loop.budget.burst_left(w.clock.steady()) == 0


async def test_a_throttled_budget_is_told_once_per_episode(tmp_path):
    async with world(tmp_path) as w:
        await w.run(60)
        for episode in (1, 2):
            w.shop.status = 429
            await w.run(120)
            told = w.events("poller.budget.throttled")
            assert [event.subject for event in told] == ["budgets/shop"] * episode
            w.shop.status = 200
            await w.run(600)
        assert "429" in told[0].data["summary"]
        assert w.poll_loop.limiter.refused > 2


@pytest.mark.slow
async def test_a_new_last_page_inherits_the_rate_of_the_one_before(tmp_path):
    async with world(tmp_path) as w:
        for number in range(30):
            w.shop.put(9, edit=number)
            await w.run(30)
        rate = w.poll_loop.planner.explain(page(3), w.clock.now()).mean_rate
        for number in (11, 12, 13):
            w.shop.put(number)
        await w.run(60)

        heir = w.poll_loop.planner.explain(page(4), w.clock.now()).mean_rate
        assert heir > rate / 2
        assert w.poll_loop.planner.explain(page(3), w.clock.now()).mean_rate < heir


async def test_a_parent_that_changed_excites_its_children(tmp_path):
    async with world(tmp_path, more=CHILDREN) as w:
        await w.run(200)
        w.shop.put(7, edit=1)
        while not w.events("*.updated"):
            await w.run(1)
        rates = {
            key: w.poll_loop.planner.explain(Unit("shop", "lines", f"parent={key}"), w.clock.now()).rate
            for key in (6, 7)
        }
        assert rates[7] > 10 * rates[6]


async def test_confirmations_are_paid_from_the_budget_and_take_half_of_it_at_most(tmp_path):
    async with world(tmp_path, limits='["1/s"]') as w:
        await w.run(10)
        for number in (7, 8, 9, 10):
            del w.shop.items[number]
        asked = await w.asked(45)
        confirmed = [index for index, path in enumerate(asked) if "?" not in path]

        assert len(confirmed) == 2 * 4 + 2  # each is asked for twice, and beside them, twice, one that is listed
        assert sum(later - earlier < 2 for earlier, later in pairwise(confirmed)) == 2
        assert len(asked) <= 46
        assert len(w.events("*.deleted")) == 4


async def test_after_a_crash_it_is_known_when_each_unit_was_polled(tmp_path):
    clock = VirtualClock()
    async with world(tmp_path, clock=clock, crash=True) as w:
        await w.run(60)
        await w.app.engine.keeper.save_times()  # as the daemon does twice a second
        before = {key: unit.answered_at for key, unit in w.app.engine.sources["shop"].endpoints["items"].units.items()}
    async with world(tmp_path, clock=clock) as w:
        planner = w.poll_loop.planner
        assert {key: planner.explain(Unit("shop", "items", key), clock.now()).last_poll for key in before} == before


async def test_a_throttle_outlasts_a_restart(tmp_path):
    clock = VirtualClock()
    async with world(tmp_path, clock=clock) as w:
        await w.run(5)
        w.shop.status = 429
        await w.run(200)
        until = w.poll_loop.budget.throttled_until(clock.steady())
        assert until is not None
    async with world(tmp_path, clock=clock) as w:
        assert w.poll_loop.budget.throttled_until(clock.steady()) == until
