"""What an operator is told of an outage: once, and taken back once, whatever happens to the daemon or the unit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.clock import VirtualClock
from poller.config.load import load
from poller.events.cloudevents import iso
from poller.hooks.loading import load_plugins
from poller.planner.planner import Planner, Unit
from poller.polling.stall import Turns, due_since
from state.sqlite.store import open_reader
from tests.polling.test_engine_planning import CHILDREN, CONFIG, Shop, World
from tests.support.upstream import serving

FAILING, RECOVERED = "poller.source.failing", "poller.source.recovered"


class Ailing(Shop):
    """A shop of which single paths fail."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, int] = {}  # status by the beginning of a path with its page
        self.headers: dict[str, str] = {}  # of what fails

    async def answer(self, request: Request) -> Response:
        page = f"?{request.query_params['page']}" if "page" in request.query_params else ""
        for path, status in self.failing.items():
            if f"{request.url.path}{page}".startswith(path):
                return Response(status_code=status, headers=self.headers)
        return await super().answer(request)


class Town:
    """A shop that outlives the program that watches it."""

    def __init__(self, path: Path, shop: Ailing) -> None:
        self.path = path
        self.shop = shop
        self.clock = VirtualClock()

    @asynccontextmanager
    async def watched(self, *, crash: bool = False) -> AsyncIterator[World]:
        config = load(self.path, plugins := load_plugins())
        async with open_app(config, plugins, clock=self.clock) as app:
            yield World(app, self.shop, self.clock)
            if crash:
                app.engine.loops.clear()  # nothing is saved, as after kill -9
                app.engine.sources.clear()


@asynccontextmanager
async def town(folder: Path, *, more: str = "") -> AsyncIterator[Town]:
    shop = Ailing()
    async with serving(Starlette(routes=[Route("/{path:path}", shop.answer)])) as url:
        path = folder / "poller.toml"
        path.write_text(CONFIG.format(url=url, limits='["6/min"]', more=more))
        yield Town(path, shop)


def told(w: World, glob: str = "poller.source.*") -> list[str]:
    with open_reader(w.app.config.poller.state) as reader:
        return [event.type for event in reader.log.read(type_glob=glob)]


@pytest.mark.slow
@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("failing", ["/items", "/items?2"], ids=["the whole source", "one page"])
async def test_an_outage_with_restarts_in_it_is_told_once_and_taken_back_once(
    failing: str, crash: bool, tmp_path: Path
) -> None:
    async with town(tmp_path) as t:
        async with t.watched(crash=crash) as w:
            await w.run(60)
            t.shop.failing = {failing: 500}
            await w.run(900)
            assert is_told_once(w)
        for _ in range(2):
            async with t.watched(crash=crash) as w:
                await w.run(900)
                assert is_told_once(w)
                assert w.app.engine.sources["shop"].health.snapshot().state != "ok"
        t.shop.failing.clear()
        async with t.watched() as w:
            await w.run(1900)
            assert told(w).count(FAILING) == told(w).count(RECOVERED)
            assert w.app.engine.watch.is_well()
            assert w.events(RECOVERED)[0].data["detail"]["seconds"] > 2400


def is_told_once(w: World) -> bool:
    """Of an endpoint, and of its source where the failures of one page had told of the endpoint before those of the
    others did of the source.
    """
    scopes = [event.data["detail"]["scope"] for event in w.events(FAILING)]
    return len(scopes) == len(set(scopes)) >= 1 and set(told(w)) == {FAILING}


