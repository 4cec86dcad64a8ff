"""The engine on a real state, in a time of its own, against the model API of `tests.truth`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import structlog

from poller import PageError
from poller.changes.page import MOST_OBJECTS, compare
from poller.config.models import Config
from poller.polling.endpoint import WatchedEndpoint, status_of
from tests.truth.run import Watched, in_jumping_time, watched
from tests.truth.settings import config_of
from tests.truth.world import Step, World

Story = Callable[[Watched], Awaitable[None]]


def within(world: World, story: Story, *, begin: Callable[[Config], Config] = lambda config: config) -> None:
    """Tell the story of a world that is watched, from its baseline on; `begin` makes the first configuration."""

    async def told() -> None:
        async with watched(world) as watching:
            watching.config = begin(watching.config)
            await watching.sweep()
            await story(watching)

    in_jumping_time(told())


async def types(watching: Watched) -> list[str]:
    return [event.type for event in (await watching.living()).store.log.read(limit=1000)]


async def things(watching: Watched, name: str = "things") -> WatchedEndpoint:
    return (await watching.living()).engine.sources["api"].endpoints[name]


def with_endpoint(config: Config, name: str, **table: Any) -> Config:
    """The configuration with other keys of one endpoint, the plugin's."""
    source = config.sources["api"]
    tables = dict(source.options.endpoints)
    tables[name] = tables[name].model_copy(update=table)
    options = source.options.model_copy(update={"endpoints": tables})
    return config.model_copy(update={"sources": {"api": source.model_copy(update={"options": options})}})


def with_settings(config: Config, name: str, **settings: Any) -> Config:
    """The configuration with other keys of one endpoint, the engine's."""
    source = config.sources["api"]
    known = source.endpoint(name).model_copy(update=settings)
    source = source.model_copy(update={"endpoints": {**source.endpoints, name: known}})
    return config.model_copy(update={"sources": {"api": source}})


def without_lines(config: Config) -> Config:
    source = config.sources["api"]
    tables = {name: table for name, table in source.options.endpoints.items() if name != "lines"}
    settings = {name: table for name, table in source.endpoints.items() if name != "lines"}
    options = source.options.model_copy(update={"endpoints": tables})
    source = source.model_copy(update={"options": options, "endpoints": settings})
    return config.model_copy(update={"sources": {"api": source}})


def test_an_unmodified_answer_costs_a_call_and_nothing_else():
    async def story(watching):
        kept = "SELECT * FROM objects ORDER BY id"
        before = (await watching.living()).store.db.execute(kept).fetchall()
        asked = watching.upstream.calls
        await watching.sweep()

        statuses = {status for _, status in watching.upstream.answers[asked:]}
        assert statuses == {304}
        assert (await watching.living()).store.db.execute(kept).fetchall() == before != []
        assert await types(watching) == []

    within(World(style="none", etags=True), story)


def test_a_child_list_is_asked_for_soon_after_its_parent_changed():
    async def story(watching):
        await watching.sweep()
        begun = len(watching.upstream.answers)
        watching.upstream.change("edit", 17)
        while "api.things.updated" not in await types(watching):
            await watching.do(Step(wait=0.5))
        await watching.do(Step(wait=8.0))

        asked = [path for path, _ in watching.upstream.answers[begun:]]
        row = next(row for row in watching.upstream.rows if row["name"].startswith("edit"))
        since = asked.index("/things")
        assert f"/things/{row['n']}/lines" in asked[since : since + 25]

    within(World(style="none", lines=True, objects=60), story)


def test_a_field_that_changes_at_every_poll_is_named_once_as_a_candidate_for_ignore():
    async def story(watching):
        watching.config = with_settings(watching.config, "things", ignore=())
        await watching.do(Step(act="restart"))
        for _ in range(10):
            await watching.sweep()

        assert status_of(await things(watching))["ignore_candidates"] == ["/noise"]

    with structlog.testing.capture_logs() as logs:
        within(World(style="none", noisy=True), story)

    named = [entry["hint"] for entry in logs if entry["event"] == "field.noisy"]
    assert named == ['changes at every poll: ignore = ["/noise"]?']


