"""One poller through every trouble that its machine can make, one after the other: all is told once, in order."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from poller.clock import SystemClock
from poller.daemon.daemon import Daemon
from tests.support.disk import small_disk
from tests.support.living import CONFIG, World, living, log_of, until, world

HOUR = 3600.0
YEAR = 365 * 24 * HOUR

# A source that raises whatever it is told to, beside one that is well.
PLUGIN = """
from pydantic import BaseModel
from poller import Endpoint, Limit, hookimpl
import httpx

class Source:
    class Options(BaseModel):
        url: str
    limits = (Limit(20, 1.0),)
    auth = None
    raises = None
    def __init__(self, name, options):
        self.options = options
    def endpoints(self):
        return [Endpoint(name="things", id="id")]
    def request(self, endpoint, at):
        return httpx.Request("GET", self.options.url + "/things")
    def page(self, endpoint, at, response):
        raise MemoryError("out of memory")
    def item_request(self, endpoint, object_id):
        return None
    def discover(self):
        return iter(())

@hookimpl
def register_sources(register):
    register("raising", Source)
"""
RAISING = """
[sources.raising]
plugin = "raising"
url = "{url}"
"""


class Troubles:
    """The daemon, its world, and what has been changed in it."""

    def __init__(self, daemon: Daemon, upstream: World) -> None:
        self.daemon = daemon
        self.upstream = upstream
        self.size = 0

    async def change(self) -> None:
        """Something changes, and is told."""
        self.begin_change()
        await until(f"event {self.size}", lambda: self.upstream.sizes(1)[-1:] == [self.size])

    def begin_change(self) -> None:
        self.size += 1
        self.upstream.edit(1, self.size)

    async def paused(self) -> None:
        await until("a pause", lambda: not self.daemon.app.is_polling)


async def test_everything_is_told_once_and_in_order_whatever_the_machine_does(tmp_path: Path) -> None:
    (tmp_path / "plugins.d").mkdir(mode=0o700)
    (tmp_path / "plugins.d" / "raising.py").write_text(PLUGIN)
    config, ahead = tmp_path / "poller.toml", [0.0]
    with small_disk(tmp_path / "disk") as disk:
        async with world() as upstream:
            state = disk.folder / "poller.db"
            text = CONFIG.format(url=upstream.url, state=state, listen="")
            text = text.replace("[budgets.api]", f'plugins_dir = "{tmp_path}/plugins.d"\n[budgets.api]')
            config.write_text(text)
            clock = SystemClock(wall=lambda: time.time() + ahead[0])
            async with living(config, clock=clock) as daemon:
                troubles = Troubles(daemon, upstream)
                watched = daemon.app.engine.sources["api"].endpoints["things"]
                await until("the baseline", lambda: watched.state.last_sweep is not None)
                await troubles.change()

                disk.fill()
                troubles.begin_change()
                await troubles.paused()
                troubles.begin_change()
                disk.free()
                await troubles.change()

                daemon.app.store.db.execute("PRAGMA busy_timeout = 100")
                other = sqlite3.connect(state, isolation_level=None)
                other.execute("BEGIN IMMEDIATE")
                troubles.begin_change()
                await troubles.paused()
                other.execute("ROLLBACK")
                other.close()
                await troubles.change()

                for jump in (-HOUR, 9 * YEAR, -9 * YEAR):
                    engine = daemon.app.engine
                    ahead[0] += jump
                    troubles.begin_change()
                    await until("the clock to be followed", lambda engine=engine: daemon.app.engine is not engine)
                    await troubles.change()

                config.write_text(text.replace('path = "/things"', 'path = "/things"\nignore = ["/a~b"]'))
                await daemon.reload()
                assert daemon.app.refused is not None
                await troubles.change()

                config.write_text(text + RAISING.format(url=upstream.url))
                await daemon.reload()
                assert daemon.app.refused is None
                failing = daemon.app.engine.sources["raising"].endpoints["things"]
                await until("a failure of the other source", failing.units.failing)
                for _ in range(3):
                    await troubles.change()
                await until("every delivery", lambda: len(upstream.received) == len(log_of(state)))
                assert daemon.app.write.outage is None
                await asyncio.sleep(1.0)  # nothing comes a second time
            assert_told_once_in_order(upstream, state)


def assert_told_once_in_order(upstream: World, state: Path) -> None:
    sizes, changes = upstream.sizes(1), upstream.edits[1]
    assert sizes == sorted(set(sizes))
    assert set(sizes) <= set(changes)
    assert sizes[-1] == changes[-1]
    ids = [event["id"] for event in upstream.received]
    assert len(ids) == len(set(ids))
    assert set(ids) == {event.id for event in log_of(state)}
    versions = [event["data"]["version"] for event in upstream.told if event["subject"] == "things/1"]
    assert versions == list(range(1, len(versions) + 1))
    kinds = [event["type"] for event in upstream.received if event["subject"] == "state"]
    assert kinds == ["poller.state.failing", "poller.state.recovered"] * 2
