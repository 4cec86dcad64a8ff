"""Lists per parent of which one fails: it holds nothing up, and nothing is concluded about what it shows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
from poller.operations.gathering import read_status
from poller.polling.endpoint import WatchedEndpoint
from tests.polling.test_engine_planning import World as Time
from tests.support.upstream import serving

CONFIG = """
[poller]
listen = ""
[budgets.shop]
limits = ["4/s"]
[sources.shop]
plugin = "rest"
base_url = "{url}"
[sources.shop.endpoints.items]
path = "/items"
[sources.shop.endpoints.lines]
parent = "items"
path = "/items/{{parent.id}}/lines"
absent_for = "0s"
"""


class Shop:
    """Items, each with a list of lines; some lists answer with a status alone."""

    def __init__(self, items: int = 12) -> None:
        self.lines = {number: [number * 100 + 1, number * 100 + 2] for number in range(1, items + 1)}
        self.refused: dict[int, int] = {}

    async def answer(self, request: Request) -> Response:
        words = request.url.path.split("/")
        if words[-1] != "lines":
            return Response(orjson.dumps([{"id": number} for number in self.lines]))
        number = int(words[-2])
        if (status := self.refused.get(number)) is not None:
            return Response(status_code=status)
        return Response(orjson.dumps([{"id": line} for line in self.lines[number]]))


class World:
    """A poller on a virtual clock beside the shop."""

    def __init__(self, app: App, shop: Shop, clock: VirtualClock) -> None:
        self.app, self.shop = app, shop
        self.time = Time.__new__(Time)
        self.time.app, self.time.clock, self.time.poll_loop = app, clock, app.engine.loops["shop"]

    @property
    def lines(self) -> WatchedEndpoint:
        return self.app.engine.sources["shop"].endpoints["lines"]

    async def sweeps(self, number: int) -> None:
        """Go on until that many more sweeps of the lines are complete."""
        until = self.lines.state.sweep + number
        for _ in range(2000):
            if self.lines.state.sweep >= until:
                return
            await self.time.run(1.0)
        raise AssertionError(f"no sweep ended: {self.lines.sweep.pending} are waited for")

    async def mended(self) -> None:
        """Every list answers again, and is asked at once."""
        self.shop.refused.clear()
        self.app.engine.interventions.probe_now()
        while self.lines.units.failing():
            await self.time.run(1.0)

    def told(self, glob: str = "shop.*") -> list[tuple[str, str]]:
        events = self.app.store.log.read(limit=1000, type_glob=glob)
        return [(event.type, event.subject) for event in events]


@asynccontextmanager
async def world(folder: Path, shop: Shop, clock: VirtualClock | None = None) -> AsyncIterator[World]:
    clock = clock or VirtualClock()
    async with serving(Starlette(routes=[Route("/{path:path}", shop.answer)])) as url:
        (folder / "poller.toml").write_text(CONFIG.format(url=url))
        config = load(folder / "poller.toml", plugins := load_plugins())
        async with open_app(config, plugins, clock=clock) as app:
            yield World(app, shop, clock)


@pytest.mark.parametrize("status", [404, 403, 410, 500])
async def test_a_list_that_never_succeeds_keeps_the_others_neither_in_baseline_nor_silent(tmp_path, status):
    shop = Shop()
    shop.refused[7] = status
    async with world(tmp_path, shop) as w:
        await w.sweeps(1)
        assert not w.lines.in_baseline
        assert w.lines.state.objects == 22

        shop.lines[3].append(399)
        await w.sweeps(2)
        assert [kind for kind, _ in w.told()] == ["shop.lines.created"]
        config, now = w.app.config, w.time.clock.now()
    found = next(one for one in read_status(config, now=now).endpoints if one.endpoint == "lines")
    assert (found.state, found.failing) == ("failing", 1)
    assert (found.reason or "").startswith("1 of 12 lists fails: ")


async def test_what_such_a_list_shows_first_is_no_news_and_what_it_shows_then_is(tmp_path):
    shop, clock = Shop(), VirtualClock()
    shop.refused[7] = 404
    async with world(tmp_path, shop, clock) as w:
        await w.sweeps(2)
    async with world(tmp_path, shop, clock) as w:  # also after a restart
        await w.time.run(10.0)
        await w.mended()
        assert w.lines.state.objects == 24
        assert w.told() == []

        shop.lines[7].append(799)
        await w.sweeps(2)
        assert [kind for kind, _ in w.told()] == ["shop.lines.created"]


@pytest.mark.slow
async def test_a_list_that_fails_loses_no_object_and_what_it_missed_before_is_not_confirmed_by_others(tmp_path):
    shop = Shop()
    async with world(tmp_path, shop) as w:
        await w.sweeps(1)
        shop.lines[7] = [702]
        shop.lines[8] = [802]
        while "parent=7" in w.lines.sweep.pending or "parent=8" in w.lines.sweep.pending:
            await w.time.run(0.5)
        shop.refused[7] = 500
        await w.sweeps(6)
        assert [kind for kind, _ in w.told()] == ["shop.lines.deleted"]
        assert "801" in w.told()[0][1]
        assert w.lines.state.objects == 23

        await w.mended()
        await w.sweeps(3)
        assert [kind for kind, _ in w.told()] == ["shop.lines.deleted", "shop.lines.deleted"]


@pytest.mark.slow
async def test_lists_that_are_not_there_do_not_make_their_source_fail(tmp_path):
    shop = Shop()
    shop.refused |= dict.fromkeys(range(1, 9), 404)
    async with world(tmp_path, shop) as w:
        await w.sweeps(2)
        await w.time.run(120.0)

        assert w.app.engine.watch.is_well()
        assert w.app.engine.sources["shop"].health.snapshot().state == "ok"
        assert w.told("poller.source.*") == []


async def test_that_lists_fail_is_said_on_the_bus_once(tmp_path):
    shop = Shop()
    shop.refused[7] = 404
    async with world(tmp_path, shop) as w:
        await w.sweeps(4)

        notices = w.app.store.log.read(limit=100, type_glob="poller.endpoint.uncertain")
        assert len(notices) == 1
        assert "1 of 12 lists fails" in notices[0].data["summary"]


@pytest.mark.slow
async def test_where_every_list_is_missing_the_endpoint_fails_and_its_baseline_stays_open(tmp_path):
    shop = Shop()
    shop.refused |= dict.fromkeys(shop.lines, 404)
    async with world(tmp_path, shop) as w:
        await w.time.run(120.0)

        assert w.lines.in_baseline
        assert w.app.engine.sources["shop"].health.snapshot().state == "failing"
        assert w.told("poller.source.failing") != []
