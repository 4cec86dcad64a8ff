"""Deliveries to a callback on loopback, beside a bare aiohttp loop that posts the same signed bytes.

    python -m benchmarks.delivery [--rounds 5] [--events 4000]

The receiver is a process of its own and says 204; the state is a real file with every commit synced. Rounds of the
bare loop and of deliveries take turns, so that a neighbour of this machine disturbs both. In both, Python looks for
garbage as seldom as in a process of Poller (`poller.garbage`). Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import aiohttp
import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.receiver import receiving
from plugins.http import HttpSink, signature
from poller import garbage
from poller.clock import SystemClock
from poller.delivery.service import Deliverer
from poller.delivery.subscription import Route, Subscription
from poller.events.cloudevents import CONTENT_TYPE, structured
from poller.hooks.payloads import AttemptFinished
from poller.sinks.protocol import Sink
from state.records import Event, NewEvent
from state.sqlite.store import Store
from state.sqlite.writer import Writer

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
IN_FLIGHT = 32
SUBSCRIPTIONS = 20
RATE, RATIO, MEDIAN = 1000.0, 0.35, 0.020  # targets: events per second, of the bare loop, seconds at low load


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Deliveries per second, and what each cost this process."""

    rate: float
    cpu: float  # seconds for one


def make_event(number: int) -> NewEvent:
    """An event of 1 kB as it leaves."""
    note = b"x" * 700
    return NewEvent(
        id=f"event{number:021d}",
        source="/sources/acme",
        type="nutcache.projects.updated",
        subject=f"projects/{number}",
        time=time.time(),
        observed_after=None,
        raw=b'{"object":{"id":%d,"note":"%s"},"version":1,"changes":[]}' % (number, note),
    )


@contextlib.asynccontextmanager
async def opened(path: Path, routes: Sequence[Route], observe: Callable[[AttemptFinished], None]) -> AsyncIterator[Any]:
    """A state and a deliverer, on files and threads as the daemon has them."""
    with Writer() as write:
        store = await write(Store.open, path, now=time.time())
        write.share_commits(store.group)
        yield (
            store,
            write,
            Deliverer(
                routes, store=store.deliveries, leases=store.leases, write=write, clock=SystemClock(), finished=observe
            ),
        )
        await write(store.close)


def route_to(name: str, url: str, *, start: str = "beginning") -> Route:
    """A subscription of the `http` sink, signed."""
    options = HttpSink.Options.model_validate({"url": f"{url}/{name}", "secret": SECRET, "allow_private": True})
    subscription = Subscription(name=name, start=start, concurrency=IN_FLIGHT)
    return Route(subscription=subscription, open_sink=cast("Callable[[], Sink]", partial(HttpSink, name, options)))


async def deliveries(folder: Path, url: str, events: int, subscriptions: int) -> Speed:
    """A backlog of so many events for each of so many subscriptions, from the first to the last answer."""
    left, done = events * subscriptions, asyncio.Event()

    def observe(finished: AttemptFinished) -> None:
        nonlocal left
        left -= finished.state == "delivered"
        if not left:
            done.set()

    routes = [route_to(f"crm{n}", url) for n in range(subscriptions)]
    async with opened(folder / f"{time.time_ns()}.db", routes, observe) as (store, write, deliverer):
        await write(store.log.append, [make_event(number) for number in range(events)])
        stop = asyncio.Event()
        began, cpu = time.perf_counter(), time.process_time()
        running = asyncio.create_task(deliverer.run(stop))
        await done.wait()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        stop.set()
        await running
        books = await write(store.delivery_reader.ledger)
        assert all(one.balanced and one.delivered == events for one in books), books
    return Speed(rate=events * subscriptions / seconds, cpu=cpu / (events * subscriptions))


