"""A run that is recorded: a whole poller in this process; its writes, syncs and words to others are noted in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import httpx
from pydantic import BaseModel

from poller import Attempt, Event, Receipt, Rejected, hookimpl
from poller.app import App, open_app
from poller.clock import Clock, VirtualClock
from poller.config.load import load
from poller.daemon.daemon import Daemon
from poller.daemon.systemd import Notifier
from poller.hooks.loading import Plugins, load_plugins
from poller.operations.commands import execute
from poller.testing import Poller
from state.errors import PollerError
from state.open import Inline, Runner, open_reader
from tests.proofs.power.disk import Operation
from tests.proofs.power.vfs import recorded

SIZE: Final = 10  # objects on a page
MOST: Final = 45  # objects
MOST_DELETED: Final = 10  # in all: a page of which most is replaced would be kept aside, as somebody else's
STATE: Final = "poller.db"

CONFIG: Final = f"""
[poller]
state = "{STATE}"
listen = ""
[budgets.shop]
limits = ["60/s", "1000000/day"]
share = 1
[sources.shop]
plugin = "rest"
base_url = "http://shop.test"
[sources.shop.endpoints.things]
path = "/things"
pagination = {{ type = "page", size = {SIZE} }}
item_path = "/things/{{id}}"
order = "id"
baseline = "emit"
absent_for = "0s"
[sources.shop.endpoints.others]
path = "/others"
[[subscriptions]]
name = "box"
plugin = "box"
types = ["*", "poller.*"]
start = "beginning"
retry = ["50ms", "50ms", "50ms", "50ms", "50ms", "50ms", "50ms", "50ms"]
[[subscriptions]]
name = "paused"
plugin = "box"
start = "beginning"
"""


@dataclass(frozen=True, slots=True)
class Called:
    """A call has left."""


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody outside has been given an event: a sink, an observer or a client."""

    seq: int
    id: str
    raw: bytes
    time: float


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Events from before that time may be forgotten from now on, and what was not given of them by now is dropped."""

    before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a client was shown of the state."""

    last_seq: int
    ended: frozenset[tuple[int, str]]  # deliveries that are delivered or dead
    sweeps: frozenset[tuple[str, float]]  # endpoints and when their latest sweep ended


@dataclass(frozen=True, slots=True)
class Commanded:
    """A command was asked for, or done: what it is about, and how that is now; None: it is on its way."""

    subject: str
    outcome: str | None


Mark = Called | Told | Forgetting | Shown | Commanded
Entry = Operation | Mark


class Api(httpx.AsyncBaseTransport):
    """Two lists in memory, and the calls that it was asked."""

    def __init__(self, seed: int, called: Callable[[], None]) -> None:
        self.things: dict[int, dict[str, Any]] = {}
        self.history: defaultdict[str, list[Any]] = defaultdict(lambda: [None])
        self.changes = 0
        self.called = called
        self._random = random.Random(seed)
        self._edits = itertools.count(1)
        self._deleted = 0
        for number in range(1, 26):
            self._put(number)

    def change(self) -> None:
        """Let one thing happen."""
        self.changes += 1
        act = self._random.choice(("create", "edit", "edit", "edit", "delete"))
        if act == "create" and len(self.things) < MOST:
            self._put(len(self.history) + 1)
        elif act == "delete" and self._deleted < MOST_DELETED:
            number = self._random.choice(sorted(self.things))
            self._deleted += 1
            del self.things[number]
            self.history[f"things/{number}"].append(None)
        else:
            self._put(self._random.choice(sorted(self.things)))

    def _put(self, number: int) -> None:
        self.things[number] = {"id": number, "name": f"edit {next(self._edits)}", "text": "x" * 300}
        self.history[f"things/{number}"].append(self.things[number])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one call."""
        self.called()
        await asyncio.sleep(0)
        match request.url.path.strip("/").split("/"):
            case ["things"]:
                begin = (int(request.url.params.get("page", "1")) - 1) * SIZE
                return httpx.Response(200, json=[self.things[n] for n in sorted(self.things)[begin : begin + SIZE]])
            case ["things", n] if int(n) in self.things:
                return httpx.Response(200, json=self.things[int(n)])
            case ["others"]:
                return httpx.Response(200, json=[{"id": 1, "note": next(self._edits)}])
        return httpx.Response(404)


@dataclass(slots=True)
class Tape:
    """What happened, in order."""

    entries: list[Entry] = field(default_factory=list)

    def told(self, event: Event) -> None:
        """Note that somebody outside is given an event."""
        self.entries.append(Told(event.seq, event.id, event.raw, event.time))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A run that is over."""

    entries: Sequence[Entry]
    api: Api  # as it is in the end
    ended: float  # Unix seconds of the run's clock


class NoOptions(BaseModel):
    """Nothing to set."""


