"""A simulated year: the real engine, state and delivery on a clock that jumps, restarted every month.

    python -m tests.proofs.soak.year [--months 12] [--seed 1] [--draw FILE.svg] [--samples FILE.json]

A list of 120 objects in 12 pages, 20 changes a day, 144 calls a day: what the process and its file take, and how long
changes take to be seen, as a ratio to the least that is possible for who knows every rate. Exit status 1 where one of
them grew, or where something was not told or not delivered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import structlog

from poller.app import routes_of
from poller.config.load import load
from poller.delivery.retention import LogAge
from poller.delivery.service import Deliverer
from poller.hooks.plugin_loops import PluginLoops
from poller.polling.engine import Engine
from poller.polling.threads import AtOnce
from poller.simulation.bounds import in_turn, optimum
from state.open import Inline, open_reader, open_state
from state.records import Event
from state.store import Store
from tests.proofs.power.__main__ import memory_folder
from tests.proofs.power.run import plugins_with
from tests.proofs.soak.charts import Line, Panel, draw
from tests.proofs.soak.growth import Grown, grown
from tests.truth.loop import LoopClock
from tests.truth.run import in_jumping_time

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
MONTH: Final = 365 * DAY / 12
PAGES, SIZE = 12, 10
CALLS: Final = 144  # a day
CHANGES: Final = 20 / DAY
GROWTH: Final = {
    "memory": 8.0,
    "file": 0.5,
    "delay": 0.15,
}  # MB, MB, of the least possible: what may be added in a year

CONFIG: Final = f"""
[poller]
state = "poller.db"
listen = ""
retention = "30d"
[budgets.shop]
limits = ["10/min", "{CALLS}/day"]
share = 1
[sources.shop]
plugin = "rest"
base_url = "http://shop.test"
[sources.shop.endpoints.things]
path = "/things"
pagination = {{ type = "page", size = {SIZE} }}
item_path = "/things/{{id}}"
order = "id"
absent_for = "1m"
[[subscriptions]]
name = "box"
plugin = "box"
start = "beginning"
retry = ["5s", "1m", "10m", "1h", "1h", "1h", "1h", "1h"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day's figures."""

    at: float  # days since the beginning
    memory: float  # MB, resident, of the whole simulation
    file: float  # MB, the state and its write-ahead log
    events: int  # in the log
    calls: int  # so far


@dataclass(slots=True)
class Api(httpx.AsyncBaseTransport):
    """A list in pages with busy and quiet ones, whose objects say when they changed last."""

    chance: random.Random
    things: dict[int, dict[str, Any]] = field(default_factory=dict)
    waiting: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))  # changes nobody has seen
    calls: int = 0
    told_from: float = 0.0  # changes before the first sweep was complete are part of the baseline
    rates: list[float] = field(default_factory=list)  # of pages

    def __post_init__(self) -> None:
        weights = [self.chance.lognormvariate(0.0, 1.5) for _ in range(PAGES)]
        self.rates = [CHANGES * weight / sum(weights) for weight in weights]
        for _ in range(PAGES * SIZE):
            self._put(max(self.things, default=0) + 1)
        self.waiting.clear()
        self.told_from = asyncio.get_running_loop().time() + DAY

    async def live(self) -> None:
        """Change, at random times."""
        while True:
            await asyncio.sleep(self.chance.expovariate(CHANGES))
            numbers = sorted(self.things)
            if self.chance.random() < 0.01:  # one goes and one comes
                gone = self.chance.choice(numbers)
                del self.things[gone]
                self.waiting.pop(gone, None)
                self._put(numbers[-1] + 1)
            else:
                page = self.chance.choices(range(PAGES), self.rates)[0]
                self._put(self.chance.choice(numbers[page * SIZE : (page + 1) * SIZE]))

    def _put(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        self.things[number] = {"id": number, "at": now, "text": "x" * 200}
        if now >= self.told_from:
            self.waiting[number].append(now)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one call, a tenth of a second after it came."""
        self.calls += 1
        await asyncio.sleep(0.1)
        match request.url.path.strip("/").split("/"):
            case ["things"]:
                begin = (int(request.url.params.get("page", "1")) - 1) * SIZE
                return httpx.Response(200, json=[self.things[n] for n in sorted(self.things)[begin : begin + SIZE]])
            case ["things", n] if int(n) in self.things:
                return httpx.Response(200, json=self.things[int(n)])
        return httpx.Response(404)


@dataclass(slots=True)
class Seen:
    """How long changes took to be seen, month by month."""

    api: Api
    delays: list[list[float]] = field(default_factory=list)
    known: dict[int, Any] = field(default_factory=dict)

    def recorded(self, event: Event) -> None:
        """An event shows every change of its object until then. It may be given more than once."""
        number, obj = int(event.subject.split("/")[1]), event.data["object"]
        self.known[number] = None if event.type.endswith(".deleted") else obj
        waiting = self.api.waiting[number]
        while waiting and waiting[0] <= obj["at"]:
            self.delays[-1].append(event.time - waiting.pop(0))


@dataclass(slots=True)
class Listener:
    """Whom the engine tells what it has recorded."""

    deliverer: Deliverer

    def recorded(self, numbers: list[int]) -> None:
        """See `poller.polling.engine.Listener`."""
        self.deliverer.log_grew()

    def polled(self, poll: object) -> None:
        """See `poller.polling.engine.Listener`."""


class Year:
    """Month after month on one state."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._clock = LoopClock()
        self._began = asyncio.get_running_loop().time()
        chance = random.Random(seed)
        self.api = Api(chance)
        self.seen = Seen(self.api)
        self.days: list[Day] = []
        self.problems: list[str] = []
        self._age = LogAge()
        self._plugins = plugins_with(self.seen.recorded, random.Random(seed))
        self._plugins.loops = PluginLoops(is_one=True)
        path = folder / "poller.toml"
        path.write_text(CONFIG, encoding="utf-8")
        self._config = load(path, self._plugins)

    @property
    def state(self) -> Path:
        """The file."""
        return self._folder / "poller.db"

    async def month(self) -> None:
        """One month of one process."""
        self.seen.delays.append([])
        async with self._opened() as (engine, store), _beside(self._jobs(engine, store)):
            await self._poll(engine, asyncio.get_running_loop().time() + MONTH)

    async def end(self) -> None:
        """Let it see and deliver everything."""
        async with self._opened() as (engine, _):
            await self._poll(engine, asyncio.get_running_loop().time() + 2 * DAY)

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[Engine, Store]]:
        async with open_state(self.state, now=self._clock.now(), runner=Inline()) as (store, write):
            deliverer = Deliverer(
                routes_of(self._config, self._plugins),
                store=store.deliveries,
                leases=store.leases,
                write=write,
                clock=self._clock,  # type: ignore[arg-type]  # it is never set
                finished=lambda _: None,
            )
            engine = Engine(
                self._config,
                self._plugins,
                store=store,
                write=write,
                clock=self._clock,  # type: ignore[arg-type]
                listener=Listener(deliverer),
                transport=self.api,
                apart=lambda _: AtOnce(),
            )
            stop = asyncio.Event()
            await engine.open()
            delivering = asyncio.create_task(deliverer.run(stop))
            try:
                async with _beside([_every(DAY, lambda: self._purge(deliverer, engine, store))]):
                    yield engine, store
            finally:
                stop.set()
                await delivering
                await engine.close()

    async def _purge(self, deliverer: Deliverer, engine: Engine, store: Store) -> None:
        retention, now = self._config.poller.retention, self._clock.now()
        self._age = self._age.at(now, store.log.last_seq(), retention)
        await deliverer.purge(self._age.outlived(retention), before=now - retention)
        await engine.keeper.forget_calls()

    def _jobs(self, engine: Engine, store: Store) -> list[Coroutine[Any, Any, None]]:
        return [self.api.live(), _every(HOUR, engine.keeper.save), _every(DAY, lambda: self._sample(store))]

    async def _poll(self, engine: Engine, until: float) -> None:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        [poll_loop] = engine.loops.values()
        poll_loop.poke = changed.set
        while (now := loop.time()) < until:
            changed.clear()
            await poll_loop.wake()
            due = max(0.001, min(poll_loop.next_at() - now, until - now))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), due)

    async def _sample(self, store: Store) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        sizes = [path.stat().st_size for path in (self.state, Path(f"{self.state}-wal")) if path.exists()]
        log = store.log
        self.days.append(
            Day(
                at=(asyncio.get_running_loop().time() - self._began) / DAY,
                memory=pages * 4096 / 2**20,
                file=sum(sizes) / 1e6,
                events=log.last_seq() - log.first_seq() + 1,
                calls=self.api.calls,
            )
        )

    def faults(self) -> list[str]:
        """What was not told, or not delivered."""
        with open_reader(self.state) as reader:
            ledgers, subscriptions = reader.deliveries.ledger(), reader.deliveries.subscriptions()
        found = [f"the ledger does not balance: {one}" for one in ledgers if not one.balanced]
        found += [
            f"{one.pending + one.lag} events wait for {one.name}" for one in subscriptions if one.pending + one.lag
        ]
        wrong = [number for number, obj in self.seen.known.items() if self.api.things.get(number) != obj]
        wrong += [number for number, times in self.api.waiting.items() if times and number in self.api.things]
        return found + ([f"told wrongly or not at all: {sorted(wrong)[:10]}"] if wrong else [])


