"""What a poll of several calls costs is spread over the window like everything else: as the plan says it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poller.app import open_app
from poller.clock import VirtualClock
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations.planners import planner_states
from poller.planner.report import report
from poller.planner.unit import Unit
from poller.simulation.scenarios import run_scenario
from state.open import open_reader
from tests.polling.test_engine_planning import Shop, World
from tests.support.upstream import serving

HOUR = 3600.0
PAGES = 10
CONFIG = """
[poller]
listen = ""
[budgets.shop]
limits = ["360/h"]
[sources.shop]
plugin = "rest"
base_url = "{url}"
[sources.shop.endpoints.items]
path = "/items"
items = "$.items"
pagination = {{ type = "cursor", param = "cursor", next = "$.next" }}
"""


class Chain:
    """A list of ten pages, each with the cursor of the next one."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.begun: list[float] = []
        self.calls = 0

    async def answer(self, request: Request) -> Response:
        self.calls += 1
        page = int(request.query_params.get("cursor", 0))
        if page == 0:
            self.begun.append(self.clock.steady())
        found = {"items": [{"id": page}], "next": str(page + 1) if page + 1 < PAGES else None}
        return Response(orjson.dumps(found))


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[World, Chain]]:
    clock = VirtualClock()
    chain = Chain(clock)
    async with serving(Starlette(routes=[Route("/{path:path}", chain.answer)])) as url:
        (folder / "poller.toml").write_text(CONFIG.format(url=url))
        config = load(folder / "poller.toml", plugins := load_plugins())
        async with open_app(config, plugins, clock=clock) as app:
            yield World(app, Shop(), clock), chain


@pytest.mark.slow
async def test_a_chain_is_polled_evenly_over_the_hour_as_the_plan_and_the_simulation_say(tmp_path):
    async with world(tmp_path) as (w, chain):
        await w.run(HOUR)  # the first sweep, and what its quarter of the window leaves
        chain.begun.clear()
        calls = chain.calls
        await w.run(HOUR)
        calls = chain.calls - calls
        with open_reader(w.app.config.poller.state) as reader:
            (state,) = planner_states(w.app.config, reader.sums, now=w.clock.now())

    assert calls == pytest.approx(0.9 * 360, rel=0.05)  # the hour's calls, and not in its first 25 minutes
    gaps = [later - earlier for earlier, later in pairwise(chain.begun)]
    (planned,) = report([state]).units
    assert planned.interval == pytest.approx(sum(gaps) / len(gaps), rel=0.1)
    assert max(gaps) < 1.2 * planned.interval
    simulated = run_scenario(state, days=1.0).endpoints[0].calls_per_day
    assert simulated == pytest.approx(calls * 24, rel=0.1)


async def test_the_plan_knows_the_calls_of_a_unit_after_a_restart(tmp_path):
    async with world(tmp_path) as (w, _):
        await w.run(60)
        unit = Unit("shop", "items", "list")
        with open_reader(w.app.config.poller.state) as reader:
            (state,) = planner_states(w.app.config, reader.sums, now=w.clock.now())
        assert [one.cost for one in state.planner.units if one == unit] == [PAGES]