def test_an_endpoint_that_is_added_later_has_a_silent_baseline_of_its_own():
    async def story(watching):
        await watching.reconfigure(config_of(watching.upstream.world, watching.config.path))
        watching.upstream.change("edit", 0)
        await watching.sweep()
        await watching.sweep()

        assert await types(watching) == ["api.things.updated"]
        assert (await things(watching, "lines")).state.last_sweep is not None

    within(World(style="none", lines=True), story, begin=without_lines)


def test_an_endpoint_that_is_added_later_may_tell_what_it_begins_with():
    async def story(watching):
        full = config_of(watching.upstream.world, watching.config.path)
        await watching.reconfigure(with_settings(full, "lines", baseline="emit"))
        await watching.sweep()

        assert await types(watching) == ["api.lines.created"] * 3

    within(World(style="none", lines=True), story, begin=without_lines)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: with_endpoint(config, "things", path="/things/"),
        lambda config: with_endpoint(config, "things", id="name"),
        lambda config: with_settings(config, "things", exclude=("/updated_at",)),
    ],
    ids=["path", "id", "exclude"],
)
def test_an_endpoint_that_means_something_else_begins_a_new_baseline(change):
    async def story(watching):
        watching.upstream.change("edit", 0)
        await watching.reconfigure(change(watching.config))
        await watching.sweep()
        watching.upstream.change("create", 0)
        await watching.sweep()

        assert await types(watching) == ["poller.endpoint.rebaselined", "api.things.created"]

    within(World(style="none"), story)


def test_a_source_that_should_poll_and_does_not_raises_one_alarm_and_says_when_it_goes_on():
    async def story(watching):
        engine = (await watching.living()).engine
        for _ in range(12):
            await asyncio.sleep(60)  # nobody wakes the budget
            await engine.watch.check()
        alarms = await types(watching)
        await watching.sweep()
        await engine.watch.check()

        assert alarms == ["poller.source.failing"]
        assert await types(watching) == ["poller.source.failing", "poller.source.recovered"]

    within(World(style="none"), story)


@pytest.mark.parametrize("kind", ["429", "500", "timeout", "reset", "html"])
def test_an_outage_at_the_start_is_got_over(kind):
    async def told():
        async with watched(World()) as watching:
            await watching.do(Step(act="fault", kind=kind, times=3))
            await watching.sweep()
            assert (await things(watching)).state.last_sweep is not None

    in_jumping_time(told())


def test_a_sweep_on_command_ends_though_the_last_list_that_it_waits_for_is_gone_with_its_parent():
    async def story(watching):
        life = await watching.living()
        watching.upstream.change("delete", 0)  # its lines are 404 by now
        watching.upstream.fail(Step(act="fault", kind="500"))  # and that it is gone is only seen later
        sweeping = await life.engine.interventions.begin_sweeps()
        now = asyncio.get_running_loop().time
        await life.work(now() + 60, done=lambda: not sweeping.goes_on(now()))

        assert not sweeping.goes_on(now())
        assert sweeping.stuck(watching.upstream.now()) == []

    within(World(style="none", lines=True, has_items=True), story)


def test_an_answer_of_too_many_objects_is_an_error():
    async def story(watching):
        watch = (await things(watching)).rules
        objects = [msgspec.Raw(b'{"id":%d}' % n) for n in range(MOST_OBJECTS + 1)]
        with pytest.raises(PageError, match="more than 100,000 objects in one answer"):
            compare(watch, objects, {})

    within(World(style="none"), story)


def test_a_unit_that_fails_while_another_shows_its_objects_stays_robbed_of_its_digest():
    """What it shows next is compared whole: an unchanged answer would vouch for what it has lost."""

    async def story(watching):
        life = await watching.living()
        w = life.engine.sources["api"].endpoints["things"]
        robbed = []

        def rob(store, engine):
            told = store.log.read(type_glob="poller.source.failing")
            if told and not robbed:  # its failure is being told: another unit is recorded just now
                robbed.append(told[0].data["detail"]["unit"])
                w.put(msgspec.structs.replace(w.units[robbed[0]], digest=None))

        life._look = rob
        watching.upstream.fail(Step(act="fault", kind="500", times=10**6))
        while not robbed:
            await watching.do(Step(wait=5.0))
        await watching.do(Step(wait=5.0))

        assert w.units[robbed[0]].failures > 0
        assert w.units[robbed[0]].digest is None

    within(World(style="page", size=2, objects=6), story)
