"""A wall clock that is set, back or ahead, by however much: recording, polling and delivery go on, in order."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from poller.app import open_app, sweep_once
from poller.clock import SystemClock
from poller.config.load import load
from poller.daemon.daemon import Daemon
from poller.hooks.loading import load_plugins
from poller.planner import Planner, Unit
from poller.testing import Upstream, running
from state.move import TABLES
from state.open import open_reader
from state.sqlite.rewind import rewind
from tests.support.living import CONFIG, World, living, log_of, swept, until, world

MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY


@dataclass
class Wall:
    """A wall clock that is set by hand."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@asynccontextmanager
async def watched(folder: Path, wall: Wall, upstream: World) -> AsyncIterator[Daemon]:
    config = folder / "poller.toml"
    config.write_text(CONFIG.format(url=upstream.url, state="poller.db", listen=""))
    async with living(config, clock=SystemClock(wall=wall)) as daemon:
        await until("the baseline", lambda: swept(daemon))
        yield daemon


@pytest.fixture
def said() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as found:
        yield found


@pytest.mark.parametrize("jump", [-HOUR, -9 * YEAR, HOUR, 9 * YEAR])
async def test_a_clock_that_is_set_while_the_daemon_runs_stops_nothing(
    tmp_path: Path, jump: float, said: list[MutableMapping[str, Any]]
) -> None:
    wall = Wall()
    async with world() as upstream, watched(tmp_path, wall, upstream) as daemon:
        upstream.edit(1, 1)
        await until("an event before", lambda: upstream.sizes(1) == [1])
        engine = daemon.app.engine
        wall.ahead += jump
        await until("the clock to be followed", lambda: daemon.app.engine is not engine and daemon.app.is_polling)
        upstream.edit(1, 2)
        del upstream.things[2]
        await until("an event after", lambda: upstream.sizes(1) == [1, 2])
        await until("a deletion", lambda: any(event["type"] == "api.things.deleted" for event in upstream.told))
        assert abs(daemon.app.clock.now() - wall()) < 1.0
    (told,) = [one for one in said if one["event"] == "clock.set"]
    assert told["seconds"] == pytest.approx(jump, abs=MINUTE)
    for event in log_of(tmp_path / "poller.db"):
        assert event.observed_after is None or event.observed_after <= event.time
    with open_reader(tmp_path / "poller.db") as reader:
        assert reader.log.read(after=0, limit=100, type_glob="poller.clock.set")[0].subject == "clock"
        assert all(one.mean < MINUTE for one in reader.sums.measured_delays(since=0.0))


async def test_a_page_that_failed_does_not_wait_for_a_clock_that_was_set_back(tmp_path: Path) -> None:
    wall = Wall()
    async with world() as upstream, watched(tmp_path, wall, upstream) as daemon:
        upstream.status = 500
        w = daemon.app.engine.sources["api"].endpoints["things"]
        await until("a failure", w.units.failing)
        engine = daemon.app.engine
        wall.ahead -= HOUR
        await until("the clock to be followed", lambda: daemon.app.engine is not engine and daemon.app.is_polling)
        upstream.status = 200
        upstream.edit(1, 1)
        await until("the event", lambda: upstream.sizes(1) == [1])


async def test_a_clock_that_goes_ahead_and_back_stops_nothing(tmp_path: Path) -> None:
    wall = Wall()
    async with world() as upstream, watched(tmp_path, wall, upstream) as daemon:
        for size, jump in enumerate((9 * YEAR, -9 * YEAR, -HOUR, 2 * HOUR), start=1):
            engine = daemon.app.engine
            wall.ahead += jump
            upstream.edit(1, size)
            await until("the clock to be followed", lambda engine=engine: daemon.app.engine is not engine)
            await until("an event", lambda size=size: upstream.sizes(1)[-1:] == [size])
        assert upstream.sizes(1) == [1, 2, 3, 4]


async def test_a_clock_that_is_set_back_delays_no_retry(tmp_path: Path) -> None:
    wall, config = Wall(), tmp_path / "poller.toml"
    async with world() as upstream:
        text = CONFIG.replace('"200ms"', '"1s"').replace('"poller.*"', '"poller.ping"')  # no notice wakes it
        config.write_text(text.format(url=upstream.url, state="poller.db", listen=""))
        async with living(config, clock=SystemClock(wall=wall)) as daemon:
            await until("the baseline", lambda: swept(daemon))
            upstream.refusals = 1
            upstream.edit(1, 1)
            await until("a refusal", lambda: upstream.refusals == 0)
            wall.ahead -= HOUR
            await until("the retry", lambda: upstream.sizes(1) == [1])


@pytest.mark.parametrize("ahead", [HOUR, 2 * DAY, 9 * YEAR])
async def test_a_state_that_was_written_by_a_clock_ahead_is_not_blind(tmp_path: Path, ahead: float) -> None:
    async with world() as upstream:
        async with watched(tmp_path, Wall(ahead), upstream):
            upstream.edit(1, 1)
            await until("an event before", lambda: upstream.sizes(1) == [1])
        async with watched(tmp_path, Wall(), upstream) as daemon:
            upstream.edit(1, 2)
            await until("an event after", lambda: upstream.sizes(1) == [1, 2])
            units = [
                unit
                for run in daemon.app.engine.sources.values()
                for w in run.endpoints.values()
                for unit in w.units.values()
            ]
            assert all(unit.asked_at is not None and unit.asked_at <= time.time() for unit in units)


