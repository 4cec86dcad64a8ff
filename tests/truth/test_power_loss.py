"""The power goes at every sync of a recorded run, and in between: the state opens, and what was told before is there.

`make prove-power` does the same to a longer run of the daemon itself, with its threads.
"""

import logging
import random
from collections.abc import Iterator

import pytest
import structlog

from tests.proofs.power.disk import Create, Delete, Disk, Sync, Truncate, Write
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
