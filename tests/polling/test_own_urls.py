"""Own URLs: one 404 is no proof that an object is gone, and a wrong `item_path` none at all. In a time of its own."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

import poller.polling.own_urls
from poller.changes.endpoint_rules import ABSENT_FOR_WITH_URL
from tests.truth.run import Watched, in_jumping_time, watched
from tests.truth.upstream import Hidden
from tests.truth.world import Step, World

LIST = World(style="none", objects=5, has_items=True, absent_for=ABSENT_FOR_WITH_URL)

Story = Callable[[Watched], Awaitable[None]]


def within(world: World, story: Story) -> None:
    async def begun() -> None:
        async with watched(world) as watching:
            await watching.sweep()
            await story(watching)

    in_jumping_time(begun())


async def kinds(watching: Watched) -> list[str]:
    events = (await watching.living()).store.log.read(limit=1000)
    return [f"{event.type.rpartition('.')[2]} {event.subject}" for event in events if event.source != "/poller"]


async def shown(watching: Watched) -> tuple[str, str]:
    things = (await watching.living()).endpoints()["things"]
    return things.state, things.reason or ""


def test_an_object_that_list_and_own_url_hide_for_as_long_as_it_must_be_missing_is_no_deletion():
    async def story(watching):
        now = watching.upstream.now()
        watching.upstream.hidden[3].append(Hidden(now, now + ABSENT_FOR_WITH_URL, everywhere=True))
        await watching.do(Step(wait=120.0))

        assert await kinds(watching) == []

    within(LIST, story)


@pytest.mark.parametrize("restarts", [False, True])
def test_one_404_of_an_own_url_is_no_proof(restarts):
    async def story(watching):
        await watching.do(Step(act="fault", kind="404", where="item"))
        await watching.do(Step(act="unlist", pick=2, wait=6.0))
        while ("/things/3", 404) not in watching.upstream.answers:
            await watching.do(Step(wait=0.5))
        if restarts:
            await watching.do(Step(act="restart"))
        await watching.do(Step(wait=60.0))

        assert watching.upstream.answers.count(("/things/3", 200)) >= 1
        assert await kinds(watching) == []

    within(LIST, story)


def test_a_second_404_after_a_restart_confirms_what_the_first_one_said():
    async def story(watching):
        watching.upstream.change("delete", 2)
        while ("/things/3", 404) not in watching.upstream.answers:
            await watching.do(Step(wait=0.5))
        await watching.do(Step(wait=1.0))
        await watching.do(Step(act="restart", wait=60.0))

        assert await kinds(watching) == ["deleted things/3"]
        assert watching.upstream.answers.count(("/things/3", 404)) == 2

    within(LIST, story)


def test_an_own_url_that_fails_is_asked_again_only_after_a_wait():
    async def story(watching):
        await watching.do(Step(act="fault", kind="500", where="item", times=1000))
        watching.upstream.change("delete", 2)
        await watching.do(Step(wait=60.0))

        assert 8 <= watching.upstream.answers.count(("/things/3", 500)) <= 12

    within(LIST, story)


@pytest.mark.parametrize("absent_for", [0.0, ABSENT_FOR_WITH_URL])
def test_a_wrong_item_path_deletes_nothing_is_said_and_leaves_deletions_to_the_sweeps(monkeypatch, absent_for):
    monkeypatch.setattr(poller.polling.own_urls, "HOUR", 150.0)

    async def story(watching):
        watching.upstream.begin("own-404")
        now = watching.upstream.now()
        watching.upstream.hidden[3].append(Hidden(now, now + 5.0))
        await watching.do(Step(wait=1.0))
        watching.upstream.change("delete", 4)
        await watching.do(Step(wait=120.0))

        assert await kinds(watching) == ["deleted things/5"]  # two complete sweeps did not show it
        state, reason = await shown(watching)
        assert (state, "/things/1 says that it is gone: is `item_path` right?" in reason) == ("uncertain", True)
        notices = (await watching.living()).store.log.read(limit=1000, type_glob="poller.endpoint.uncertain")
        assert len(notices) == 1

        watching.upstream.end("own-404")
        await watching.do(Step(wait=200.0))
        assert await shown(watching) == ("ok", "")

    within(replace(LIST, absent_for=absent_for), story)


def test_an_own_url_that_denies_what_is_listed_again_after_its_deletion_is_said_to_be_wrong():
    async def story(watching):
        watching.upstream.begin("own-404")
        now = watching.upstream.now()
        watching.upstream.hidden[1].append(Hidden(now, now + 60.0))  # the list shows nothing that could be asked for
        await watching.do(Step(wait=120.0))

        assert await kinds(watching) == ["deleted things/1", "created things/1"]
        state, reason = await shown(watching)
        assert (state, "is `item_path` right?" in reason) == ("uncertain", True)

    within(replace(LIST, objects=1), story)


def test_one_404_for_a_listed_object_does_not_make_own_urls_wrong():
    async def story(watching):
        watching.upstream.begin("own-404")
        watching.upstream.change("delete", 2)
        while ("/things/1", 404) not in watching.upstream.answers:
            await watching.do(Step(wait=0.5))
        watching.upstream.end("own-404")
        await watching.do(Step(wait=120.0))

        assert await kinds(watching) == ["deleted things/3"]
        assert (await watching.living()).store.log.read(limit=1000, type_glob="poller.endpoint.uncertain") == []

    within(LIST, story)


def test_deletions_of_the_same_time_ask_together_for_one_object_that_is_listed():
    async def story(watching):
        for many in (2, 1):
            for _ in range(many):
                watching.upstream.change("delete", 3)
            await watching.do(Step(wait=60.0))

        assert await kinds(watching) == ["deleted things/4", "deleted things/5", "deleted things/1"]
        asked = [path for path, status in watching.upstream.answers if path.startswith("/things/") and status == 200]
        assert len(asked) == 2

    within(LIST, story)
