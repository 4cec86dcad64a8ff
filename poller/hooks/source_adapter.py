"""Adapter of a plugin's source to the engine.

It adds defaults for what the plugin leaves out, and is the only place where the plugin's code runs. An exception
becomes a `PageError` with the plugin's name, so a mistake in a plugin costs one poll, not the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, cast

import httpx
import msgspec
from pydantic import BaseModel

from poller.budget.limits import Limit
from poller.documents.diff import dump
from poller.hooks.contracts import check_auth, check_endpoints, check_limits
from poller.hooks.faults import PluginError, is_cancelled, said, trace
from poller.hooks.plugin_loops import is_ours
from poller.late import late
from poller.redaction import SECRETS
from poller.sources.errors import FetchError
from poller.sources.protocol import Endpoint, Item, Page, PageError, Position, Unparsed
from poller.sources.unreadable import set_apart
from state.errors import PollerError

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")


T = TypeVar("T")
MOST_PAGES: Final = 100_000  # of a numbered list; a list without an end is an error
MOST_OBJECTS: Final = 10_000_000  # objects before an offset
# Exceptions of an auth flow that are not the plugin's fault: the flow ends, or its answer is cut off or never ends.
_OF_AUTH: Final = (httpx.TransportError, httpx.DecodingError, FetchError, StopAsyncIteration)
Normalise = Callable[[dict[str, Any]], dict[str, Any]]
Step = Callable[[], Coroutine[Any, Any, Any]]  # makes a coroutine, which is one step of an auth flow
RunStep = Callable[[Step], Awaitable[Any]]


class Where(Protocol):
    """Where code of a plugin runs that may block."""

    async def __call__(self, work: Callable[..., Any], *args: Any) -> Any:
        """The result of a function with these arguments."""
        ...

    async def run(self, call: Step) -> Any:
        """The result of a coroutine."""
        ...


class SourceAdapter:
    """One source of a plugin. Every method raises PageError if the plugin raises or breaks its contract."""

    Options: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, plugin: str, source: Any) -> None:
        self._plugin = plugin
        self._source = source
        self.is_ours = is_ours(type(source))
        with self._running("limits"):
            self.limits: Sequence[Limit] = getattr(source, "limits", ())
            check_limits(plugin, self.limits)
        with self._running("auth"):
            auth = getattr(source, "auth", None)
            check_auth(plugin, auth)
        self.auth = None if auth is None else PluggedAuth(auth, self._running)
        self._reading = self._running("page")
        ask = getattr(source, "item_request", None)
        self.takes_items = ask is not None and _takes(ask, 3)  # own URLs may depend on more than the id

    @classmethod
    def build(cls, plugin: str, make: Callable[[], Any]) -> SourceAdapter:
        """The source that `make` builds. Raises PageError if it cannot be built."""
        with _Running(plugin, "__init__"):
            source = make()
        return cls(plugin, source)

    def endpoints(self) -> list[Endpoint]:
        """All endpoints of the source."""
        with self._running("endpoints"):
            return [self._guarded(endpoint) for endpoint in check_endpoints(self._plugin, self._source.endpoints())]

    def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
        """The request for the list from position `at` on."""
        with self._running("request"):
            return _checked(self._source.request(endpoint, at), httpx.Request)

    def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Unparsed:
        """The page of a 2xx answer, its objects unparsed."""
        with self._reading:
            page = _checked(self._read(endpoint, at, _without_secrets(response)), Page)
            if page.next is not None:
                _refuse_endless(endpoint, at, _checked(page.next, Position))
            if page.beyond is not None:
                _refuse_endless(endpoint, at, _checked(page.beyond, Position))
            if page.total is not None:
                _checked(page.total, int)
            guessed_total = None
            if page.guessed_total is not None:
                name, count = _checked(page.guessed_total, tuple)
                guessed_total = _checked(name, str), _checked(count, int)
            doubts, guesses = tuple(map(str, page.doubts)), tuple(map(str, page.guesses))
            objects = _unparsed(page.objects)
            return Unparsed(objects, page.next, page.total, doubts, guesses, guessed_total, page.beyond)

    def _read(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> object:
        """The plugin's page of an answer. If single values make it invalid JSON, they are left out."""
        try:
            return self._source.page(endpoint, at, response)
        except PageError:
            mended = set_apart(response.content)
            if mended is None:
                raise
            with contextlib.suppress(PageError):
                return self._source.page(endpoint, at, _with_body(response, mended))
            raise

    def item_request(self, endpoint: Endpoint, object_id: str, item: Item | None = None) -> httpx.Request | None:
        """The request for an object's own URL; None if it has none, so that complete sweeps decide."""
        ask = getattr(self._source, "item_request", None)
        if ask is None:
            return None
        with self._running("item_request"):
            request = ask(endpoint, object_id, item) if self.takes_items else ask(endpoint, object_id)
            return None if request is None else _checked(request, httpx.Request)

    def discover(self) -> Generator[httpx.Request, httpx.Response, None]:
        """Requests that must be made first; none if the plugin has no `discover`."""
        discover = getattr(self._source, "discover", None)
        if discover is None:
            return
        with self._running("discover"):
            steps = _steps(discover())
        answer = None
        try:
            while True:
                with self._running("discover", StopIteration):
                    request = _checked(steps.send(answer), httpx.Request)
                answer = yield request
        except StopIteration:
            return
        finally:
            with self._running("discover"):
                steps.close()

    def asks_first(self) -> bool:
        """Whether `discover` makes any request. That of an installed plugin is not called for this: it might block."""
        if not self.is_ours:
            return hasattr(self._source, "discover")
        try:
            return next(self.discover(), None) is not None
        except PollerError:
            return True  # the first request will report what is wrong

    def _running(self, what: str, *passes: type[Exception]) -> _Running:
        return _Running(self._plugin, what, *passes)

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        normalise = endpoint.normalise
        if normalise is None:
            return endpoint

        def normalised(value: dict[str, Any], normalise: Normalise = normalise) -> dict[str, Any]:
            with self._running("normalise"):
                return cast("dict[str, Any]", _checked(normalise(value), dict))

        return replace(endpoint, normalise=normalised)