async def test_once_asks_though_the_state_was_written_by_a_clock_ahead(tmp_path: Path) -> None:
    async with world() as upstream:
        config = tmp_path / "poller.toml"
        config.write_text(CONFIG.format(url=upstream.url, state="poller.db", listen=""))
        plugins = load_plugins(lazily=True)
        for ahead in (2 * DAY, 0.0):
            before = upstream.asked
            upstream.edit(1, int(ahead))
            clock = SystemClock(wall=Wall(ahead))
            with structlog.testing.capture_logs() as said:
                async with open_app(load(config, plugins), plugins, clock=clock) as app:
                    known = app.engine.sources["api"].endpoints["things"]
                    times = [known.state.last_sweep, *(unit.answered_at for unit in known.units.values())]
                    assert all(at is None or at <= clock.now() for at in times)
                    assert await sweep_once(app) == []
            assert upstream.asked > before
    moved = [one["seconds"] for one in said if one["event"] == "state.moved_back"]
    assert moved == [pytest.approx(2 * DAY, abs=MINUTE)]
    assert [event.subject for event in log_of(tmp_path / "poller.db")] == ["things/1"]


async def test_a_clock_years_ahead_drops_nothing_that_is_to_be_kept(tmp_path: Path) -> None:
    wall = Wall()
    async with world() as upstream, watched(tmp_path, wall, upstream) as daemon:
        upstream.edit(1, 1)
        await until("an event", lambda: upstream.sizes(1) == [1])
        wall.ahead += 9 * YEAR
        engine = daemon.app.engine
        await until("the clock to be followed", lambda: daemon.app.engine is not engine and daemon.app.is_polling)
        await daemon.upkeep.purge()
    async with world() as upstream, watched(tmp_path, Wall(18 * YEAR), upstream) as daemon:  # after a boot
        await daemon.upkeep.purge()
        await daemon.upkeep.purge()
    assert [event.type for event in log_of(tmp_path / "poller.db")][:2] == ["api.things.updated", "poller.clock.set"]


def test_what_a_planner_has_learned_does_not_take_a_clock_that_was_set_for_time_that_passed() -> None:
    unit = Unit("api", "things", "list")
    planner = Planner([unit], now=0.0)
    for now in range(0, 600, 10):
        planner.observe(unit, float(now), changed=now // 10 % 2)
    later = Planner([unit], now=9 * YEAR + 600.0)
    later.load(planner.dump(), moved=9 * YEAR)
    there, here = later.explain(unit, 9 * YEAR + 610.0), planner.explain(unit, 610.0)
    assert there.rate == pytest.approx(here.rate, rel=0.01)
    assert there.staleness == pytest.approx(here.staleness)


KEPT = ("probe_wait", "queued_at", "finished_at")  # a duration, and times that are only shown


def test_every_time_that_is_compared_with_the_clock_moves_back_with_it() -> None:
    now, state = 1_795_000_000.0, sqlite3.connect(":memory:")
    names = ("units", "endpoints", "objects", "lanes", "deliveries", "subscriptions")
    for table in (one for one in TABLES if one.name in names):
        times = [name for name, kind in table.columns if kind == "float" and name not in KEPT]
        state.execute(f"CREATE TABLE {table.name} ({', '.join(times)})")
        state.execute(f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(times))})", [now + DAY] * len(times))
    state.execute("INSERT INTO units (retry_at) VALUES (?)", [now + 3 * DAY])  # later than any failure makes it

    assert rewind(state, now, 0.0) == -DAY
    left = {name: state.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    assert {at for rows in left.values() for row in rows for at in row} == {now, None}
    assert left["units"] == [(now, now, now), (None, None, None)]
    state.close()


SHOP = """
[sources.shop]
plugin = "rest"
base_url = "https://shop.example"
[sources.shop.endpoints.items]
path = "/items"
item_path = "/items/{id}"
absent_for = "0s"
"""


@pytest.mark.parametrize("jump", [-HOUR, -2 * DAY, 2 * DAY])
async def test_recording_keeps_its_order_though_nobody_follows_the_clock(tmp_path: Path, jump: float) -> None:
    """Not even a jump in the middle of an engine's life makes a later answer look older than what it replaces."""
    upstream = Upstream(lists={"/items": [{"id": 1, "size": 0}, {"id": 2, "size": 0}]})
    async with running(SHOP, tmp_path, upstream=upstream) as poller:
        assert await poller.sweep() == []
        poller.clock.set_wall(jump)
        upstream.lists["/items"] = [{"id": 1, "size": 1}]
        assert await poller.sweep() == []
        assert await poller.sweep() == []
        told = [(event.subject, event.type.rpartition(".")[2]) for event in poller.events]
        assert sorted(told) == [("items/1", "updated"), ("items/2", "deleted")]


async def test_times_of_long_ago_move_back_with_the_clock_as_well(tmp_path: Path) -> None:
    """What was polled longer ago than the clock was set back does not lie in the future, and moves all the same."""
    upstream = Upstream(lists={"/items": [{"id": 1}]})
    async with running(SHOP, tmp_path, upstream=upstream) as poller:
        assert await poller.sweep() == []
        active = poller.app.engine.sources["shop"]
        before = active.endpoints["items"].units["list"].asked_at or 0.0
        await poller.advance(2 * HOUR)
        planner, unit = active.poll_loop.planner, active.unit(active.endpoints["items"], "list")
        staleness = planner.explain(unit, poller.clock.now()).staleness
        poller.clock.set_wall(-HOUR)
        await poller.app.engines.reopen(moved=-HOUR)

        active = poller.app.engine.sources["shop"]
        assert active.endpoints["items"].units["list"].asked_at == before - HOUR
        there = active.poll_loop.planner.explain(unit, poller.clock.now())
        assert there.staleness == pytest.approx(staleness)
