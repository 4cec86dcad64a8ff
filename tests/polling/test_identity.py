"""Whose an object is: ids within a parent, and ids that do not tell objects apart, on a real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.polling.poll import poll
from tests.support.upstream import serving
from tests.truth.run import prove
from tests.truth.world import Step, World

ZONES = """
[sources.dns.endpoints.zones]
path = "/zones"
absent_for = "0s"
[sources.dns.endpoints.records]
parent = "zones"
path = "/zones/{parent.id}/records"
id = "type"
absent_for = "0s"
"""
THINGS = """
[sources.dns.endpoints.things]
path = "/things"
absent_for = "0s"
pagination = { type = "page", size_param = "size", size = 10 }
"""


@asynccontextmanager
async def opened(folder: Path, table: str, lists: dict[str, Any]) -> AsyncIterator[App]:
    async def answer(request: Request) -> Response:
        found = lists.get(request.url.path)
        if found is None:
            return JSONResponse({}, 404)
        if size := int(request.query_params.get("size", 0)):
            begin = (int(request.query_params["page"]) - 1) * size
            found = found[begin : begin + size]
        return JSONResponse(found)

    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as url:
        text = (
            f'[budgets.dns]\nlimits = ["1000/s"]\n[sources.dns]\nplugin = "rest"\nbase_url = "{url}"\nbudget = "dns"\n'
        )
        (folder / "poller.toml").write_text(text + table)
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
            yield app


def told(app: App) -> list[tuple[str, str]]:
    events = app.store.log.read(limit=1000)
    return [(one.type.rpartition(".")[2], one.subject) for one in events if not one.type.startswith("poller.")]


def records(*values: str) -> list[dict[str, str]]:
    return [{"type": kind, "value": value} for kind, value in zip(("NS", "SOA", "A"), values, strict=True)]


async def test_the_same_id_under_three_parents_is_three_objects(tmp_path):
    lists = {"/zones": [{"id": n} for n in ("a", "b/c", "d%2F")]}
    lists |= {f"/zones/{n}/records": records(n, n, n) for n in ("a", "b/c", "d%2F")}
    async with opened(tmp_path, ZONES, lists) as app:
        for _ in range(3):
            assert await sweep_once(app) == []
        assert app.engine.sources["dns"].endpoints["records"].state.objects == 9
        assert told(app) == []

        lists["/zones/b/c/records"] = records("b/c", "b/c", "192.0.2.1")
        assert await sweep_once(app) == []
        assert told(app) == [("updated", "records/b%2Fc/A")]


async def test_a_parent_that_goes_takes_its_own_objects_along_and_no_others(tmp_path):
    lists = {"/zones": [{"id": "a"}, {"id": "b"}]}
    lists |= {f"/zones/{n}/records": records(n, n, n) for n in ("a", "b")}
    async with opened(tmp_path, ZONES, lists) as app:
        assert await sweep_once(app) == []
        del lists["/zones"][1]
        for _ in range(6):
            assert await sweep_once(app) == []

        assert sorted(told(app)) == [
            ("deleted", "records/b/A"),
            ("deleted", "records/b/NS"),
            ("deleted", "records/b/SOA"),
            ("deleted", "zones/b"),
        ]


async def poll_page(app: App, number: int) -> None:
    source = app.engine.sources["dns"]
    await poll(app.engine.polling, source, source.endpoints["things"], f"page={number}")


def numbered(count: int) -> list[dict[str, Any]]:
    """Three projects' things, numbered in each from 1: the number is no id."""
    return [{"id": n, "project": project} for project in "abc" for n in range(1, count + 1)]


async def test_an_id_that_names_other_objects_on_another_page_is_never_reported_as_edits(tmp_path):
    async with opened(tmp_path, THINGS, {"/things": numbered(10)}) as app:
        stuck = []
        for _ in range(6):
            stuck = await sweep_once(app)

        assert told(app) == []
        assert "ids that name different objects on two pages" in stuck[0]
        assert "`id` must tell them apart" in stuck[0]


async def test_a_clash_that_begins_later_is_named_and_what_is_not_in_it_goes_on(tmp_path):
    lists = {"/things": [{"id": n, "project": "a"} for n in range(1, 31)]}
    async with opened(tmp_path, THINGS, lists) as app:
        assert await sweep_once(app) == []
        lists["/things"][25] = {"id": 3, "project": "b"}  # the 26th is gone, and another object has the id of the third
        lists["/things"][11] = {"id": 12, "project": "edited"}
        for _ in range(5):
            await sweep_once(app)

        # Before its own page was asked again, the third object may have moved: that looks like an edit, once.
        assert told(app).count(("updated", "things/3")) <= 1
        assert [one for one in told(app) if one[1] != "things/3"] == [("updated", "things/12")]
        notes = app.engine.sources["dns"].endpoints["things"].state.uncertain
        assert notes is not None
        assert b"ids that name different objects" in notes


async def test_where_ids_have_clashed_what_moved_and_was_edited_waits_for_its_old_page(tmp_path):
    lists = {"/things": [{"id": n, "project": "a"} for n in range(1, 31)]}
    async with opened(tmp_path, THINGS, lists) as app:
        assert await sweep_once(app) == []
        lists["/things"][25] = {"id": 3, "project": "b"}
        for _ in range(3):
            await sweep_once(app)
        before = told(app)

        lists["/things"][26] = {"id": 4, "project": "b"}  # a second id begins to name two objects
        lists["/things"].insert(28, {**lists["/things"].pop(11), "project": "edited"})  # and one has really moved
        await poll_page(app, 3)  # before the pages that showed both
        assert told(app) == before
        for _ in range(4):
            await sweep_once(app)
        assert [one for one in told(app) if one not in before] == [("updated", "things/12")]


async def test_an_object_that_moved_and_was_edited_between_two_polls_is_reported_once(tmp_path):
    lists = {"/things": [{"id": n, "name": "a"} for n in range(1, 31)]}
    async with opened(tmp_path, THINGS, lists) as app:
        assert await sweep_once(app) == []
        moved = lists["/things"].pop(2)
        lists["/things"].insert(25, {**moved, "name": "edited"})
        for _ in range(5):
            await sweep_once(app)

        assert told(app) == [("updated", "things/3")]


MOVES = st.builds(
    Step,
    act=st.sampled_from(("reorder", "swap", "edit", "edit")),
    pick=st.integers(0, 7),
    wait=st.sampled_from((0.0, 0.0, 0.3, 2.0, 10.0)),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(("page", "page-total", "page-open", "offset", "link")),
    st.booleans(),
    st.integers(0, 100),
    st.lists(MOVES, max_size=25),
)
def test_whatever_moves_to_another_page_and_is_edited_is_reported_in_the_end(style, has_items, seed, moves):
    prove(World(style=style, size=2, objects=6, has_items=has_items, seed=seed), moves)
