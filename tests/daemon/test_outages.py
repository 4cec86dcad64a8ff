"""While the state cannot be written nothing is polled; afterwards everything goes on, nothing is lost or told twice."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import structlog

from tests.support.disk import SmallDisk, small_disk
from tests.support.living import CONFIG, World, living, log_of, swept, until, world


def configured(folder: Path, world: World, *, state: Path, listen: str = "") -> Path:
    path = folder / "poller.toml"
    path.write_text(CONFIG.format(url=world.url, state=state, listen=listen))
    return path


def assert_told_once_in_order(world: World, state: Path) -> None:
    for number, sizes in world.edits.items():
        assert world.sizes(number) == sizes
    ids = [event["id"] for event in world.received]
    assert len(ids) == len(set(ids))
    assert {event.id for event in log_of(state)} == set(ids)


async def test_a_disk_that_is_full_for_a_while_loses_nothing_and_ends_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with world() as upstream:
            state = disk.folder / "poller.db"
            config = configured(tmp_path, upstream, state=state, listen="127.0.0.1:0")
            async with living(config) as daemon, httpx.AsyncClient(trust_env=False) as client:
                await until("the baseline", lambda: swept(daemon))
                upstream.edit(1, 1)
                await until("the first event", lambda: upstream.told)
                disk.fill()
                upstream.edit(2, 1)
                await until("the outage", lambda: daemon.app.write.outage)
                await until("the pause", lambda: not daemon.app.is_polling)
                asked = upstream.asked
                ready = await client.get(f"{daemon.url}/readyz")
                assert ready.status_code == 503
                assert "cannot be written" in ready.json()["detail"]
                assert not daemon.app.is_well
                status = (await client.get(f"{daemon.url}/api/v1/status")).json()
                assert "cannot be written" in status["state_error"]
                assert {one["state"] for one in status["endpoints"]} == {"uncertain"}
                assert "nothing is polled until it can be" in (await client.get(f"{daemon.url}/")).text
                await asyncio.sleep(2.0)  # several probes
                assert upstream.asked == asked  # no call is spent in vain
                upstream.edit(3, 1)
                disk.free()
                await until("both events", lambda: upstream.sizes(2) and upstream.sizes(3))
                await until(
                    "the end of it", lambda: [e for e in upstream.received if e["type"] == "poller.state.recovered"]
                )
                assert (await client.get(f"{daemon.url}/readyz")).status_code == 200
                upstream.edit(1, 2)
                await until("later events", lambda: len(upstream.sizes(1)) == 2)
            kinds = [event["type"] for event in upstream.received if event["source"] == "/poller"]
            assert kinds == ["poller.state.failing", "poller.state.recovered"]
            assert_told_once_in_order(upstream, state)


async def test_a_lock_of_another_program_is_waited_out(tmp_path: Path) -> None:
    async with world() as upstream:
        state = tmp_path / "poller.db"
        async with living(configured(tmp_path, upstream, state=state)) as daemon:
            await until("the baseline", lambda: swept(daemon))
            daemon.app.store.db.execute("PRAGMA busy_timeout = 100")
            other = sqlite3.connect(state, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            upstream.edit(1, 1)
            await until("the outage", lambda: daemon.app.write.outage)
            upstream.edit(1, 2)
            other.execute("ROLLBACK")
            other.close()
            await until("the event", lambda: upstream.sizes(1))
        assert upstream.sizes(1)[-1] == 2
        assert len(upstream.sizes(1)) <= 2


async def test_a_state_that_becomes_read_only_is_an_outage_until_it_can_be_written(tmp_path: Path) -> None:
    async with world() as upstream:
        state = tmp_path / "poller.db"
        async with living(configured(tmp_path, upstream, state=state)) as daemon:
            await until("the baseline", lambda: swept(daemon))
            daemon.app.store.db.execute("PRAGMA query_only = ON")
            upstream.edit(1, 1)
            await until("the pause", lambda: not daemon.app.is_polling)
            outage = daemon.app.write.outage
            assert "read" in str(outage)
            assert outage.hint == "make the file and its folder writable"
            daemon.app.store.db.execute("PRAGMA query_only = OFF")
            await until("the event", lambda: upstream.sizes(1))
            await until(
                "the end of it", lambda: [e for e in upstream.received if e["type"] == "poller.state.recovered"]
            )
        assert_told_once_in_order(upstream, state)


async def test_a_state_that_was_moved_away_is_an_outage_until_it_is_back(tmp_path: Path) -> None:
    async with world() as upstream:
        state, elsewhere = tmp_path / "poller.db", tmp_path / "elsewhere.db"
        async with living(configured(tmp_path, upstream, state=state)) as daemon:
            await until("the baseline", lambda: swept(daemon))
            state.rename(elsewhere)
            upstream.edit(1, 1)
            await until("the outage", lambda: daemon.app.write.outage)
            await until("the pause", lambda: not daemon.app.is_polling)
            assert str(daemon.app.write.outage) == (
                f"the state cannot be written: {state} was deleted or moved while it is in use"
            )
            assert not state.exists()
            elsewhere.rename(state)
            await until("the event", lambda: upstream.sizes(1))
            await until(
                "the end of it", lambda: [e for e in upstream.received if e["type"] == "poller.state.recovered"]
            )
        assert_told_once_in_order(upstream, state)


class Filling(list[dict[str, Any]]):
    """What a receiver has, whose answers find the disk full."""

    def __init__(self, disk: SmallDisk) -> None:
        self._disk = disk

    def append(self, event: dict[str, Any]) -> None:
        self._disk.fill()
        super().append(event)


async def test_a_stop_during_an_outage_ends_in_seconds_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, structlog.testing.capture_logs() as rows:
        async with world() as upstream:
            state = disk.folder / "poller.db"
            config = configured(tmp_path, upstream, state=state)
            async with living(config) as daemon:
                await until("the baseline", lambda: swept(daemon))
                upstream.received = Filling(disk)
                upstream.edit(1, 1)
                await until("the pause", lambda: not daemon.app.is_polling)
                upstream.edit(2, 1)
                began = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - began < 10.0
            assert [row["event"] for row in rows].count("delivery.not_recorded") == 1
            disk.free()
            (unrecorded,), upstream.received = upstream.received, []
            async with living(config) as daemon:
                await until("both events", lambda: upstream.sizes(1) and upstream.sizes(2))
            assert unrecorded["id"] in [event["id"] for event in upstream.received]
            assert_told_once_in_order(upstream, state)


async def test_an_outage_and_its_end_are_a_sentence_of_the_log_each(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as rows:
        async with world() as upstream:
            state = tmp_path / "poller.db"
            async with living(configured(tmp_path, upstream, state=state)) as daemon:
                await until("the baseline", lambda: swept(daemon))
                await daemon.app.write(limit_pages, daemon)
                for number in upstream.things:
                    upstream.things[number] = {"id": number, "size": "x" * 100_000}
                await until("the pause", lambda: not daemon.app.is_polling)
                await asyncio.sleep(2.0)
                daemon.app.store.db.execute(f"PRAGMA max_page_count = {2**30}")
                await until("the events", lambda: len(upstream.told) == len(upstream.things))
    (failing,) = (row for row in rows if row["log_level"] in ("error", "warning"))
    (recovered,) = (row for row in rows if row["event"] == "state.recovered")
    assert failing["event"] == "state.failing"
    assert failing["summary"].startswith("Nothing is polled or delivered for now: the state cannot be written: ")
    assert re.fullmatch(r"The state can be written again, and polling continues after \d+ s\.", recovered["summary"])


def limit_pages(daemon: object) -> None:
    db = daemon.app.store.db  # type: ignore[attr-defined]
    (used,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {used + 20}")