@contextlib.asynccontextmanager
async def _beside(works: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Work that goes on meanwhile."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await work()


async def _run(given: argparse.Namespace) -> Year:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as name:
        year, began = Year(Path(name), given.seed), time.monotonic()
        least = optimum(year.api.rates, CALLS / DAY)
        for number in range(1, given.months + 1):
            await year.month()
            day, delays = year.days[-1], year.seen.delays[-1]
            print(
                f"month {number:2}: {day.calls:6} calls, {day.events:5} events in the log, {day.memory:4.0f} MB, "
                f"file {day.file:4.1f} MB, mean delay {math.fsum(delays) / len(delays) / 60:5.1f} min "
                f"(least {least / 60:.1f}), {time.monotonic() - began:5.0f} s",
                flush=True,
            )
        await year.end()
        year.problems = year.faults()
        return year


def main() -> int:
    """Let a year pass, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draw", type=Path, metavar="FILE.svg")
    parser.add_argument("--samples", type=Path, metavar="FILE.json")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    year = in_jumping_time(_run(given))
    delays = Delays.of(year)
    if given.samples is not None:
        figures = {"days": [asdict(day) for day in year.days], "delays": asdict(delays)}
        given.samples.write_text(json.dumps(figures), encoding="utf-8")
    if given.draw is not None:
        draw_year(year.days, delays, given.draw)
    found = growths(year.days, delays)
    for one in found:
        print(f"  {one}")
    print(f"polling in turn: {delays.in_turn / delays.least:.2f} of the least delay that is possible")
    for fault in year.problems:
        print(f"BROKEN: {fault}")
    return 1 if year.problems or any(one.is_too_much for one in found) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Mean delays, seconds."""

    months: list[float]
    least: float
    in_turn: float

    @classmethod
    def of(cls, year: Year) -> Self:
        """Those of a year."""
        calls = CALLS / DAY
        return cls(
            months=[math.fsum(month) / len(month) for month in year.seen.delays],
            least=optimum(year.api.rates, calls),
            in_turn=in_turn(calls, units=PAGES),
        )


def growths(days: Sequence[Day], delays: Delays) -> list[Grown]:
    """How each figure grew after the first third."""
    at = [day.at for day in days]
    ratios = [one / delays.least for one in delays.months]
    return [
        grown("memory", at, [day.memory for day in days], most=GROWTH["memory"]),
        grown("file", at, [day.file for day in days], most=GROWTH["file"]),
        grown("delay", list(range(len(ratios))), ratios, most=GROWTH["delay"]),
    ]


def draw_year(days: Sequence[Day], delays: Delays, path: Path) -> None:
    """A picture of the year."""
    at, months = [day.at for day in days], [(number + 0.5) * MONTH / DAY for number in range(len(delays.months))]
    panels = [
        Panel("Resident memory", "MB", [Line("the whole simulation", at, [day.memory for day in days])]),
        Panel("State on disk", "MB", [Line("file and write-ahead log", at, [day.file for day in days])]),
        Panel(
            "Mean delay until a change is seen",
            "minutes",
            [
                Line("planner", months, [one / 60 for one in delays.months]),
                Line("in turn", months, [delays.in_turn / 60] * len(months)),
                Line("least possible", months, [delays.least / 60] * len(months)),
            ],
        ),
    ]
    draw(panels, "days", path)


if __name__ == "__main__":
    sys.exit(main())
