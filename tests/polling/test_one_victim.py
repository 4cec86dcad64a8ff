"""Whatever a source plugin or the network raises fails one poll of one source: every exception class in turn."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog

from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.hooks.source_adapter import SourceAdapter
from poller.polling.poll import discover, poll
from poller.sources.protocol import Endpoint, PageError, Position

CONFIG = """
[poller]
state = "poller.db"
listen = ""
plugins_dir = "plugins.d"
[budgets.one]
limits = ["100000/s"]
[sources.bad]
plugin = "raising"
budget = "one"
[sources.good]
plugin = "rest"
budget = "one"
base_url = "http://good.example"
[sources.good.endpoints.things]
path = "/things"
"""
PLUGIN = """
import httpx
from pydantic import BaseModel
from poller import Endpoint, Limit, Page, hookimpl

class Raising:
    class Options(BaseModel): pass
    limits = (Limit(100000, 1.0),)
    auth = None
    raises = {}

    def __init__(self, name, options): pass

    def _may_raise(self, where):
        if where in self.raises:
            raise self.raises[where]

    def endpoints(self):
        return [Endpoint(name="things")]

    def request(self, endpoint, at):
        self._may_raise("request")
        return httpx.Request("GET", "http://bad.example/things")

    def page(self, endpoint, at, response):
        self._may_raise("page")
        return Page(response.json())

    def item_request(self, endpoint, object_id):
        return None

    def discover(self):
        self._may_raise("discover")
        yield httpx.Request("GET", "http://bad.example/me")
        self._may_raise("discovered")

@hookimpl
def register_sources(register):
    register("raising", Raising)
"""


class Unspeakable(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Unstorable(Exception):
    """An error whose text no database takes."""

    def __str__(self) -> str:
        return "\ud800\x00" * 100_000


def exception_classes(root: type[BaseException] = BaseException) -> Iterator[type[BaseException]]:
    """Every class of the standard library that is imported here, and two that are worse."""
    if root is BaseException:
        yield from (Unspeakable, Unstorable)
    if root.__module__.partition(".")[0] in sys.stdlib_module_names:
        yield root
    for cls in root.__subclasses__():
        yield from exception_classes(cls)


CLASSES = sorted(set(exception_classes()), key=lambda cls: (cls.__module__, cls.__name__))


def made(cls: type[BaseException]) -> BaseException:
    if issubclass(cls, BaseExceptionGroup):
        return cls("raised", [ValueError("inner")])
    try:
        return cls("raised")
    except Exception:  # noqa: BLE001 - it wants other arguments
        return cls.__new__(cls)


@pytest.fixture(autouse=True)
def logs():
    with structlog.testing.capture_logs() as found:
        yield found


class Network(httpx.AsyncBaseTransport):
    """Two servers. What `bad.example` does is to raise `error`, where there is one."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.body_error: BaseException | None = None
        self.answered = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "bad.example" and self.error is not None:
            raise self.error
        self.answered += 1
        error = self.body_error if request.url.host == "bad.example" else None
        return httpx.Response(200, stream=Body(self.answered, error))


class Body(httpx.AsyncByteStream):
    def __init__(self, number: int, error: BaseException | None) -> None:
        self._number, self._error = number, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'[{"id": 1, "seen": %d}' % self._number
        if self._error is not None:
            raise self._error
        yield b"]"


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[App, Network, dict[str, BaseException]]]:
    (folder / "plugins.d").mkdir()
    (folder / "plugins.d" / "raising.py").write_text(PLUGIN)
    (folder / "poller.toml").write_text(CONFIG)
    plugins = load_plugins(folder / "plugins.d", lazily=True)
    network = Network()
    async with open_app(load(folder / "poller.toml", plugins), plugins, transport=network) as app:
        assert await sweep_once(app) == []
        yield app, network, app.engine.sources["bad"].source._source._source.raises


async def look(app: App, name: str) -> str | None:
    run = app.engine.sources[name]
    w = run.endpoints["things"]
    async with await run.poll_loop.limiter.permit():
        await poll(app.engine.polling, run, w, "list")
    return w.units["list"].error if w.units["list"].failures else None


@pytest.mark.parametrize("where", ["request", "page"])
async def test_whatever_a_plugin_raises_fails_its_own_poll(where, tmp_path):
    async with running(tmp_path) as (app, _, raises):
        for cls in CLASSES:
            raises[where] = made(cls)
            assert await look(app, "bad") is not None, cls
            assert await look(app, "good") is None, cls
        raises.clear()
        assert await look(app, "bad") is None


@pytest.mark.parametrize("where", ["discover", "discovered"])
async def test_whatever_discovery_raises_fails_discovery_alone(where, tmp_path):
    async with running(tmp_path) as (app, _, raises):
        run = app.engine.sources["bad"]
        for cls in CLASSES:
            raises[where] = made(cls)
            run.discovery.is_done = False
            await discover(app.engine.polling, run)
            assert not run.discovery.is_done, cls
            assert await look(app, "good") is None, cls
        raises.clear()
        await discover(app.engine.polling, run)
        assert run.discovery.is_done


@pytest.mark.parametrize("part", ["error", "body_error"])
async def test_whatever_the_network_raises_fails_the_poll_that_asked(part, tmp_path):
    async with running(tmp_path) as (app, network, _):
        for cls in CLASSES:
            if issubclass(cls, Exception):
                setattr(network, part, made(cls))
                assert await look(app, "bad") is not None, cls
                assert await look(app, "good") is None, cls
        setattr(network, part, None)
        assert await look(app, "bad") is None
        assert app.engine.loops["one"].budget.in_flight == 0


class Auth(httpx.Auth):
    def __init__(self, error: BaseException, *, late: bool) -> None:
        self._error, self._late = error, late

    def auth_flow(self, request):
        if self._late:
            yield request
        raise self._error


class WithAuth:
    def __init__(self, auth: httpx.Auth) -> None:
        self.auth = auth


@pytest.mark.parametrize("late", [False, True])
async def test_whatever_an_auth_flow_raises_is_said_to_be_the_plugins(late):
    for cls in CLASSES:
        if issubclass(cls, StopAsyncIteration | GeneratorExit):
            continue  # how a flow ends
        source = SourceAdapter("raising", WithAuth(Auth(made(cls), late=late)))
        client = httpx.AsyncClient(auth=source.auth, transport=httpx.MockTransport(lambda request: httpx.Response(200)))
        async with client:
            with pytest.raises(PageError, match="'raising' failed in auth"):
                await client.get("http://bad.example/")


async def test_a_real_cancellation_passes_through_the_plugins_code():
    started = asyncio.Event()

    class PendingAnswer(httpx.Auth):
        async def async_auth_flow(self, request):
            started.set()
            await asyncio.Event().wait()
            yield request

    source = SourceAdapter("waiting", WithAuth(PendingAnswer()))
    async with httpx.AsyncClient(auth=source.auth) as client:
        task = asyncio.create_task(client.get("http://bad.example/"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("given", [None, 1, "http://bad.example", [], object()])
async def test_a_plugin_that_gives_something_else_than_a_request_or_page_fails_its_poll(given):
    class Odd:
        def request(self, endpoint, at):
            return given

        def page(self, endpoint, at, response):
            return given

        def discover(self):
            yield given

    source = SourceAdapter("odd", Odd())
    with pytest.raises(PageError):
        source.request(Endpoint(name="x"), Position())
    with pytest.raises(PageError):
        source.page(Endpoint(name="x"), Position(), httpx.Response(200))
    with pytest.raises(PageError):
        next(source.discover())
