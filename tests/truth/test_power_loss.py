"""The power goes at every sync of a recorded run, and in between: the state opens, and what was told before is there.

`make prove-power` does the same to a longer run of the daemon itself, with its threads.
"""

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from poller.clock import VirtualClock
from poller.testing import Poller
from state.open import Inline
from tests.proofs.power import judge
from tests.proofs.power.disk import Create, Delete, Disk, Sync, Truncate, Write
from tests.proofs.power.run import Api, Recording, opened, plugins_with
from tests.truth.power_loss import losses, recording


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.slow
async def test_nothing_that_was_told_is_lost_when_the_power_goes(tmp_path):
    found = await losses(await recording(tmp_path), tmp_path)
    assert found.faults == []
    assert found.is_complete
    assert found.syncs > 50
    assert found.gone_on >= 2


@pytest.mark.parametrize(("resumed", "found"), [(judge.SUBSCRIPTIONS, 0), (("paused",), 1)])
async def test_what_still_waits_after_the_power_came_back_is_found_unless_it_was_only_disabled(
    tmp_path, monkeypatch, resumed, found
):
    monkeypatch.setattr(judge, "SUBSCRIPTIONS", resumed)
    run = await disabled_by_retention(tmp_path / "run")
    image = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    faults = await judge.Bench(tmp_path / "bench", run).faults(image, judge.Promises(), goes_on=True)
    assert [fault.split(" (")[0] for fault in faults] == ["box is disabled"] * found


class Unlucky(random.Random):
    """Chance by which every attempt fails."""

    def random(self) -> float:
        """Less than is needed."""
        return 0.05


async def disabled_by_retention(folder: Path) -> Recording:
    """A run that ends after events were forgotten that no receiver had accepted."""
    folder.mkdir()
    api, clock = Api(1, lambda: None), VirtualClock()
    plugins = plugins_with(lambda _: None, Unlucky())
    async with opened(folder, plugins, api, clock=clock, runner=Inline()) as app:
        poller = Poller(app, clock)
        await poller.sweep()
        await app.deliverer.purge(app.store.log.last_seq(), before=clock.now())
        await poller.sweep()
    return Recording(entries=[], api=api, ended=clock.now())


def test_a_disk_keeps_what_was_synced_and_any_part_of_the_rest():
    disk = Disk()
    for one in (Create("a-wal"), Write("a-wal", 0, b"x" * 1024), Sync("a-wal"), Write("a-wal", 0, b"y" * 1024)):
        disk.do(one)
    assert disk.least() == {"a-wal": b"x" * 1024}
    assert disk.most() == {"a-wal": b"y" * 1024}
    chance = random.Random(1)
    images = {disk.some(chance)["a-wal"] for _ in range(200)}
    halves = {b"x" * 512, b"y" * 512}
    assert images == {one + other for one in halves for other in halves}


def test_a_disk_forgets_what_its_folder_was_not_synced_for():
    disk = Disk()
    for one in (Create("a"), Write("a", 0, b"xx"), Sync("a"), Create("b-wal"), Sync("b-wal"), Create("c")):
        disk.do(one)
    assert disk.least() == {"a": b"xx", "b-wal": b""}
    for one in (Truncate("a", 1), Delete("b-wal", is_synced=False)):
        disk.do(one)
    assert disk.least() == {"a": b"xx", "b-wal": b""}
    assert disk.most() == {"a": b"x", "c": b""}
