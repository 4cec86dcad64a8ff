"""A plugin that raises every exception class of the standard library, one by one, ends only the call."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from poller import Endpoint, Page, Position, Receipt, hookimpl
from poller.config.load import load
from poller.daemon.daemon import Daemon, run_daemon
from poller.hooks.loading import Plugins, load_plugins
from poller.hooks.observers import Observers
from poller.hooks.payloads import Polled
from poller.hooks.source_adapter import SourceAdapter
from poller.sources.protocol import PageError
from poller.testing import Upstream, running
from tests.support.command_line import Shop
from tests.support.daemon import PATIENCE
from tests.support.exceptions import ALL

THINGS = Endpoint(name="things")
FIRST = Position()
KILLERS = [error for error in ALL if not isinstance(error, Exception)]

CONFIG = """
[poller]
listen = ""
[budgets.all]
limits = ["1000/s"]
[sources.mine]
plugin = "mine"
budget = "all"
[sources.shop]
plugin = "rest"
base_url = "https://shop.example"
budget = "all"
[sources.shop.endpoints.items]
path = "/items"
[[subscriptions]]
name = "mine"
plugin = "mine"
[[subscriptions]]
name = "file"
plugin = "jsonl"
path = "out.jsonl"
"""


class Empty(BaseModel):
    pass


class Raising:
    """A source and a sink, each of which raises `error` in the member `at`; and observers that raise as well."""

    error: BaseException | None = None
    at = ""
    delivered: list[int]
    tried: list[str]


class Mine(Raising):
    Options = Empty
    limits = ()
    auth = None

    def __init__(self, name: str, options: Empty) -> None:
        pass

    def endpoints(self) -> list[Endpoint]:
        return [THINGS]

    def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
        fail("request")
        return httpx.Request("GET", "https://mine.example/things")

    def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
        fail("page")
        return Page(response.json())

    def item_request(self, endpoint: Endpoint, object_id: str) -> httpx.Request | None:
        fail("item_request")
        return None


class Sink:
    Options = Empty

    def __init__(self, name: str, options: Empty) -> None:
        pass

    async def __aenter__(self) -> Sink:
        return self

    async def __aexit__(self, *_: object) -> None:
        fail("close")

    async def deliver(self, events: Any, attempt: Any) -> Receipt:
        fail("deliver")
        Raising.delivered += [event.seq for event in events]
        return Receipt("ok")


def fail(at: str) -> None:
    Raising.tried.append(at)
    if Raising.error is not None and Raising.at in (at, "everywhere"):
        raise Raising.error


class Hooks:
    @hookimpl
    def register_sources(self, register: Any) -> None:
        register("mine", Mine)

    @hookimpl
    def register_sinks(self, register: Any) -> None:
        register("mine", Sink)

    @hookimpl
    def transform_event(self, event: Any) -> None:
        fail("transform_event")

    @hookimpl
    async def event_recorded(self, event: Any) -> None:
        fail("event_recorded")

    @hookimpl
    def poll_finished(self, poll: Any) -> None:
        fail("poll_finished")

    @hookimpl
    async def delivery_finished(self, delivery: Any) -> None:
        fail("delivery_finished")

    @hookimpl
    async def started(self) -> None:
        fail("started")

    @hookimpl
    def stopping(self) -> None:
        fail("stopping")


@pytest.fixture(autouse=True)
def nothing_raised() -> Iterator[None]:
    Raising.error, Raising.at, Raising.delivered, Raising.tried = None, "", [], []
    yield
    Raising.error = None


@pytest.fixture
def upstream() -> Upstream:
    return Upstream({"/things": [{"id": 1, "n": 0}], "/items": [{"id": 1, "n": 0}]})


def test_there_are_many_of_them() -> None:
    assert len(ALL) > 200
    names = {type(error).__name__ for error in KILLERS}
    assert names >= {"SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "BaseExceptionGroup"}


@pytest.mark.parametrize("member", ["request", "page", "item_request"])
def test_whatever_a_source_raises_is_a_page_error_that_names_its_plugin(member: str) -> None:
    source = SourceAdapter("mine", Mine("mine", Empty()))
    calls = {
        "request": lambda: source.request(THINGS, FIRST),
        "page": lambda: source.page(THINGS, FIRST, httpx.Response(200, json=[])),
        "item_request": lambda: source.item_request(THINGS, "1"),
    }
    Raising.at = member
    for Raising.error in ALL:
        with pytest.raises(
            PageError, match=rf"the plugin 'mine' failed in {member}\(\): {type(Raising.error).__name__}"
        ) as failed:
            calls[member]()
        assert re.search(r"\(line \d+ of test_nothing_ends_it.py\)", str(failed.value))


async def test_whatever_an_auth_flow_or_discover_raises_is_a_page_error() -> None:
    class Auth(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
            fail("auth")
            yield request

    class Asking(Mine):
        auth = Auth()  # type: ignore[assignment]

        def discover(self) -> Iterator[httpx.Request]:
            yield httpx.Request("GET", "https://mine.example/")
            fail("discover")

    source = SourceAdapter("mine", Asking("mine", Empty()))
    Raising.at = "everywhere"
    for Raising.error in ALL:
        steps = source.discover()
        next(steps)
        with pytest.raises(PageError):
            steps.send(httpx.Response(200))
        assert source.auth is not None
        with pytest.raises(PageError):
            await anext(source.auth.async_auth_flow(httpx.Request("GET", "https://mine.example/")))


async def test_whatever_observers_raise_the_others_are_told() -> None:
    class Other:
        told = 0

        @hookimpl
        async def poll_finished(self, poll: Polled) -> None:
            self.told += 1

    async def no_event(_: int) -> None: ...

    plugins, other = Plugins(), Other()
    plugins.add("hooks", Hooks())
    plugins.add("other", other)
    Raising.at = "poll_finished"
    async with Observers(plugins, no_event) as observers:
        for Raising.error in ALL:
            observers.tell("poll_finished", poll=Polled(source="shop", endpoint="items", unit="list"))
            while observers.waiting:
                await asyncio.sleep(0)

    assert other.told == len(ALL)
    assert {failed.name for failed in plugins.failed} == {"hooks"}


class OneOfMany(Mine):
    """The source `mine7` raises the seventh of them."""

    def __init__(self, name: str, options: Empty) -> None:
        self.number = int(name.removeprefix("mine") or 0)

    def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
        raise ALL[self.number]


class Many(Hooks):
    @hookimpl
    def register_sources(self, register: Any) -> None:
        register("mine", OneOfMany)


async def test_other_sources_are_polled_whatever_a_source_raises(tmp_path: Path, upstream: Upstream) -> None:
    more = "".join(f'[sources.mine{n}]\nplugin = "mine"\nbudget = "all"\n' for n in range(1, len(ALL)))
    async with running(CONFIG + more, tmp_path, plugins={"mine": Many()}, upstream=upstream) as poller:
        stuck = await poller.sweep()
        upstream.lists["/items"] = [{"id": 1, "n": 1}]
        await poller.sweep()

        assert len(stuck) == len(ALL)
        for error in ALL:
            assert any(f"the plugin 'mine' failed in page(): {type(error).__name__}" in line for line in stuck)
        assert "shop.items.updated" in [event.type for event in poller.events]


async def test_other_sinks_are_given_events_whatever_a_sink_raises(tmp_path: Path, upstream: Upstream) -> None:
    retry = 'plugin = "mine"\nretry = [' + '"1s", ' * (len(ALL) + 1) + "]\n[[subscriptions]]\nname = "
    config = CONFIG.replace('plugin = "mine"\n[[subscriptions]]\nname = ', retry)
    async with running(config, tmp_path, plugins={"mine": Hooks()}, upstream=upstream) as poller:
        await poller.sweep()
        upstream.lists["/items"] = [{"id": 1, "n": 1}]
        Raising.error, Raising.at = ALL[0], "deliver"
        await poller.sweep()
        Raising.at = "everywhere"
        for Raising.error in ALL:
            Raising.tried = []
            await poller.advance(20_000.0)  # at least a probe of the sink that fails
            assert {"deliver", "close", "delivery_finished"} <= set(Raising.tried)
        upstream.lists["/items"] = [{"id": 1, "n": 2}]
        await poller.sweep()

        told = [event.seq for event in poller.events if event.source == "/sources/shop"]
        assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == len(told) == 2
        Raising.error = None
        await poller.advance(20_000.0)
        assert Raising.delivered[-1] == told[-1]


@pytest.mark.parametrize("error", KILLERS, ids=lambda error: type(error).__name__)
async def test_the_daemon_runs_on_whatever_a_plugin_raises_everywhere(
    shop: Shop, tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "poller.toml"
    path.write_text(CONFIG.replace("https://shop.example", shop.url))
    plugins = load_plugins()
    plugins.add("mine", Hooks())
    Raising.error, Raising.at = error, "everywhere"

    async def until(daemon: Daemon) -> None:
        while daemon.app.engine.sources["shop"].endpoints["items"].state.last_sweep is None:
            await asyncio.sleep(0.01)
        shop.items[0]["name"] = "Quince"
        while not (tmp_path / "out.jsonl").exists():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(run_daemon(load(path, plugins), plugins, until=until), PATIENCE)

    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 1
    assert {failed.origin for failed in plugins.failed} >= {"started", "stopping", "poll_finished", "transform_event"}


FORKING = """
import asyncio, fcntl, os, signal, sys, tempfile, threading, time
from poller.hooks.faults import attempted
from poller.hooks.forks import NOT_FORKED
from poller.hooks.loading import Plugins
from poller.hooks.plugin_loops import PluginLoops

