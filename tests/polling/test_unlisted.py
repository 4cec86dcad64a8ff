"""What left its list and answers under its own URL, on a real server: read, counted, told as the endpoint says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import poller.polling.deletions
from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations.gathering import read_status
from poller.operations.status import EndpointStatus
from state.records import Event
from tests.support.upstream import serving

CONFIG = """
[budgets.api]
limits = ["1000/s"]
[sources.api]
plugin = "rest"
base_url = "{url}"
budget = "api"
[sources.api.endpoints.issues]
path = "/issues"
params = {{ state = "open" }}
item_path = "{item}"
absent_for = "0s"
{table}
"""


@dataclass
class Issues:
    """A tracker that lists what is open."""

    all: dict[int, dict[str, Any]] = field(
        default_factory=lambda: {n: {"id": n, "state": "open", "title": f"issue {n}"} for n in range(1, 6)}
    )
    hidden: set[int] = field(default_factory=set)  # not listed, whatever their state is
    own: Response | None = None  # what every own URL answers instead

    async def list(self, _: Request) -> Response:
        return JSONResponse([one for n, one in self.all.items() if one["state"] == "open" and n not in self.hidden])

    async def issue(self, request: Request) -> Response:
        found = self.all.get(request.path_params["number"])
        if self.own is not None:
            return self.own
        if found is None:
            return JSONResponse({"message": "not found"}, 404)
        return JSONResponse({"issue": {**found, "comments": [], "url": str(request.url)}})


@asynccontextmanager
async def tracker(issues: Issues) -> AsyncIterator[str]:
    routes = [Route("/issues", issues.list), Route("/issues/{number:int}", issues.issue)]
    async with serving(Starlette(routes=routes)) as url:
        yield url


@asynccontextmanager
async def watching(folder: Path, url: str, table: str = "", item: str = "/issues/{id}") -> AsyncIterator[App]:
    """The program after a sweep."""
    (folder / "poller.toml").write_text(CONFIG.format(url=url, table=table, item=item))
    plugins = load_plugins(lazily=True)
    async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
        assert await sweep_once(app) == []
        yield app


@asynccontextmanager
async def opened(folder: Path, issues: Issues, table: str = "") -> AsyncIterator[App]:
    async with tracker(issues) as url, watching(folder, url, table) as app:
        yield app


async def sweeps(app: App, number: int = 8) -> None:
    for _ in range(number):
        assert await sweep_once(app) == []


def told(app: App) -> list[Event]:
    return [event for event in app.store.log.read(limit=1000) if event.source != "/poller"]


def kinds(app: App) -> list[str]:
    return [f"{event.type.rpartition('.')[2]} {event.subject}" for event in told(app)]


def shown(app: App) -> EndpointStatus:
    return read_status(app.config, now=app.clock.now()).endpoints[0]


async def test_what_left_a_filtered_list_is_kept_and_counted_and_said_once(tmp_path):
    issues = Issues()
    async with opened(tmp_path, issues) as app:
        issues.all[2]["state"] = issues.all[4]["state"] = "closed"
        await sweeps(app)

        assert kinds(app) == []
        assert (shown(app).unlisted, shown(app).objects, shown(app).state) == (2, 5, "ok")
        notices = [event for event in app.store.log.read(limit=100) if event.type == "poller.endpoint.unlisted"]
        assert ["no longer in the list of api/issues" in event.data["summary"] for event in notices] == [True]

        issues.all[2]["state"] = "open"
        del issues.all[4]
        await sweeps(app, 40)
        assert kinds(app) == ["deleted issues/4"]
        assert shown(app).unlisted == 0


async def test_an_answer_of_its_own_url_is_an_update_where_the_endpoint_says_so(tmp_path):
    issues = Issues()
    async with opened(tmp_path, issues, 'unlisted = "updated"') as app:
        issues.all[2]["state"] = "closed"
        await sweeps(app)

        (event,) = told(app)
        assert kinds(app) == ["updated issues/2"]
        assert event.data["changes"] == [{"path": "/state", "before": "open", "after": "closed"}]
        assert event.data["object"] == {"id": 2, "state": "closed", "title": "issue 2"}
        assert shown(app).unlisted == 1

        issues.all[2]["state"] = "open"
        await sweeps(app, 3)
        assert kinds(app) == ["updated issues/2"] * 2
        assert [event.data["version"] for event in told(app)] == [1, 2]
        assert shown(app).unlisted == 0


async def test_an_own_url_that_says_otherwise_that_its_object_is_gone_is_named_with_a_way_out(tmp_path):
    issues = Issues(own=JSONResponse({"error": "Object Not Found"}, 400))
    async with opened(tmp_path, issues) as app:
        del issues.all[3]
        for _ in range(3):
            await sweep_once(app)

        (found,) = app.engine.sources["api"].health.snapshot().endpoints
        assert "400 Bad Request" in found.reason
        assert "remove item_path" in found.reason


async def test_what_is_back_in_the_list_as_its_own_url_showed_it_is_no_second_change(tmp_path):
    issues = Issues()
    async with opened(tmp_path, issues, 'unlisted = "updated"') as app:
        for title in ("a", "b"):
            issues.hidden = {2}
            issues.all[2]["title"] = title
            await sweeps(app, 3)
            issues.hidden = set()
            await sweeps(app, 3)

        assert kinds(app) == ["updated issues/2"] * 2


async def test_what_is_no_longer_listed_is_deleted_where_the_endpoint_says_so(tmp_path):
    issues = Issues()
    async with opened(tmp_path, issues, 'unlisted = "deleted"') as app:
        issues.all[2]["state"] = "closed"
        await sweeps(app, 2)
        assert kinds(app) == []  # one look may be mistaken

        await sweeps(app, 3)
        assert kinds(app) == ["deleted issues/2"]
        issues.all[2]["state"] = "open"
        await sweeps(app, 3)
        assert kinds(app) == ["deleted issues/2", "created issues/2"]


async def test_what_its_own_url_shows_in_the_trash_is_deleted_at_once(tmp_path):
    issues = Issues()
    async with opened(tmp_path, issues, "deleted_when = \"object.state == 'trash'\"") as app:
        issues.all[2]["state"] = "trash"
        issues.all[3]["state"] = "closed"
        await sweeps(app)

        assert kinds(app) == ["deleted issues/2"]
        assert told(app)[0].data["object"] == {"id": 2, "state": "trash", "title": "issue 2"}
        issues.all[2]["state"] = "open"
        await sweeps(app)
        assert kinds(app) == ["deleted issues/2", "created issues/2"]


UNDECIDED = {
    "202": JSONResponse({"id": 2}, 202),
    "204": Response(status_code=204),
    "HTML": HTMLResponse("<html>Log in</html>"),
    "another object": JSONResponse({"id": 7}),
    "an error": JSONResponse({"error": "not found"}),
    "403": JSONResponse({"error": "you may not see it"}, 403),
}


@pytest.mark.parametrize("answer", UNDECIDED.values(), ids=UNDECIDED.keys())
@pytest.mark.parametrize("unlisted", ["keep", "updated", "deleted"])
async def test_an_answer_without_the_object_neither_confirms_nor_denies_its_deletion(tmp_path, answer, unlisted):
    issues = Issues()
    async with opened(tmp_path, issues, f'unlisted = "{unlisted}"') as app:
        del issues.all[2]
        issues.own = answer
        await sweeps(app)

        assert kinds(app) == []
        assert shown(app).unlisted == 0
        assert shown(app).state == "uncertain"
        assert f"2: its own URL answers {answer.status_code} without the object" in (shown(app).reason or "")

        issues.own = None
        await sweeps(app, 20)
        assert kinds(app) == ["deleted issues/2"]
        assert shown(app).state == "ok"


async def test_an_own_url_that_does_not_show_its_object_is_known_after_a_restart_until_the_list_shows_it_again(
    tmp_path,
):
    issues = Issues()
    async with tracker(issues) as url:
        async with watching(tmp_path, url) as app:
            issues.hidden, issues.own = {2}, Response(status_code=204)
            await sweeps(app, 2)
        async with watching(tmp_path, url) as app:
            assert "2: its own URL answers 204 without the object" in (shown(app).reason or "")
            issues.hidden = set()
            await sweeps(app, 1)
            assert shown(app).state == "ok"


async def test_an_own_url_that_denies_what_is_listed_confirms_nothing_until_it_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(poller.polling.deletions, "AGAIN", 0.01)
    issues = Issues()
    async with tracker(issues) as url:
        async with watching(tmp_path, url, item="/tickets/{id}") as app:
            issues.hidden = {2}
            await sweeps(app, 2)
            issues.hidden = set()
            await sweeps(app, 4)
            assert kinds(app) == []
            assert shown(app).state == "uncertain"
            assert f"1 is in the list, but {url}/tickets/1 says that it is gone" in (shown(app).reason or "")
            del issues.all[4]
            await sweeps(app, 5)
            assert kinds(app) == ["deleted issues/4"]  # complete sweeps confirm it
            said = [event for event in app.store.log.read(limit=100) if event.type == "poller.endpoint.uncertain"]
            assert len(said) == 1
        async with watching(tmp_path, url, item="/tickets/{id}") as app:
            assert shown(app).state == "uncertain"  # also after a restart
        async with watching(tmp_path, url) as app:
            del issues.all[1]
            await sweeps(app, 2)
            assert shown(app).state == "ok"
            assert kinds(app)[1:] == ["deleted issues/1"]


async def test_what_was_really_made_anew_under_the_same_id_says_nothing_against_its_own_url(tmp_path):
    issues = Issues()
    async with opened(tmp_path, issues) as app:
        again = issues.all.pop(2)
        await sweeps(app, 2)
        issues.all[2] = again
        await sweeps(app, 2)

        assert kinds(app) == ["deleted issues/2", "created issues/2"]
        assert shown(app).state == "ok"
