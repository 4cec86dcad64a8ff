"""Lists whose objects come and go, as jobs and alerts do, are not held for it; lists that run empty are."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.truth.run import Watched, in_jumping_time, watched
from tests.truth.settings import config_of
from tests.truth.world import Step, World

JOBS = World(style="none", objects=60, has_items=True, absent_for=5.0)
ALERTS = replace(JOBS, has_items=False)
ROUNDS, MOVING = 12, 6  # 72 of 60 objects

Story = Callable[[Watched], Awaitable[None]]


def within(world: World, story: Story, *, turnover: bool = False) -> None:
    async def begun() -> None:
        async with watched(world) as watching:
            source = config_of(world, watching.config.path).sources["api"]
            settings = {name: one.model_copy(update={"turnover": turnover}) for name, one in source.endpoints.items()}
            source = source.model_copy(update={"endpoints": settings})
            watching.config = watching.config.model_copy(update={"sources": {"api": source}})
            await watching.sweep()
            await story(watching)

    in_jumping_time(begun())


async def turn_over(watching: Watched, *, coming: bool = True, restarts: bool = False) -> None:
    for number in range(ROUNDS):
        for _ in range(MOVING):
            watching.upstream.change("delete", 0)
            if coming:
                watching.upstream.change("create", 1_000_003)
        await watching.do(Step(wait=25.0))
        if restarts and number == ROUNDS // 2:
            await watching.do(Step(act="restart"))


async def seen(watching: Watched) -> tuple[bool, int]:
    """Whether the list is held, and how many deletions were reported."""
    life = await watching.living()
    events = life.store.log.read(limit=1000, type_glob="*.things.deleted")
    return life.engine.sources["api"].endpoints["things"].state.held is not None, len(events)


@pytest.mark.parametrize(
    ("world", "turnover", "restarts"), [(JOBS, False, True), (ALERTS, True, False)], ids=["own URLs", "key"]
)
def test_objects_that_go_while_as_many_come_are_no_mass_deletion(world, turnover, restarts):
    async def story(watching):
        await turn_over(watching, restarts=restarts)
        await watching.do(Step(wait=180.0))

        assert await seen(watching) == (False, ROUNDS * MOVING)

    within(world, story, turnover=turnover)


@pytest.mark.parametrize(
    ("world", "turnover", "restarts"), [(JOBS, False, True), (ALERTS, True, False)], ids=["own URLs", "key"]
)
def test_a_list_that_runs_empty_is_held_also_after_a_restart(world, turnover, restarts):
    async def story(watching):
        await turn_over(watching, coming=False, restarts=restarts)
        await watching.do(Step(wait=180.0))
        is_held, deletions = await seen(watching)

        assert is_held
        assert 44 <= deletions < 50

    within(world, story, turnover=turnover)


def test_without_an_own_url_and_without_the_key_many_deletions_within_an_hour_hold_the_list():
    async def story(watching):
        await turn_over(watching)

        assert (await seen(watching))[0]

    within(ALERTS, story)


@pytest.mark.parametrize("turnover", [False, True])
def test_a_list_whose_objects_are_all_others_at_once_is_believed_where_it_turns_over(turnover):
    async def story(watching):
        for act in ("delete", "create"):
            for _ in range(JOBS.objects):
                watching.upstream.change(act, 0)
        await watching.do(Step(wait=150.0))

        assert await seen(watching) == (not turnover, JOBS.objects if turnover else 0)

    within(JOBS, story, turnover=turnover)