async def bare(url: str, events: int) -> Speed:
    """The same bytes and headers, ready made, posted by a loop that does nothing else."""
    posts = [_signed(Event(seq=number, **vars(make_event(number)))) for number in range(events)]
    left = iter(posts)
    began, cpu = time.perf_counter(), time.process_time()

    async def post(session: aiohttp.ClientSession) -> None:
        for body, headers in left:
            async with session.post(f"{url}/bare", data=body, headers=headers) as response:
                await response.read()
                assert response.status == 204

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
        await asyncio.gather(*(post(session) for _ in range(IN_FLIGHT)))
    return Speed(rate=events / (time.perf_counter() - began), cpu=(time.process_time() - cpu) / events)


def _signed(event: Event) -> tuple[bytes, dict[str, str]]:
    body, now = structured(event), int(time.time())
    return body, {
        "Content-Type": CONTENT_TYPE,
        "webhook-id": event.id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(event.id, now, body, [SECRET]),
    }


async def waits(path: Path, routes: Sequence[Route], events: int, per_second: float = 10.0) -> list[float]:
    """Seconds from recorded to delivered to the first of the subscriptions, one event at a time, with rests between."""
    arrived: dict[str, float] = {}
    recorded: dict[str, float] = {}

    def observe(finished: AttemptFinished) -> None:
        if finished.subscription == routes[0].subscription.name:
            arrived[finished.jobs[0].event.id] = time.perf_counter()

    async with opened(path, routes, observe) as (store, write, deliverer):
        stop = asyncio.Event()
        running = asyncio.create_task(deliverer.run(stop))
        await asyncio.sleep(2.0)  # what was there before is read on
        for _ in range(events):
            await asyncio.sleep(1 / per_second)
            event = make_event(time.time_ns())
            await write(store.log.append, [event])
            recorded[event.id] = time.perf_counter()
            deliverer.log_grew()
        await asyncio.sleep(0.5)
        stop.set()
        await running
    return sorted(arrived[id_] - at for id_, at in recorded.items())


async def measure(rounds: int, events: int, console: Console) -> bool:
    """Take turns, print what came of it, and say whether every target is met."""
    loops: list[Speed] = []
    singles: list[Speed] = []
    many: list[Speed] = []
    with tempfile.TemporaryDirectory() as name, receiving() as url:
        folder = Path(name)
        await bare(url, 500)  # warm
        for _ in range(rounds):
            loops.append(await bare(url, events))
            singles.append(await deliveries(folder, url, events, 1))
            many.append(await deliveries(folder, url, max(1, events // 10), SUBSCRIPTIONS))
        low = await waits(folder / "low.db", [route_to("crm", url)], 50)
    ratio = statistics.median(single.rate / loop.rate for single, loop in zip(singles, loops, strict=True))
    cost = statistics.median(loop.cpu / single.cpu for single, loop in zip(singles, loops, strict=True))
    rate, median = statistics.median(speed.rate for speed in singles), statistics.median(low)
    table = Table("", "events/s", "µs of this process's time per event")
    for name, speeds in (("bare aiohttp loop", loops), ("1 subscription", singles), (f"{SUBSCRIPTIONS}", many)):
        middle = sorted(speeds, key=lambda speed: speed.rate)[len(speeds) // 2]
        table.add_row(name, f"{middle.rate:,.0f}", f"{middle.cpu * 1e6:.0f}")
    console.print(table)
    console.print(
        f"1 subscription beside the bare loop at {IN_FLIGHT} in flight: {ratio:.2f} (target {RATIO}), "
        f"by CPU time {cost:.2f}"
    )
    console.print(f"recorded to delivered at low load: {median * 1000:.1f} ms median, {low[-1] * 1000:.1f} ms at most")
    return rate >= RATE and ratio >= RATIO and median < MEDIAN


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--events", type=int, default=4000)
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    garbage.look_seldom()
    garbage.keep_all()
    return 0 if asyncio.run(measure(given.rounds, given.events, Console())) else 1


if __name__ == "__main__":
    sys.exit(main())
