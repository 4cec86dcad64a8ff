"""A method of a source plugin that blocks delays its own source, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import BaseModel

from poller import Endpoint, Page, Position, hookimpl
from tests.support.living import swept, until
from tests.support.two_sources import goes_on, sizes, two_sources

SOURCE = """[sources.slow]
plugin = "slow"
budget = "slow"
base_url = "{slow}"
"""
COMMANDS = 5


class Block:
    """Blocks whatever method is named, until it may go on."""

    def __init__(self) -> None:
        self.method: str | None = None
        self.entered, self.may_go = threading.Event(), threading.Event()

    def at(self, method: str) -> None:
        if method == self.method:
            self.entered.set()
            self.may_go.wait(60)


def plugin_of(block: Block) -> object:
    """A plugin with a source whose methods pass `block`."""

    class Auth(httpx.Auth):
        requires_response_body = True

        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
            block.at("auth")
            answer = yield request
            assert answer.content

    class Slow:
        class Options(BaseModel):
            base_url: str

        limits: Sequence[Any] = ()
        auth = Auth()

        def __init__(self, name: str, options: Options) -> None:
            self._url = options.base_url

        def discover(self) -> Iterator[httpx.Request]:
            block.at("discover")
            yield httpx.Request("GET", f"{self._url}/things")

        def endpoints(self) -> list[Endpoint]:
            return [Endpoint(name="things")]

        def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
            block.at("request")
            return httpx.Request("GET", f"{self._url}/things")

        def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
            block.at("page")
            return Page(objects=orjson.loads(response.content), next=None)

        def item_request(self, endpoint: Endpoint, object_id: str) -> httpx.Request:
            block.at("item_request")
            return httpx.Request("GET", f"{self._url}/things/{object_id}")

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


@pytest.mark.parametrize("method", ["auth", "request", "page", "item_request", "discover"])
async def test_a_method_that_blocks_delays_its_own_source_and_nobody_else(
    tmp_path: Path, block: Block, method: str
) -> None:
    sweeps = method != "discover"  # that is called before the first poll only
    if not sweeps:
        block.method = method
    plugin = plugin_of(block)
    async with two_sources(tmp_path, plugin, source=SOURCE, sweeps=sweeps, end=block.may_go.set) as (
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
