"""A pause that a server asks for is kept, shown, told where it is long, and ended by a command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from poller.app import open_app, sweep_once
from poller.budget.headers import RateLimitHeaders
from poller.clock import VirtualClock
from poller.config.load import load
from poller.events.cloudevents import iso
from poller.hooks.loading import load_plugins
from poller.operations.commands import execute
from poller.options.problems import NotThere
from state.errors import PollerError
from tests.polling.test_engine_planning import CONFIG, Shop, World
from tests.support.upstream import serving

NO_CALL_LEFT = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "3000"}
TOLD = "poller.budget.throttled"


class Throttling(Shop):
    """A shop that says in its headers when it wants no call; `words` are those of its next answers."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[tuple[int, dict[str, str]]] = []

    async def answer(self, request: Request) -> Response:
        answer = await super().answer(request)
        if self.words:
            answer.status_code, headers = self.words.pop(0)
            answer.headers.update(headers)
        return answer


class Town:
    """A throttling shop that outlives the program that watches it."""

    def __init__(self, path: Path, shop: Throttling) -> None:
        self.path = path
        self.shop = shop
        self.clock = VirtualClock()

    @asynccontextmanager
    async def watched(self, *, crash: bool = False) -> AsyncIterator[World]:
        config = load(self.path, plugins := load_plugins())
        async with open_app(config, plugins, clock=self.clock) as app:
            yield World(app, self.shop, self.clock)
            if crash:
                app.engine.loops.clear()  # nothing is saved, as after kill -9
                app.engine.sources.clear()


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    shop = Throttling()
    async with serving(Starlette(routes=[Route("/{path:path}", shop.answer)])) as url:
        path = folder / "poller.toml"
        path.write_text(CONFIG.format(url=url, limits='["6/min"]', more=""))
        yield Town(path, shop)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"retry-after": "1800"}, "an answer 200 says to come back in 1800 s (Retry-After)"),
        (NO_CALL_LEFT, "an answer 200 says that no call remains"),
        ({"ratelimit": '"hour";r=0;t=1800', "ratelimit-policy": '"hour";q=50;w=3600'}, "no call remains"),
    ],
    ids=["Retry-After", "X-RateLimit", "RateLimit"],
)
async def test_a_long_pause_is_told_once_also_where_it_came_with_a_200(tmp_path, headers, why):
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(60)
        t.shop.words = [(200, headers)]
        await w.run(60)
        (told,) = w.events(TOLD)
        until = w.poll_loop.pauses.until()
        assert until is not None
        assert why in told.data["summary"]
        assert f"before {iso(until)[:19]}" in told.data["summary"]
        assert "`poller resume shop` ends the pause" in told.data["summary"]
        asked = len(t.shop.asked)
        await w.run(1500)
        assert (len(t.shop.asked), len(w.events(TOLD))) == (asked, 1)
        await w.run(2400)
        assert len(t.shop.asked) > asked

        t.shop.words = [(200, headers)]
        await w.run(60)
        assert len(w.events(TOLD)) == 2


