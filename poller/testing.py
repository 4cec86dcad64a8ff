"""Test tools for plugins: sample events, an upstream in memory, and a poller on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx

from poller.app import App, open_app, sweep_once
from poller.clock import VirtualClock
from poller.config.load import load
from poller.events.events import change_event
from poller.hooks.loading import load_plugins
from state.deliveries import Delivery
from state.open import Inline
from state.records import Change, Event, FieldChange, Kind

NOON = 1_795_000_000.0  # start of a test, in Unix seconds
_STEP = 1.0  # seconds that the clock advances at a time while a sweep waits for its budget

T = TypeVar("T")


def make_event(
    object: Mapping[str, Any] | None = None,
    *,
    kind: Literal["created", "updated", "deleted"] = "updated",
    changes: Mapping[str, tuple[Any, Any]] | None = None,
    source: str = "acme",
    endpoint: str = "items",
    version: int = 1,
    seq: int = 1,
) -> Event:
    """An event as the engine would record it; `changes` maps JSON Pointers to the values before and after."""
    object = {"id": 1, "name": "B"} if object is None else object
    change = Change(
        kind=Kind(kind),
        object_id=str(object.get("id", 1)),
        version=version,
        object=object,
        fields=tuple(
            FieldChange(path=path, before=before, after=after) for path, (before, after) in (changes or {}).items()
        ),
        observed_after=NOON - 60.0,
        observed_at=NOON,
    )
    return Event(seq=seq, **vars(change_event(change, source=source, namespace=source, endpoint=endpoint)))


@dataclass(slots=True)
class Upstream:
    """JSON API in memory: GET `/items` returns the list, `/items/ID` one of its objects, or `status` if it is set.

    Override `answer` for an API of another form, or to give wrong answers.
    """

    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by path
    status: int | None = None
    requests: list[httpx.Request] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        path = request.url.path
        parent, _, key = path.rpartition("/")
        if self.status is not None:
            return httpx.Response(self.status)
        if path in self.lists:
            return httpx.Response(200, json=self.lists[path])
        found = [one for one in self.lists.get(parent, ()) if str(one.get("id")) == key]
        return httpx.Response(200, json=found[0]) if found else httpx.Response(404)

    def empty(self) -> httpx.Response:
        """The empty list that follows the last page."""
        return httpx.Response(200, json=[])


class Poller:
    """Poller under test: it only does what the test asks for."""

    def __init__(self, app: App, clock: VirtualClock) -> None:
        self.app = app
        self.clock = clock

    async def sweep(self) -> list[str]:
        """Poll everything once, deliver what is due, and return a message for each endpoint that could not be
        polled.
        """
        self.clock.advance(_STEP)  # so that later observations have a later time
        stuck = await self._moving(sweep_once(self.app))
        await self.deliver()
        return stuck

    async def deliver(self) -> None:
        """Deliver everything that is due."""
        await self.app.deliverer.drain()

    async def advance(self, seconds: float) -> None:
        """Advance the clock and deliver what is due by then."""
        self.clock.advance(seconds)
        await self.deliver()

    @property
    def events(self) -> list[Event]:
        """The events of the log."""
        return self.app.store.log.read(limit=1_000_000)

    @property
    def deliveries(self) -> list[Delivery]:
        """Every delivery with its state, the oldest first."""
        return self.app.store.delivery_reader.deliveries(limit=1_000_000)[::-1]

    async def _moving(self, work: Coroutine[Any, Any, T]) -> T:
        """Await the work while the clock advances by itself."""
        task = asyncio.create_task(work)
        while not (await asyncio.wait([task], timeout=0.001))[0]:
            waking = self.clock.next_waking()
            self.clock.advance(_STEP if waking is None else min(_STEP, max(0.0, waking - self.clock.steady())))
            for poll_loop in self.app.engine.loops.values():
                poll_loop.poke()
        return task.result()


@asynccontextmanager
async def running(
    config: str, folder: Path, *, plugins: Mapping[str, object] | None = None, upstream: Upstream | None = None
) -> AsyncIterator[Poller]:
    """A poller with this `poller.toml`, its files in `folder`, and these plugin objects besides the installed ones.

    Every source calls `upstream` instead of the network. Raises PollerError, like `poller check`.
    """
    path = folder / "poller.toml"
    path.write_text(config, encoding="utf-8")
    loaded = load_plugins()
    for name, plugin in (plugins or {}).items():
        loaded.add(name, plugin)
    clock = VirtualClock(NOON)
    transport = None if upstream is None else httpx.MockTransport(upstream.answer)
    async with open_app(load(path, loaded), loaded, clock=clock, runner=Inline(), transport=transport) as app:
        yield Poller(app, clock)