class Box:
    """A sink that notes what it is given, and fails now and then."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    given: ClassVar[Callable[[Event], None]]
    chance: ClassVar[random.Random | None]  # None: it fails no more

    def __init__(self, name: str, options: BaseModel) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:
        """Take them, or fail."""
        for event in events:
            type(self).given(event)
        luck = self.chance.random() if self.chance is not None else 1.0
        if luck < 0.03:
            raise Rejected(Receipt("no"))
        if luck < 0.1:
            raise OSError("gone")
        return Receipt("ok")


class Observer:
    """A plugin: the sink, and an observer of what is recorded."""

    def __init__(self, sink: type[Box]) -> None:
        self._sink = sink

    @hookimpl
    def register_sinks(self, register: Callable[[str, type], None]) -> None:
        """Name the sink."""
        register("box", self._sink)

    @hookimpl
    def event_recorded(self, event: Event) -> None:
        """Note it."""
        self._sink.given(event)


def plugins_with(given: Callable[[Event], None], chance: random.Random | None) -> Plugins:
    """The installed plugins, and a box of one's own."""
    sink = type("OwnBox", (Box,), {"given": staticmethod(given), "chance": chance})
    loaded = load_plugins(lazily=True)
    loaded.add("box", Observer(sink))
    return loaded


@contextlib.asynccontextmanager
async def opened(
    folder: Path, plugins: Plugins, api: Api, *, clock: Clock | None = None, runner: Runner | None = None
) -> AsyncIterator[App]:
    """The app on the state of this folder."""
    path = folder / "poller.toml"
    path.write_text(CONFIG, encoding="utf-8")
    async with open_app(load(path, plugins), plugins, clock=clock, runner=runner, transport=api) as app:
        yield app


async def record(folder: Path, *, lives: int, changes: int, seed: int) -> Recording:
    """Record some lives of a daemon, one after the other."""
    tape = Tape()
    api = Api(seed, lambda: tape.entries.append(Called()))
    plugins = plugins_with(tape.told, random.Random(seed))
    with recorded(folder, tape.entries.append, sync_seconds=0.001):
        for _ in range(lives):
            async with opened(folder, plugins, api) as app:
                await _live(app, api, tape, changes)
    api.called = lambda: None
    return Recording(entries=tape.entries, api=api, ended=time.time())


async def record_sweeps(folder: Path, *, lives: int, sweeps: int, seed: int) -> Recording:
    """The same on a clock that only moves when it is told to, sweep by sweep: always the same run."""
    tape = Tape()
    api = Api(seed, lambda: tape.entries.append(Called()))
    plugins, clock = plugins_with(tape.told, random.Random(seed)), VirtualClock()
    with recorded(folder, tape.entries.append):
        for _ in range(lives):
            async with opened(folder, plugins, api, clock=clock, runner=Inline()) as app:
                poller = Poller(app, clock)
                await _forget(app, tape, before=clock.now())
                for number in range(sweeps):
                    await poller.sweep()
                    api.change()
                    await poller.advance(1.0)
                    tape.entries.append(shown(folder / STATE))
                    await _command(app, tape, number)
    api.called = lambda: None
    return Recording(entries=tape.entries, api=api, ended=clock.now())


async def _live(app: App, api: Api, tape: Tape, changes: int) -> None:
    """One life: the API changes, clients look, an operator gives commands."""
    daemon = Daemon(app, reload=lambda: app.config, notifier=Notifier({}))
    running = asyncio.create_task(daemon.run())
    for number in range(changes):
        await asyncio.sleep(0.02)
        api.change()
        if number % 3 == 0:
            tape.entries.append(shown(app.config.path.parent / STATE))
        if number % 10 == 0:
            await _command(app, tape, number // 10)
        if number % 50 == 49:
            await _forget(app, tape, before=app.clock.now() - 2.0)
        if running.done():
            break
    daemon.stop.set()
    await running


async def _forget(app: App, tape: Tape, *, before: float) -> None:
    """Forget old events, as the daemon does every half an hour, and let `box` go on.

    On a slow machine some of the events were not delivered to it yet: they are dropped, and it is disabled.
    """
    tape.entries.append(Forgetting(before))
    log = await app.write(app.store.log.read, limit=1_000_000)
    await app.deliverer.purge(max((event.seq for event in log if event.time < before), default=0), before=before)
    await _done(app, tape, "box", "resume", {"subscription": "box"}, "active")


async def _command(app: App, tape: Tape, number: int) -> None:
    """Give the next of four commands."""
    subject, name, args, outcome = (
        ("paused", "pause", {"subscription": "paused"}, "paused"),
        ("others", "hold", {"endpoint": "shop/others"}, "held"),
        ("paused", "resume", {"subscription": "paused"}, "active"),
        ("others", "release", {"endpoint": "shop/others"}, "released"),
    )[number % 4]
    await _done(app, tape, subject, name, args, outcome)


async def _done(app: App, tape: Tape, subject: str, name: str, args: dict[str, str], outcome: str) -> None:
    """Do a command, and note what it is about and how that is from now on."""
    tape.entries.append(Commanded(subject, None))
    try:
        await execute(app, name, args)
    except PollerError:
        return  # it was not held yet
    tape.entries.append(Commanded(subject, outcome))


def shown(state: Path) -> Shown:
    """What a client sees of it now."""
    with open_reader(state) as reader:
        return Shown(
            last_seq=reader.log.last_seq(),
            ended=frozenset(
                (one.id, one.state)
                for one in reader.deliveries.deliveries(states=("delivered", "dead"), limit=1_000_000)
            ),
            sweeps=frozenset(
                (row["endpoint"], row["last_sweep"])
                for row in reader.polls.endpoints()
                if row["last_sweep"] is not None
            ),
        )