async def test_a_short_pause_with_a_200_is_not_told(tmp_path):
    async with town(tmp_path) as t, t.watched() as w:
        t.shop.words = [(200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"})] * 5
        await w.run(600)

        assert w.events(TOLD) == []


async def test_a_short_refusal_that_becomes_a_long_pause_is_told_again(tmp_path):
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(600)
        t.shop.words = [(429, {}), (429, {"retry-after": "3600"})]
        await w.run(300)

        assert len(w.events(TOLD)) == 2
        assert w.events(TOLD)[1].data["detail"]["until"] > w.events(TOLD)[0].data["detail"]["until"]


@pytest.mark.parametrize("remaining", [0, 1, 2])
async def test_a_pause_outlasts_a_crash_whichever_call_used_up_what_remained(tmp_path, remaining):
    async with town(tmp_path) as t:
        async with t.watched(crash=True) as w:
            countdown = [{**NO_CALL_LEFT, "x-ratelimit-remaining": str(left)} for left in range(remaining, -1, -1)]
            t.shop.words = [(200, headers) for headers in countdown]
            await w.run(60)
            until = w.poll_loop.pauses.until()
            assert until is not None
            assert until > t.clock.now() + 2000
        async with t.watched() as w:
            assert w.poll_loop.pauses.until() == pytest.approx(until, abs=1)
            asked = len(t.shop.asked)
            await w.run(1000)
            assert len(t.shop.asked) == asked
            assert len(w.events(TOLD)) == 1


@pytest.mark.parametrize("word", [(200, NO_CALL_LEFT), (429, {"retry-after": "1800"}), (503, {"retry-after": "1800"})])
async def test_a_command_ends_a_pause_and_no_restart_brings_it_back(tmp_path, word):
    async with town(tmp_path) as t:
        async with t.watched(crash=True) as w:
            await w.run(60)
            t.shop.words = [word]
            await w.run(60)
            until, asked = w.poll_loop.pauses.until(), len(t.shop.asked)
            assert until is not None

            done = await execute(w.app, "resume", {"budget": "shop"})
            assert done["summary"] == (
                f"Budget shop makes calls again at once: its server had asked for none before {iso(until)}."
            )
            assert w.poll_loop.pauses.until() is None
        async with t.watched() as w:
            assert w.poll_loop.pauses.until() is None
            await w.run(60)
            assert len(t.shop.asked) > asked
            assert all(usage.used <= 6 for usage in w.poll_loop.budget.usage(t.clock.steady()))

            again = await execute(w.app, "resume", {"budget": "shop"})
            assert again["summary"].startswith("The server of budget shop had not asked for a pause")


async def test_a_call_that_waits_for_the_end_of_a_pause_leaves_when_a_command_ends_it(tmp_path):
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(60)
        t.shop.words = [(200, {"retry-after": "1800"})]
        await w.run(60)
        began, asked = t.clock.steady(), len(t.shop.asked)
        await w.app.engine.interventions.resume("shop")
        await w.run(15)

        assert len(t.shop.asked) > asked
        assert t.clock.steady() - began < 60


async def test_resume_names_a_budget_or_a_subscription_that_there_is(tmp_path):
    async with town(tmp_path) as t, t.watched() as w:
        with pytest.raises(NotThere, match="no budget is named 'shpo'"):
            await execute(w.app, "resume", {"budget": "shpo"})
        for args in ({}, {"budget": "shop", "subscription": "shop"}):
            with pytest.raises(PollerError, match="name a subscription or a budget"):
                await execute(w.app, "resume", args)


async def test_a_long_pause_that_begins_while_a_poll_waits_for_its_turn_is_no_silence(tmp_path):
    async with town(tmp_path) as t, t.watched() as w:
        limiter = w.poll_loop.limiter
        async with limiter._turn:  # another call is about to leave
            sweeping = asyncio.create_task(sweep_once(w.app))
            while not limiter._turn._waiters:
                await asyncio.sleep(0.001)
            limiter.budget.obey(RateLimitHeaders(retry_after=1800.0), t.clock.steady())

        stuck = await sweeping
        assert [line.partition(" before ")[0] for line in stuck] == [
            "shop/items: the server wants no call of budget shop"
        ]
        assert t.shop.asked == []
        t.clock.advance(1800.0)
        await w.run(60)
        assert t.shop.asked


async def test_a_pause_of_some_length_is_said_once_with_its_reason(tmp_path):
    async with town(tmp_path) as t, t.watched() as w:
        await w.run(120)
        with structlog.testing.capture_logs() as said:
            t.shop.words = [(200, {"retry-after": "5"}), (200, {"retry-after": "40"}), (200, {"retry-after": "3"})]
            await w.run(300)

        waits = [(line["seconds"], line["why"]) for line in said if line["event"] == "budget.waits"]
        assert waits == [(40, "an answer 200 says to come back in 40 s (Retry-After)")]
