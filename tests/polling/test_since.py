"""Queries of recent changes: by the server's clock, and honest about what they cannot show."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.polling.poll import poll
from poller.polling.unit_keys import SINCE
from tests.support.upstream import serving

HOUR = 3600.0


@dataclass
class Shop:
    """A list that can be asked for recent changes, on a machine with a clock of its own."""

    behind: float = 0.0  # seconds by which its clock is behind
    says_date: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list)
    since: list[float] = field(default_factory=list)  # asked for
    oldest: float = 0.0  # time that it knows changes of

    def now(self) -> float:
        return time.time() - self.behind

    def put(self, number: int, name: str, *, modified: float | None = None) -> None:
        at = self.now() if modified is None else modified
        self.rows = [row for row in self.rows if row["id"] != number]
        self.rows.append({"id": number, "name": name, "modified": datetime.fromtimestamp(at, UTC).isoformat()})

    async def things(self, request: Request) -> Response:
        rows = self.rows
        if (since := request.query_params.get("since")) is not None:
            self.since.append(float(since))
            if float(since) < self.oldest:
                return JSONResponse({"error": "since is too long ago"}, 400)
            rows = [row for row in rows if datetime.fromisoformat(row["modified"]).timestamp() >= float(since)]
        return JSONResponse(rows, headers={"date": formatdate(self.now(), usegmt=True)} if self.says_date else {})


@asynccontextmanager
async def opened(folder: Path, shop: Shop) -> AsyncIterator[App]:
    async with serving(Starlette(routes=[Route("/things", shop.things)])) as url:
        (folder / "poller.toml").write_text(f"""
[budgets.api]
limits = ["1000/s"]
[sources.api]
plugin = "rest"
base_url = "{url}"
budget = "api"
[sources.api.endpoints.things]
path = "/things"
updated_since = {{ param = "since", field = "modified", format = "epoch", overlap = "1m" }}
""")
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
            yield app


async def query(app: App) -> None:
    """Ask once for recent changes."""
    source = app.engine.sources["api"]
    await poll(app.engine.polling, source, source.endpoints["things"], SINCE)


def note_of(app: App) -> str | None:
    return app.engine.sources["api"].endpoints["things"].oddities.notes.get("updated_since")


@pytest.mark.parametrize("behind", [0.0, HOUR, -HOUR])
async def test_changes_are_asked_for_by_the_servers_clock(tmp_path, behind):
    shop = Shop(behind=behind)
    shop.put(1, "a", modified=shop.now() - HOUR)
    async with opened(tmp_path, shop) as app:
        await sweep_once(app)
        await query(app)
        await query(app)

        assert len(shop.since) == 2
        assert all(since <= shop.now() - 60.0 for since in shop.since)
        assert behind < 0 or all(since >= shop.now() - 90.0 for since in shop.since)  # and not for everything


async def test_a_change_is_found_although_the_servers_clock_is_behind(tmp_path):
    shop = Shop(behind=HOUR)
    shop.put(1, "a", modified=shop.now() - HOUR)
    async with opened(tmp_path, shop) as app:
        await sweep_once(app)
        await query(app)
        shop.put(1, "b")
        await query(app)

        assert [event.type for event in app.store.log.read(limit=10)] == ["api.things.updated"]


async def test_a_server_that_does_not_say_its_time_has_the_same(tmp_path):
    shop = Shop(says_date=False)
    shop.put(1, "a", modified=shop.now() - HOUR)
    async with opened(tmp_path, shop) as app:
        await sweep_once(app)
        await query(app)

        assert shop.now() - 90.0 <= shop.since[0] <= shop.now() - 60.0


async def test_the_servers_clock_is_known_after_a_restart(tmp_path):
    shop = Shop(behind=HOUR)
    shop.put(1, "a", modified=shop.now() - HOUR)
    for _ in range(2):
        async with opened(tmp_path, shop) as app:
            await sweep_once(app)
            await query(app)

    assert len(shop.since) == 2
    assert all(since <= shop.now() - 60.0 for since in shop.since)


async def test_a_change_that_no_query_will_show_is_told_and_noted(tmp_path):
    shop = Shop()
    shop.put(1, "a", modified=shop.now() - HOUR)
    async with opened(tmp_path, shop) as app:
        await sweep_once(app)
        await query(app)
        shop.put(1, "b", modified=shop.now() - HOUR / 2)
        await sweep_once(app)

        assert [event.type for event in app.store.log.read(limit=10)] == ["api.things.updated"]
        note = note_of(app)
        assert note is not None
        assert "1 change found by a complete sweep only (1)" in note
        await sweep_once(app)
        assert note_of(app) is None


async def test_a_change_that_a_query_could_have_shown_is_not_noted(tmp_path):
    shop = Shop()
    shop.put(1, "a", modified=shop.now() - HOUR)
    async with opened(tmp_path, shop) as app:
        await sweep_once(app)
        await query(app)
        shop.put(1, "b")
        shop.put(2, "c")
        await sweep_once(app)

        assert len(app.store.log.read(limit=10)) == 2
        assert note_of(app) is None


async def test_a_query_that_reaches_too_far_back_begins_at_the_latest_sweep(tmp_path):
    shop = Shop(behind=HOUR)
    async with opened(tmp_path, shop) as app:
        assert await sweep_once(app) == []
        await query(app)
        shop.behind, shop.oldest = 0.0, time.time() - 600.0
        assert await sweep_once(app) == []
        for _ in range(3):
            await query(app)
        assert all(since < shop.oldest for since in shop.since)

        shop.put(7, "new")
        await query(app)

        assert shop.since[-1] >= shop.oldest
        assert app.engine.sources["api"].endpoints["things"].units[SINCE].failures == 0