def returning():
    os.fork()

def raising():
    if os.fork() == 0:
        raise ValueError

async def awaiting():
    os.fork()
    await asyncio.sleep(0)

async def signalled():
    began, begin = os.pipe()
    if (child := os.fork()) == 0:
        os.write(begin, b"!")
        time.sleep(3600)
    os.read(began, 1)
    lock.close()
    with open(lock.name) as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(child, signal.SIGTERM)
    return -os.waitpid(child, 0)[1]

async def main():
    stopped = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.append, True)
    async with PluginLoops() as loops:
        mine = loops.of("mine")
        for function in (returning, raising):
            print(attempted(function), os.wait()[1] >> 8)
        print(await mine.run(awaiting), os.wait()[1] >> 8)
        print(await mine.run(lambda: asyncio.to_thread(returning)), os.wait()[1] >> 8)
        print(await mine.run(signalled), stopped)

with tempfile.NamedTemporaryFile("r+") as file:
    lock = open(file.name)
    fcntl.flock(lock, fcntl.LOCK_EX)
    NOT_FORKED.add(lock)
    Plugins()
    asyncio.run(main())
"""


def test_a_process_that_a_plugin_forks_never_runs_the_program() -> None:
    """It ends where it would return to Poller, keeps no lock, and a signal to it is none to its parent."""
    ran = subprocess.run([sys.executable, "-uc", FORKING], capture_output=True, text=True, timeout=60, check=False)
    told = [line for line in ran.stdout.splitlines() if "plugin.forked" not in line]
    assert (ran.stderr, told) == ("", ["(None, None) 1"] * 2 + ["None 1"] * 2 + ["-15 []"])
    assert all(f"{name} (line" in ran.stdout for name in ("returning", "raising", "awaiting"))
