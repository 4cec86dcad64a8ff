"""A method of a source plugin that blocks delays its own source, and nobody else."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import BaseModel

from poller import Endpoint, Page, Position, hookimpl
from poller.operations.commands import execute
from tests.support.living import swept, until
from tests.support.two_sources import goes_on, sizes, two_sources

SOURCE = """[sources.slow]
plugin = "slow"
budget = "{budget}"
base_url = "{{slow}}"
"""
COMMANDS = 5
MANY = 5  # endpoints: more than calls of a budget may be in flight


class Block:
    """Blocks whatever method is named, until it may go on."""

    def __init__(self) -> None:
        self.method: str | None = None
        self.entered, self.may_go = threading.Event(), threading.Event()

    def at(self, method: str) -> None:
        if method == self.method:
            self.entered.set()
            self.may_go.wait(60)


def plugin_of(block: Block, *, endpoints: int = 1) -> object:
    """A plugin with a source whose methods pass `block`."""

    class Auth(httpx.Auth):
        requires_response_body = True

        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
            block.at("auth")
            answer = yield request
            assert answer.content

    class AsyncAuth(Auth):
        async def async_auth_flow(self, request: httpx.Request) -> AsyncIterator[httpx.Request]:  # type: ignore[override]
            block.at("async auth")
            if block.method == "async auth, awaiting":
                block.entered.set()
                while not block.may_go.is_set():
                    await asyncio.sleep(0.01)
            answer = yield request
            assert answer.content

    class Slow:
        class Options(BaseModel):
            base_url: str

        limits: Sequence[Any] = ()
        auth = AsyncAuth() if str(block.method).startswith("async") else Auth()

        def __init__(self, name: str, options: Options) -> None:
            self._url = options.base_url

        def discover(self) -> Iterator[httpx.Request]:
            block.at("discover")
            yield httpx.Request("GET", f"{self._url}/things")

        def endpoints(self) -> list[Endpoint]:
            return [Endpoint(name="things" if n == 0 else f"things{n}") for n in range(endpoints)]

        def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
            block.at("request")
            return httpx.Request("GET", f"{self._url}/things")

        def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
            block.at("page")
            return Page(objects=orjson.loads(response.content), next=None)

        def item_request(self, endpoint: Endpoint, object_id: str) -> httpx.Request:
            block.at("item_request")
            return httpx.Request("GET", f"{self._url}/things/{object_id}")

    if endpoints > 1:  # each is to be asked at once
        del Slow.discover

    class Plugin:
        @hookimpl
        def register_sources(self, register: Callable[[str, type], None]) -> None:
            register("slow", Slow)

    return Plugin()


@pytest.fixture
def block() -> Iterator[Block]:
    made = Block()
    yield made
    made.may_go.set()


@pytest.mark.parametrize("method", ["auth", "async auth", "request", "page", "item_request", "discover"])
async def test_a_method_that_blocks_delays_its_own_source_and_nobody_else(
    tmp_path: Path, block: Block, method: str
) -> None:
    sweeps = method != "discover"  # that is called before the first poll only
    block.method = method
    plugin = plugin_of(block)
    if sweeps:
        block.method = None
    source = SOURCE.format(budget="slow")
    async with two_sources(tmp_path, plugin, source=source, sweeps=sweeps, end=block.may_go.set) as (
        daemon,
        slow,
        quick,
    ):
        block.method = method
        del slow.things[1]  # own URLs are asked for what is missing
        await until("the method to block", block.entered.is_set)
        if not sweeps:
            await until("the baseline of the other source", lambda: quick.asked > 2)
        quick.edit(2, 7)
        await until("an event of the other source", lambda: sizes(quick, "quick", 2) == [7])
        await goes_on(daemon, commands=COMMANDS)
        assert not block.may_go.is_set()

        block.may_go.set()
        await until("the baseline of the source that waited", lambda: swept(daemon))
        slow.edit(3, 9)
        await until("an event of the source that waited", lambda: sizes(quick, "slow", 3) == [9])


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("auth", r"auth_flow \(line \d+ of test_source_calls.py\)"),
        ("page", r"page \(line \d+ of test_source_calls.py\)"),
        ("async auth", r"async_auth_flow \(line \d+ of test_source_calls.py\)"),
        pytest.param("async auth, awaiting", "its auth flow", marks=pytest.mark.slow),
    ],
)
async def test_a_method_that_does_not_return_is_a_failure_of_its_own_source_until_it_does(
    tmp_path: Path, block: Block, monkeypatch: pytest.MonkeyPatch, method: str, place: str
) -> None:
    monkeypatch.setattr("poller.polling.threads.PATIENCE", 0.3)
    if method == "async auth, awaiting":
        monkeypatch.setattr("poller.polling.threads.LONGEST", 0.3)
    block.method = method
    plugin, source = plugin_of(block, endpoints=MANY), SOURCE.format(budget="quick")
    async with two_sources(tmp_path, plugin, source=source, sweeps=False, end=block.may_go.set) as (
        daemon,
        _,
        quick,
    ):
        lists = daemon.app.engine.sources["slow"].endpoints.values()

        def reasons() -> list[str]:
            return [unit.error for w in lists for unit in w.units.values() if unit.error]

        await until("as many failures as calls may be in flight", lambda: len(reasons()) >= MANY - 1)
        assert [
            said for said in reasons() if not re.fullmatch(f".* not returned from {place} within 0.3 s", said)
        ] == []
        asked = quick.asked
        await until("more polls within the same budget", lambda: quick.asked > asked + 2)

        block.method = None
        block.may_go.set()
        await execute(daemon.app, "probe", {})
        await until("the baseline of the source that waited", lambda: swept(daemon))
