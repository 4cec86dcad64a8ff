"""When an object that a list no longer shows is believed to be gone: absence needs time, and proof."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from poller.changes.endpoint_rules import ABSENT_FOR, ABSENT_FOR_WITH_URL, DeletionRules
from poller.polling.suspects import is_proved
from state.polls import Presence, Snapshot, Suspect
from state.records import Event
from tests.truth.run import Watched, in_jumping_time, watched
from tests.truth.settings import config_of
from tests.truth.world import Step, World

LIST = World(style="none", objects=5)
WITH_URL = replace(LIST, has_items=True)

Story = Callable[[Watched], Awaitable[None]]


def within(world: World, story: Story, *, absent_for: float | None = None) -> None:
    """Tell the story of a world that is watched with this `absent_for` (None: the default), from its baseline on."""

    async def begun() -> None:
        async with watched(world) as watching:
            source = config_of(world, watching.config.path).sources["api"]
            other = {"absent_for": absent_for}
            settings = {name: one.model_copy(update=other) for name, one in source.endpoints.items()}
            source = source.model_copy(update={"endpoints": settings})
            watching.config = watching.config.model_copy(update={"sources": {"api": source}})
            await watching.sweep()
            await story(watching)

    in_jumping_time(begun())


async def told(watching: Watched) -> list[Event]:
    events = (await watching.living()).store.log.read(limit=1000)
    return [event for event in events if event.source != "/poller"]


async def kinds(watching: Watched) -> list[str]:
    return [event.type.rpartition(".")[2] for event in await told(watching)]


def now(watching: Watched) -> float:
    return watching.upstream.now()


@pytest.mark.parametrize("world", [LIST, WITH_URL, replace(LIST, style="page", order="id")], ids=str)
def test_an_object_that_is_away_for_some_seconds_is_no_deletion(world):
    async def story(watching):
        for _ in range(5):
            watching.upstream.change("delete", 0)
            await watching.do(Step(wait=3.5))
            watching.upstream.change("return", 0)
            await watching.do(Step(wait=20.0))

        assert await kinds(watching) == []
        assert not [path for path, status in watching.upstream.answers if status == 404]

    within(world, story)


@pytest.mark.parametrize("has_items", [False, True])
def test_a_list_whose_order_changes_at_every_call_loses_and_gains_nothing(has_items):
    async def story(watching):
        watching.upstream.begin("tied")
        await watching.do(Step(wait=900.0))

        assert await kinds(watching) == []

    within(World(size=10, objects=60, has_items=has_items), story)


@pytest.mark.parametrize("seed", range(2))
def test_what_an_unstable_order_hides_from_its_baseline_is_not_reported_as_created(seed):
    async def begun() -> None:
        async with watched(World(size=10, objects=60, seed=seed)) as watching:
            watching.upstream.begin("tied")
            await watching.do(Step(wait=600.0))

            assert not (await watching.living()).engine.sources["api"].endpoints["things"].in_baseline
            assert await kinds(watching) == []

    in_jumping_time(begun())


@pytest.mark.parametrize(("world", "wait"), [(LIST, ABSENT_FOR), (WITH_URL, ABSENT_FOR_WITH_URL)], ids=["list", "url"])
def test_a_deletion_is_told_soon_after_it_has_lasted_long_enough(world, wait):
    async def story(watching):
        gone = now(watching)
        watching.upstream.change("delete", 2)
        while not await kinds(watching):
            await watching.do(Step(wait=1.0))

        assert await kinds(watching) == ["deleted"]
        assert wait <= (await told(watching))[0].time - gone <= wait + 10.0

    within(world, story)


def test_without_an_own_url_an_object_is_gone_once_two_sweeps_after_the_first_have_not_shown_it():
    async def story(watching):
        watching.upstream.change("delete", 2)
        seen = []
        for _ in range(3):
            await watching.sweep()
            seen.append(await kinds(watching))

        assert seen == [[], [], ["deleted"]]

    within(LIST, story, absent_for=0.0)


def test_a_second_404_proves_nothing_before_its_time():
    snapshot = Snapshot(object_id="3", version=1, body=b"{}", unit=None, seen_at=80.0, presence=Presence.SUSPECT)
    suspect = Suspect(snapshot=snapshot, missing_at=90.0, missing_sweep=1, checks=0, denied_at=100.0)
    times = (100.0, 99.0 + ABSENT_FOR_WITH_URL, 100.0 + ABSENT_FOR_WITH_URL)

    assert [is_proved(suspect, DeletionRules(), asked=at) for at in times] == [False, False, True]


def test_the_budget_is_woken_when_an_own_url_may_be_asked():
    async def story(watching):
        watching.upstream.change("delete", 2)
        await watching.sweep()
        missing = now(watching)
        poll_loop = (await watching.living()).engine.loops["api"]
        planner = poll_loop.planner
        for unit in planner.units:
            planner.defer(unit, missing + 3600.0)  # nothing else would wake it
        await watching.do(Step(wait=20.0))

        assert await kinds(watching) == ["deleted"]

    within(WITH_URL, story)


def test_how_long_an_object_has_been_away_outlives_a_restart():
    async def story(watching):
        watching.upstream.change("delete", 2)
        await watching.sweep()
        await watching.do(Step(wait=6.0))
        await watching.do(Step(act="restart"))
        begun = now(watching)
        while not await kinds(watching):
            await watching.do(Step(wait=0.5))

        assert now(watching) - begun <= 13.0

    within(WITH_URL, story)


@pytest.mark.parametrize("world", [LIST, WITH_URL], ids=["list", "url"])
def test_a_time_of_a_clock_that_was_ahead_is_not_waited_for(world):
    async def story(watching):
        watching.upstream.change("delete", 2)
        await watching.sweep()
        life = await watching.living()
        life.store.db.execute("UPDATE objects SET missing_at = missing_at + 86400 WHERE presence = 1")
        life.engine.sources["api"].deletions.queue.forget("things")
        await watching.do(Step(wait=120.0))

        assert await kinds(watching) == ["deleted"]

    within(world, story)


def test_the_time_of_an_absence_begins_when_a_long_chain_has_been_read_whole():
    async def story(watching):
        await watching.do(Step(wait=60.0))
        watching.upstream.change("delete", 0)
        gone = now(watching)
        while not (await watching.living()).store.polls.suspects(1):
            await watching.do(Step(wait=0.1))
        (suspect,) = (await watching.living()).store.polls.suspects(1)
        unit = (await watching.living()).engine.sources["api"].endpoints["things"].units["list"]

        assert unit.answered_at - unit.asked_at > 1.0
        assert suspect.missing_at == unit.answered_at > gone

    within(World(style="cursor", size=1, objects=6), story)