async def test_a_reload_during_an_outage_begins_no_second_episode(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(60)
        t.shop.failing = {"/items": 401}
        await w.run(60)
        for _ in range(2):
            await w.app.reconfigure(w.app.config)
            w.poll_loop = w.app.engine.loops["shop"]
            await w.run(1000)
        assert told(w) == [FAILING]
        t.shop.failing.clear()
        await w.app.reconfigure(w.app.config)
        w.poll_loop = w.app.engine.loops["shop"]
        await w.run(60)

        assert told(w) == [FAILING, RECOVERED]


@pytest.mark.slow
async def test_a_page_that_failed_and_ceased_to_exist_ends_its_episode(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(60)
        t.shop.failing = {"/items?3": 500}
        await w.run(600)
        assert told(w) == [FAILING]
        assert not w.app.engine.watch.is_well()
        for number in (5, 6, 7, 8, 9, 10):
            del t.shop.items[number]
        t.shop.failing = {"/items?3": 404}
        await w.run(1800)

        assert "page=3" not in w.app.engine.sources["shop"].endpoints["items"].units
        assert told(w) == [FAILING, RECOVERED]
        assert w.app.engine.watch.is_well()


@pytest.mark.slow
async def test_a_child_list_that_failed_and_lost_its_parent_ends_its_episode(tmp_path: Path) -> None:
    async with town(tmp_path, more=CHILDREN) as t, t.watched() as w:
        await w.run(60)
        t.shop.failing = {"/items/7/lines": 500}
        await w.run(900)
        assert told(w) == [FAILING]
        del t.shop.items[7]
        await w.run(900)

        assert told(w) == [FAILING, RECOVERED]


async def test_an_object_whose_own_url_failed_and_that_is_listed_again_leaves_nothing_failing(tmp_path: Path) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(120)
        gone = t.shop.items.pop(10)
        t.shop.failing = {"/items/10": 500}
        await w.run(60)
        assert w.app.engine.sources["shop"].health.snapshot().endpoints
        t.shop.items[10] = gone
        await w.run(120)

        assert w.app.engine.sources["shop"].health.snapshot().endpoints == ()


async def test_a_throttle_with_a_restart_in_it_is_told_once(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        async with t.watched() as w:
            await w.run(60)
            t.shop.failing = {"/items": 429}
            await w.run(300)
        async with t.watched() as w:
            await w.run(300)

        assert told(w, "poller.budget.*") == ["poller.budget.throttled"]


# A command asks always.


async def swept(app: App, clock: VirtualClock) -> list[str]:
    """A sweep on command, while time passes."""
    sweeping = asyncio.create_task(sweep_once(app))
    while not sweeping.done():
        await asyncio.sleep(0.002)
        clock.advance(0.25)
    return await sweeping


async def test_a_sweep_on_command_asks_for_what_failed_before_and_tells_what_it_saw_itself(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        for status in (500, 503):
            t.shop.failing = {"/items?2": status}
            async with t.watched() as w:
                (stuck,) = await swept(w.app, t.clock)
            assert f"page=2: {status} " in stuck
        t.shop.failing.clear()
        async with t.watched() as w:
            assert await swept(w.app, t.clock) == []


async def test_failures_of_several_commands_in_a_row_are_told_as_those_of_a_daemon(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        t.shop.failing = {"/items?2": 500}
        for _ in range(3):
            async with t.watched() as w:
                await swept(w.app, t.clock)
        assert told(w) == [FAILING]
        t.shop.failing.clear()
        async with t.watched() as w:
            await swept(w.app, t.clock)

        assert told(w) == [FAILING, RECOVERED]


async def test_a_sweep_on_command_says_that_its_server_wants_no_call_instead_of_waiting_for_an_hour(
    tmp_path: Path,
) -> None:
    async with town(tmp_path) as t, t.watched() as w:
        t.shop.failing, t.shop.headers = {"/items": 429}, {"retry-after": "3600"}
        began = t.clock.now()
        (stuck,) = await swept(w.app, t.clock)

        assert stuck == f"shop/items: the server wants no call of budget shop before {iso(w.poll_loop.pauses.until())}"
        assert t.clock.now() - began < 60


# A stall is the planner's, not a neighbour's.


def turns(**fields: Any) -> Turns:
    return Turns(**{"is_free": True, "is_first": False, "due": 0.0, "latest": 1000.0, **fields})


@pytest.mark.parametrize(
    ("fields", "since"),
    [
        ({}, None),  # a neighbour is preferred
        ({"is_first": True}, 1000.0),
        ({"is_first": True, "is_free": False}, None),
        ({"due": None}, None),
        ({"due": 1001.0, "is_first": True}, None),
        ({"latest": 500.0}, 500.0),  # nothing at all is polled
        ({"latest": 500.0, "due": 600.0}, 600.0),
    ],
)
def test_a_source_is_due_where_the_planner_would_poll_it_or_nothing_is_polled(
    fields: dict[str, Any], since: float | None
) -> None:
    assert due_since(turns(**fields), 1000.0) == since


def test_the_earliest_time_of_one_source_is_that_of_its_own_units() -> None:
    mine, other = Unit("a", "x", "1"), Unit("b", "x", "1")
    planner = Planner([mine, other], now=0.0)
    planner.defer(mine, 50.0)

    assert (planner.next_due(1.0), planner.next_due(1.0, "a"), planner.next_due(1.0, "c")) == (1.0, 50.0, None)
    planner.started(mine)
    assert planner.next_due(1.0, "a") is None


QUIET = """
[sources.quiet]
plugin = "rest"
budget = "shop"
base_url = "{url}/quiet"
[sources.quiet.endpoints.rare]
path = "/rare"
weight = 0.0001
"""


@pytest.mark.slow
async def test_a_quiet_source_behind_a_busy_neighbour_does_not_stand_still(tmp_path: Path) -> None:
    class Busy(Ailing):
        async def answer(self, request: Request) -> Response:
            if request.url.path == "/quiet/rare":
                return Response('[{"id": 1}]')
            for item in self.items.values():
                item["edit"] = item.get("edit", 0) + 1
            return await super().answer(request)

    shop = Busy()
    async with serving(Starlette(routes=[Route("/{path:path}", shop.answer)])) as url:
        path = tmp_path / "poller.toml"
        path.write_text(CONFIG.format(url=url, limits='["6/min"]', more=QUIET.format(url=url)))
        async with Town(path, shop).watched() as w:
            for _ in range(120):
                await w.run(30)
                await w.app.engine.watch.check()
            quiet = w.app.engine.sources["quiet"]

            assert quiet.times.begun_at is not None
            assert w.clock.now() - quiet.times.begun_at > 600, "it was rightly put off for long"
            assert told(w) == []


async def test_a_budget_whose_work_is_never_begun_is_an_alarm_that_outlasts_a_restart(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        async with t.watched() as w:
            await w.run(60)
            for _ in range(12):  # nobody wakes the budget
                t.clock.advance(30)
                await w.app.engine.watch.check()
            assert [event.data["detail"]["scope"] for event in w.events(FAILING)] == ["stall"]
        async with t.watched() as w:
            await w.app.engine.watch.check()
            await w.run(30)
            await w.app.engine.watch.check()

        assert told(w) == [FAILING, RECOVERED]


def test_a_unit_that_is_gone_inherits_nothing() -> None:
    old, new = Unit("a", "x", "page=1"), Unit("a", "x", "page=2")
    planner = Planner([old], now=0.0)
    planner.models.inherit(new, old)
    planner.add(new, now=1.0)
    planner.remove(old)
    planner.models.inherit(new, old)

    assert planner.explain(new, 2.0).last_poll is None
