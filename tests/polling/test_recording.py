"""What is known of objects stays in step with what units show, whatever they show next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.sweep import Sweeper, changed_once_a_page, each_page, pages_of
from poller.app import App, open_app
from poller.changes.comparison import RequestTimes
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.polling.endpoint import WatchedEndpoint
from tests.polling.test_sweep_cost import CONFIG


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    path = tmp_path / "poller.toml"
    path.write_text(CONFIG)
    plugins = load_plugins()
    async with open_app(load(path, plugins), plugins) as app:
        yield app


def watching(app: App) -> WatchedEndpoint:
    return app.engine.sources["shop"].endpoints["items"]


def counted(app: App) -> int:
    query = "SELECT count(*) FROM objects WHERE presence < 2"
    return int(app.store.db.execute(query).fetchone()[0])


async def test_the_number_of_objects_is_kept_without_counting_them(app: App) -> None:
    sweeper, w = Sweeper(app), watching(app)
    for objects in (250, 250, 140, 300):
        await sweeper.cost(pages_of(objects))
        assert w.state.objects == counted(app) == app.store.poll_reader.endpoints()[0]["objects"]

    await app.engine.interventions.rebaseline(app.engine.sources["shop"], w)
    assert w.state.objects == app.store.polls.reopen(w.state.id).state.objects == 300


async def test_pages_that_are_no_more_leave_what_they_showed_as_suspects(app: App) -> None:
    sweeper, w = Sweeper(app), watching(app)
    await sweeper.cost(pages_of(250))
    await sweeper.cost([*pages_of(150), b'{"items":[]}'])  # the page that is no more is asked before it is believed

    suspects = app.store.polls.suspects(w.state.id)
    assert {int(one.snapshot.object_id) - 200_000 for one in suspects} == set(range(150, 250))


async def test_an_object_that_could_not_be_judged_is_missed_once_it_is_gone(app: App) -> None:
    sweeper, w = Sweeper(app), watching(app)
    await sweeper.cost([*pages_of(47), b'{"items":[]}'])
    with w.requests.asking("one"), w.requests.asking("another"):
        later = RequestTimes(at=0.0, answered_at=0.0, answered_order=w.requests.latest + 60)
        w.requests.remember(["200001"], later)  # by an answer that was under way at the same time
        await sweeper.cost(changed_once_a_page(47, 1))
    assert app.store.log.last_seq() == 0
    w.requests.changed.clear()

    without = next(each_page(47, {})).replace(b'{"id":200001,', b'{"id":200099,')
    await sweeper.cost([without])
    assert [one.snapshot.object_id for one in app.store.polls.suspects(w.state.id)] == ["200001"]