def _takes(function: Callable[..., Any], number: int) -> bool:
    """Whether it can be called with so many arguments. Answered once for a method of many sources."""
    if isinstance(function, MethodType) and isinstance(function.__func__, FunctionType):
        return _function_takes(function.__func__, number + 1)
    return _accepts(function, number)


@lru_cache(maxsize=256)
def _function_takes(function: FunctionType, number: int) -> bool:
    return _accepts(function, number)


def _accepts(function: Callable[..., Any], number: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * number)
    except (TypeError, ValueError):
        return False
    return True


class _Running:
    """Attributes exceptions to the plugin while its code runs. Entered for every request and every page."""

    __slots__ = ("_passes", "_plugin", "_what")

    def __init__(self, plugin: str, what: str, *passes: type[Exception]) -> None:
        self._plugin = plugin
        self._what = what
        self._passes: tuple[type[BaseException], ...] = (PageError, *passes)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, self._passes):
            return
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            return
        if isinstance(error, PluginError):
            raise PageError(f"the plugin {error}", hint="fix the plugin") from error
        structlog.get_logger("poller").error("plugin.raised", plugin=self._plugin, call=self._what, error=said(error))
        structlog.get_logger("poller").debug("plugin.traceback", plugin=self._plugin, trace=trace(error))
        raise PageError(
            f"the plugin {self._plugin!r} failed in {self._what}(): {said(error)}",
            hint="fix the plugin; nothing of this answer was recorded",
        ) from error


