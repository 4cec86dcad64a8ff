"""What makes sweeps cheap does not depend on a clock: what is written, what is read, and what is never parsed."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import orjson
import pytest

from benchmarks.sweep import Sweeper, changed_once_a_page, pages_of
from poller.app import App, open_app
from poller.config.load import load
from poller.hooks.loading import load_plugins

CONFIG = """
[poller]
listen = ""
[sources.shop]
plugin = "rest"
base_url = "http://127.0.0.1:1"
[sources.shop.endpoints.items]
path = "/items"
items = "$.items"
pagination = { type = "page", param = "page", size_param = "per_page", size = 100 }
"""


class Statements:
    """What is executed on the state while it is watched."""

    def __init__(self, app: App) -> None:
        self._conn = app.store.db.conn
        self.seen: list[str] = []

    def __enter__(self) -> list[str]:
        assert isinstance(self._conn, sqlite3.Connection)
        self._conn.set_trace_callback(lambda sql: self.seen.append(" ".join(sql.split())))
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._conn.set_trace_callback(None)


@dataclass
class Work:
    """What was done while it was counted. No machine's speed changes it."""

    python: int = 0  # instructions of the interpreter, in this thread
    sqlite: int = 0  # instructions of SQLite's machine


@contextmanager
def counted_work(app: App) -> Iterator[Work]:
    """Count every instruction of the event loop's thread, and of the state."""
    work, conn = Work(), app.store.db.conn
    assert isinstance(conn, sqlite3.Connection)

    def executed(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        work.python += event == "opcode"
        return executed

    def stepped() -> int:
        work.sqlite += 1
        return 0

    conn.set_progress_handler(stepped, 1)
    before = sys.gettrace()
    sys.settrace(executed)
    try:
        yield work
    finally:
        sys.settrace(before)
        conn.set_progress_handler(None, 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "poller.toml"
    path.write_text(CONFIG)
    return path


async def swept(app: App, pages: list[bytes], *, known: int) -> list[str]:
    """The statements of a sweep of these pages, of an endpoint that has that many objects."""
    sweeper = Sweeper(app)
    await sweeper.cost(pages_of(known))
    with Statements(app) as seen:
        await sweeper.cost(pages)
    return seen


async def test_an_unchanged_sweep_is_one_commit_and_one_row_a_page(config: Path) -> None:
    plugins = load_plugins()
    async with open_app(load(config, plugins), plugins) as app:
        seen = await swept(app, pages_of(1000), known=1000)

    assert seen.count("COMMIT") == 1
    assert sum(sql.startswith("UPDATE units") for sql in seen) == 11  # ten pages and the empty one behind them
    assert not any("objects" in sql and "INSERT" in sql for sql in seen)
    assert not any("members" in sql and sql.startswith("SELECT") for sql in seen)


async def test_a_first_sweep_looks_no_object_up(config: Path) -> None:
    plugins = load_plugins()
    async with open_app(load(config, plugins), plugins) as app:
        with Statements(app) as seen:
            await Sweeper(app).cost(pages_of(1000))
        rows = app.store.db.execute("SELECT count(*), max(version), count(unit) FROM objects").fetchone()

    assert rows == (1000, 0, 1000)
    assert not [sql for sql in seen if "objects o" in sql]
    assert sum(sql.startswith("INSERT INTO objects") for sql in seen) == 2 * 10  # fifty at once


async def test_an_object_on_two_pages_of_a_first_sweep_is_one_object(config: Path) -> None:
    plugins = load_plugins()
    pages = pages_of(1000)
    twice = orjson.loads(pages[3])["items"][7]
    for page in (5, 8):
        shown = orjson.loads(pages[page])["items"]
        pages[page] = orjson.dumps({"items": [twice, *shown[1:]]})
    async with open_app(load(config, plugins), plugins) as app:
        await Sweeper(app).cost(pages)
        w = app.engine.sources["shop"].endpoints["items"]
        assert counted(app) == w.state.objects == 1000 - 2
        assert w.turn.looks_up
        assert await app.write(app.store.log.last_seq) == 0


def counted(app: App) -> int:
    """How many objects are there."""
    return int(app.store.db.execute("SELECT count(*) FROM objects WHERE presence < 2").fetchone()[0])


@pytest.mark.parametrize("known", [300, 3000])
async def test_a_changed_page_costs_the_same_however_many_objects_are_known(config: Path, known: int) -> None:
    plugins = load_plugins()
    async with open_app(load(config, plugins), plugins) as app:
        seen = await swept(app, changed_once_a_page(known, 1)[:2], known=known)

    assert sum("INSERT INTO objects" in sql for sql in seen) == 2
    assert sum("INSERT INTO events" in sql for sql in seen) == 2
    assert len(seen) <= 2 * 12


async def test_what_a_poll_reads_is_found_by_an_index(config: Path) -> None:
    plugins = load_plugins()
    async with open_app(load(config, plugins), plugins) as app:
        seen = await swept(app, changed_once_a_page(300, 1), known=300)
        plans = [
            (sql, row[3])
            for sql in seen
            if sql.startswith(("SELECT", "UPDATE"))
            for row in app.store.db.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]

    assert plans
    scans = [(sql, plan) for sql, plan in plans if plan.startswith("SCAN")]
    assert {plan for _, plan in scans} == {"SCAN asked VIRTUAL TABLE INDEX 1:"}  # of the ids that are asked for


PAGES = 'type = "page", param = "page", size_param = "per_page"'
OFFSETS = 'type = "offset"'


@pytest.mark.parametrize(("pagination", "step"), [(PAGES, 1), (OFFSETS, 100)], ids=["pages", "offsets"])
async def test_recording_a_page_takes_the_same_work_however_many_pages_are_known(
    config: Path, pagination: str, step: int
) -> None:
    async def works(known: int) -> list[Work]:
        config.write_text(CONFIG.replace(PAGES, pagination))
        config.with_name("poller.db").unlink(missing_ok=True)
        plugins, pages = load_plugins(), pages_of(known)
        middle, start = len(pages) // 2, int(step == 1)
        keys = [f"{'page' if step == 1 else 'offset'}={start + number * step}" for number in range(len(pages))]
        objects = orjson.loads(pages[middle])["items"]
        edited = [{**objects[0], "name": "another"}, *objects[1:]]
        found: list[Work] = []
        async with open_app(load(config, plugins), plugins) as app:
            sweeper = Sweeper(app)
            for key, page in zip(keys, pages, strict=True):
                await sweeper.poll_unit(key, answer(page))
            for shown in (edited, edited[1:], objects):  # one is changed, one is missing, and it is back
                with counted_work(app) as work:
                    await sweeper.poll_unit(keys[middle], answer(orjson.dumps({"items": shown})))
                found.append(work)
            assert await app.write(app.store.log.last_seq) == 2
        return found

    for few, many in zip(await works(300), await works(10_000), strict=True):
        assert many.python < 1.3 * few.python
        assert many.sqlite < 1.3 * few.sqlite


def answer(page: bytes) -> httpx.Response:
    return httpx.Response(200, content=page, request=httpx.Request("GET", "http://127.0.0.1:1/items"))
