"""Answers that come from caches and say how old they are (`Age`): what they show was so then, and not now."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from poller.app import App, open_app, sweep_once
from poller.clock import VirtualClock
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.polling.independent_sweeps import IndependentSweeps
from state.records import Event
from tests.support.upstream import serving

PAGES = 'absent_for = "1m"\npagination = { type = "page", size = 2, size_param = "n" }'

Row = dict[str, Any]


@asynccontextmanager
async def opened(
    folder: Path, table: str, answer: Callable[[Request], Response], clock: VirtualClock
) -> AsyncIterator[App]:
    async def things(request: Request) -> Response:
        return answer(request)

    async with serving(Starlette(routes=[Route("/things", things)])) as url:
        source = f'[sources.api]\nplugin = "rest"\nbase_url = "{url}"\nbudget = "api"\n'
        text = (
            f'[budgets.api]\nlimits = ["1000/s"]\n{source}[sources.api.endpoints.things]\npath = "/things"\n{table}\n'
        )
        (folder / "poller.toml").write_text(text)
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins, clock=clock) as app:
            yield app


def told(app: App) -> list[Event]:
    return [event for event in app.store.log.read(limit=100) if event.source != "/poller"]


async def test_a_copy_that_is_older_than_what_is_known_undoes_nothing(tmp_path):
    clock, answers = VirtualClock(), list[tuple[Row, int]]()

    def answer(_: Request) -> Response:
        row, age = answers.pop(0)
        return JSONResponse([row], headers={"age": str(age)})

    old, new = {"id": 1, "v": 1}, {"id": 1, "v": 2}
    async with opened(tmp_path, "", answer, clock) as app:
        for one in [(old, 0), (new, 0), (old, 300), (new, 0), (old, 300), (new, 40), (old, 5)]:
            answers.append(one)
            await sweep_once(app)
            clock.advance(60.0)

        assert [event.data["object"]["v"] for event in told(app)] == [2, 1]  # the last answer is younger


@pytest.mark.parametrize("age", [0, 50])
async def test_a_change_happened_after_the_copy_was_made_that_did_not_show_it(tmp_path, age):
    clock, row = VirtualClock(), {"id": 1, "v": 1}
    async with opened(tmp_path, "", lambda _: JSONResponse([row], headers={"age": str(age)}), clock) as app:
        await sweep_once(app)
        asked = clock.now()
        clock.advance(60.0)
        row["v"] = 2
        await sweep_once(app)
        (event,) = told(app)

        assert event.observed_after == pytest.approx(asked - age, abs=1.5)
        assert event.observed_after <= asked - age


async def test_copies_that_were_made_before_an_object_moved_do_not_confirm_its_deletion(tmp_path):
    clock, moved_at = VirtualClock(), list[float]()

    def answer(request: Request) -> Response:
        page, ids, headers = int(request.query_params["page"]), [1, 2, 3, 4], {}
        if moved_at and page == 1:  # a new object has moved the others on
            ids = [9, 1]
        elif moved_at and page == 2 and (age := clock.now() - moved_at[0] + 30) <= 300:
            headers = {"age": str(int(age))}
        elif moved_at:
            ids = [9, 1, 2, 3, 4]
        return JSONResponse([{"id": n} for n in ids[(page - 1) * 2 : page * 2]], headers=headers)

    async with opened(tmp_path, PAGES, answer, clock) as app:
        await sweep_once(app)
        moved_at.append(clock.now())
        for _ in range(12):
            await sweep_once(app)
            clock.advance(30.0)

        assert [event.type for event in told(app)] == ["api.things.created"]
        assert app.engine.sources["api"].endpoints["things"].state.objects == 5


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_sweep_shows_what_was_when_its_oldest_copy_was_made_also_after_a_restart(tmp_path, is_restarted):
    clock, ids, headers = VirtualClock(), [1, 2, 3], {"age": "0"}  # up to a second old

    def answer(request: Request) -> Response:
        page = int(request.query_params["page"])
        return JSONResponse([{"id": n} for n in ids[(page - 1) * 2 : page * 2]], headers=headers)

    async def created() -> Event:
        ids.append(4)
        headers.clear()  # this answer comes from the server itself
        await sweep_once(app)
        (event,) = told(app)
        return event

    async with opened(tmp_path, PAGES, answer, clock) as app:
        for _ in range(3):
            await sweep_once(app)
        event = None if is_restarted else await created()
    async with opened(tmp_path, PAGES, answer, clock) as app:
        event = event or await created()

    assert event.observed_after is not None
    assert event.observed_after <= clock.now() - 1.0


def test_two_sweeps_count_as_two_if_they_share_no_copy():
    sweeps = IndependentSweeps()
    sweeps.add("items", began=0.0, ended=10.0)
    sweeps.add("items", began=10.0, ended=20.0)
    assert sweeps.are_two_since("items", 15.0)  # nothing says that there are caches

    sweeps.add("items", began=12.0, ended=30.0)
    assert [sweeps.are_two_since("items", at) for at in (0.0, 0.1)] == [True, False]
    sweeps.add("items", began=25.0, ended=40.0)
    sweeps.add("items", began=39.0, ended=50.0)
    assert [sweeps.are_two_since("items", at) for at in (10.0, 10.1)] == [True, False]
    sweeps.add("items", began=41.0, ended=60.0)
    assert [sweeps.are_two_since("items", at) for at in (25.0, 25.1)] == [True, False]

    sweeps.add("items", began=1.0, ended=2.0)  # the clock was set back
    assert not sweeps.are_two_since("items", 0.0)
    sweeps.add("items", began=2.0, ended=3.0)
    assert sweeps.are_two_since("items", 1.0)
