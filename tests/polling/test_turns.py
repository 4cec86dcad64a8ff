"""Answers of one endpoint are decided on beside the store, in turns: nobody else waits for what a plugin does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from poller import hookimpl
from poller.changes.comparison import RequestTimes
from poller.polling.endpoint import PendingAnswer, Turn
from poller.polling.results import Fetched, PollResult
from state.records import NewEvent
from tests.support.living import World, until
from tests.support.two_sources import goes_on, two_sources

COMMANDS = 20


class Blocking:
    """A hook that does not return while it is held, for one source."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.entered = threading.Event()

    @hookimpl
    def transform_event(self, event: NewEvent) -> None:
        if event.source == "/sources/slow":
            self.entered.set()
            self.may_go.wait(60)


class Raising:
    """A hook that raises for one source."""

    @hookimpl
    def transform_event(self, event: NewEvent) -> None:
        if event.source == "/sources/slow":
            raise ValueError("no")


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    plugin = Blocking()
    yield plugin
    plugin.may_go.set()


async def test_a_hook_that_blocks_delays_its_own_source_and_nobody_else(tmp_path: Path, blocking: Blocking) -> None:
    async with two_sources(tmp_path, blocking, end=blocking.may_go.set) as (daemon, slow, quick):
        slow.edit(1, 1)
        await until("the hook to block", blocking.entered.is_set)
        asked = quick.asked
        quick.edit(2, 7)
        await until("an event of the other source", lambda: 7 in quick_sizes(quick))
        assert quick.asked > asked
        await goes_on(daemon, commands=COMMANDS)
        assert not blocking.may_go.is_set()
        assert not [event for event in quick.received if event["source"] == "/sources/slow"]

        blocking.may_go.set()
        await until("the event that was held up", lambda: [e for e in quick.received if e["source"] == "/sources/slow"])


async def test_a_hook_that_raises_costs_nobody_anything(tmp_path: Path) -> None:
    async with two_sources(tmp_path, Raising()) as (daemon, slow, quick):
        slow.edit(1, 1)
        quick.edit(2, 7)
        await until("both events", lambda: {e["source"] for e in quick.received} >= {"/sources/slow", "/sources/quick"})
        assert "transform_event" in {failed.origin for failed in daemon.app.plugins.failed}


def quick_sizes(quick: World) -> list[int]:
    return [event["data"]["object"]["size"] for event in quick.received if event["source"] == "/sources/quick"]


def pending(key: str) -> PendingAnswer:
    asked = RequestTimes(at=1.0, answered_at=2.0)
    return PendingAnswer(key, Fetched(asked=asked, calls=1, unit=1, digest=None), sweep_waits=False)


class Takers:
    """Answers that join the turns of an endpoint, and those that took a turn: each with all that waited then."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.taken: list[list[str]] = []
        self.may_end = asyncio.Event()

    def join(self, key: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._join(pending(key)))

    async def _join(self, answer: PendingAnswer) -> None:
        try:
            await self.turn.join(answer)
            if not answer.is_over:
                batch = [*self.turn.waiting]
                self.taken.append([one.key for one in batch])
                await self.may_end.wait()
                self.turn.waiting.clear()
                for one in batch:
                    one.result = PollResult()
                    one.wake()
        finally:
            self.turn.leave(answer)


async def test_answers_that_wait_at_the_same_time_go_in_one_turn() -> None:
    takers = Takers()
    tasks = [takers.join(key) for key in "abc"]
    takers.may_end.set()
    await asyncio.gather(*tasks)
    await takers.join("d")

    assert takers.taken == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize(
    ("cancelled", "taken"),
    [("a", [["a", "b", "c"], ["b", "c"]]), ("b", [["a", "b", "c"]]), ("ab", [["a", "b", "c"], ["c"]])],
)
async def test_a_poll_that_is_cancelled_holds_up_no_other(cancelled: str, taken: list[list[str]]) -> None:
    takers = Takers()
    tasks = {key: takers.join(key) for key in "abc"}
    await until("a turn", lambda: bool(takers.taken))
    for key in cancelled:
        tasks[key].cancel()
    await asyncio.sleep(0)
    takers.may_end.set()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await takers.join("d")

    assert takers.taken == [*taken, ["d"]]