class PluggedAuth(httpx.Auth):
    """A plugin's auth flow. `run` runs each of its steps where it may block; None: on the loop of the caller."""

    def __init__(self, auth: httpx.Auth, running: Callable[..., _Running], run: RunStep | None = None) -> None:
        self._auth = auth
        self._running = running
        self._run = run

    def on(self, apart: Where) -> PluggedAuth:
        """The same flow, run by `apart` if it may block: as functions where httpx makes its coroutines."""
        kind = type(self._auth)
        if _of_httpx(kind):
            return self
        if kind.async_auth_flow is httpx.Auth.async_auth_flow:
            return PluggedAuth(self._auth, self._running, partial(apart, _completed))
        return PluggedAuth(self._auth, self._running, apart.run)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        flow = _Flow(self._auth, request)
        given: httpx.Request | httpx.Response = request
        answer = None
        try:
            while True:
                if self._run is not None:
                    await given.aread()  # its connection belongs to this loop
                with self._running("auth", *_OF_AUTH):
                    asked = _checked(await self._step(partial(flow.step, answer)), httpx.Request)
                given = answer = yield asked
        except StopAsyncIteration:
            return
        except GeneratorExit:
            with self._running("auth"):
                await self._step(flow.close)
            raise

    async def _step(self, step: Step) -> Any:
        return await (step() if self._run is None else self._run(step))


class _Flow:
    """One run of an auth flow. It is created with its first step, since a plugin's code may do that, too."""

    def __init__(self, auth: httpx.Auth, request: httpx.Request) -> None:
        self._create = partial(auth.async_auth_flow, request)
        self._flow: AsyncGenerator[httpx.Request, httpx.Response] | None = None

    async def step(self, answer: httpx.Response | None) -> httpx.Request:
        """The next request. Raises StopAsyncIteration at the end."""
        if self._flow is None:
            self._flow = self._create()
        return await (anext(self._flow) if answer is None else self._flow.asend(answer))

    async def close(self) -> None:
        """End it early."""
        if self._flow is not None:
            await self._flow.aclose()


def _of_httpx(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == httpx.__name__


def _completed(step: Step) -> Any:
    """The result of a step that waits for nothing."""
    try:
        step().send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("it waits")


def _steps(given: Any) -> Generator[httpx.Request, Any, None]:
    """The result of `discover` as a generator; the requests of other iterables are made one after the other."""
    return given if isinstance(given, Generator) else (request for request in given)


def _refuse_endless(endpoint: Endpoint, at: Position, following: Position) -> None:
    """Raise PageError for a list that does not end, because its sweep would never be complete."""
    if following.cursor is not None and following == at:
        raise PageError(f"{endpoint.name}: the next cursor is the one that was just used")
    begin = endpoint.first
    pages = abs((following.page or 0) - (begin.page or 0))
    objects = abs((following.offset or 0) - (begin.offset or 0))
    if pages > MOST_PAGES or objects > MOST_OBJECTS:
        reached = f"{pages:,} pages" if pages > MOST_PAGES else f"{objects:,} objects"
        raise PageError(
            f"{endpoint.name}: the list has not ended after {reached}", hint="does every page name a next one?"
        )


def _without_secrets(response: httpx.Response) -> httpx.Response:
    """The answer with long secrets masked, because they would be stored and sent as data of an object."""
    body = SECRETS.redacted_data(response.content)
    if body is response.content:
        return response
    return _with_body(response, body)


def _with_body(response: httpx.Response, body: bytes) -> httpx.Response:
    headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-length"]
    return httpx.Response(response.status_code, headers=headers, content=body, request=response.request)


def _checked(given: object, wanted: type[T]) -> T:
    if not isinstance(given, wanted):
        raise TypeError(f"it gave {type(given).__name__}, not {wanted.__name__}")
    return given


def _unparsed(objects: Sequence[Mapping[str, Any] | msgspec.Raw]) -> Sequence[msgspec.Raw]:
    if set(map(type, objects)) <= {msgspec.Raw}:
        return cast("Sequence[msgspec.Raw]", objects)
    return [shown if isinstance(shown, msgspec.Raw) else msgspec.Raw(dump(shown)) for shown in objects]
