"""What a sweep costs, as a share of `orjson.loads` of the same bytes in the same run, in CPU time.

    python -m benchmarks.sweep [--objects 10000 100000] [--rounds 5]

Pages of 100 objects (about 370 bytes each) are ready-made bytes. `settled` is everything from an answer's bytes down to
the synced commit, with as many polls under way as the daemon has of one budget: four being asked for, twenty recorded.
`whole` is a sweep as `poller once` does it, with transport, budget and planner, from a server in a process of its own,
beside a bare http.client + orjson loop. Throughout, also for `orjson.loads` and the bare loop, Python looks for garbage
as seldom as in a process of Poller (`poller.garbage`).
Exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
from rich.console import Console
from rich.table import Table

from poller import Endpoint, Position, garbage
from poller.app import App, open_app, sweep_once
from poller.config.load import load
from poller.daemon.logs import configure
from poller.hooks.loading import load_plugins
from poller.polling.endpoint import PendingAnswer
from poller.polling.fetch import Fetcher
from poller.polling.loop import PER_CALL
from poller.polling.source_calls import SourceCalls

SIZE = 100  # objects on a page
UNDER_WAY = 4 * PER_CALL
TARGETS = {"baseline": 12.0, "unchanged": 0.9, "one changed a page": 4.0}
WHOLE_TARGET = 0.3  # CPU seconds for 10,000 unchanged objects, transport included

CONFIG = """
[poller]
listen = ""
[budgets.shop]
limits = ["1000000/s"]
[sources.shop]
plugin = "rest"
base_url = "{url}"
[sources.shop.endpoints.items]
path = "/items"
items = "$.items"
pagination = {{ type = "page", param = "page", size_param = "per_page", size = 100 }}
"""


def made(number: int, edition: int) -> dict[str, Any]:
    """An object of about 370 bytes."""
    return {
        "id": 200_000 + number,
        "type": "projects",
        "name": f"Website refresh {number}",
        "code": f"WR-{number:06}",
        "display_color": "#3f51b5",
        "status": 1,
        "description": "New public site, agreed in the kick-off meeting",
        "primary_contact_email": "office@maple.example",
        "start_date": "2026-10-01T00:00:00Z",
        "end_date": None,
        "budget": {"minutes": 6000, "amount": 1225.79},
        "billable": True,
        "edition": edition,
        "customer": 154_600 + number % 97,
    }


def each_page(objects: int, editions: dict[int, int]) -> Iterator[bytes]:
    """The pages of a list, an empty one at its end, in which the objects with these numbers are of these editions."""
    for start in range(0, objects + 1, SIZE):
        numbers = range(start, min(start + SIZE, objects))
        yield orjson.dumps({"items": [made(number, editions.get(number, 0)) for number in numbers]})


def pages_of(objects: int, editions: dict[int, int] | None = None) -> list[bytes]:
    """All pages of a list at once."""
    return list(each_page(objects, editions or {}))


def changed_once_a_page(objects: int, edition: int) -> list[bytes]:
    """The same list with one object changed on every page."""
    return pages_of(objects, {start + edition % SIZE: edition for start in range(0, objects, SIZE)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU seconds of a sweep, and of reading its bytes with orjson alone."""

    seconds: float
    loads: float

    @property
    def share(self) -> float:
        """How many times `orjson.loads`."""
        return self.seconds / self.loads


def cpu(step: Callable[[], object]) -> float:
    """CPU seconds of a step, all threads, user and system."""
    before = time.process_time()
    step()
    return time.process_time() - before


def loads_of(pages: Sequence[bytes]) -> list[float]:
    """CPU seconds to parse these bytes, each page by itself, three times."""
    return [cpu(lambda: deque(map(orjson.loads, pages), maxlen=0)) for _ in range(3)]


# What is settled of answers' bytes.


class Asked:
    """A source whose requests are ready-made: making them is the transport's side."""

    def __init__(self, source: SourceCalls) -> None:
        self._request = httpx.Request("GET", "http://127.0.0.1:1/items")
        self.page = source.page

    async def request(self, _endpoint: Endpoint, _at: Position) -> httpx.Request:
        return self._request


class Sweeper:
    """Sweeps one endpoint of an open app from ready-made answers."""

    def __init__(self, app: App) -> None:
        run = app.engine.sources["shop"]
        self._w = run.endpoints["items"]
        source = cast(SourceCalls, Asked(run.source))
        self._fetcher = Fetcher(
            source, self._answer, self._answer, store=app.store.polls, steps=app.write, clock=app.clock, apart=run.apart
        )
        self._turns = run.turns
        self._write, self._store = app.write, app.store
        self._next: httpx.Response  # what is answered next

    async def cost(self, pages: Sequence[bytes]) -> Cost:
        """What it costs to poll every page, and to read its bytes with orjson alone, before it and after it."""
        request = httpx.Request("GET", "http://127.0.0.1:1/items")
        answers = [httpx.Response(200, content=page, request=request) for page in pages]
        loads = loads_of(pages)
        before = time.process_time()
        await self.sweep(answers)
        if self._w.unchanged:
            await self._write(self._store.polls.touch, [*self._w.unchanged.values()])
        await self._write(int)  # whatever is still to be committed is, with it
        seconds = time.process_time() - before
        return Cost(seconds=seconds, loads=statistics.median([*loads, *loads_of(pages)]))

    async def sweep(self, answers: Sequence[httpx.Response]) -> None:
        """Poll every page: as many at once as a budget has under way, where the pages are known."""
        numbers = iter(range(1, len(answers) + 1))
        workers = UNDER_WAY if len(self._w.units) >= len(answers) else 1
        await asyncio.gather(*(self._work(numbers, answers) for _ in range(workers)))

    async def _work(self, numbers: Iterator[int], answers: Sequence[httpx.Response]) -> None:
        for number in numbers:
            await self.poll(number, answers[number - 1])

    async def poll(self, number: int, answer: httpx.Response) -> None:
        """Poll one page, which answers so."""
        await self.poll_unit(f"page={number}", answer)

    async def poll_unit(self, key: str, answer: httpx.Response) -> None:
        """Poll the unit of this key, which answers so."""
        w = self._w
        with w.requests.asking(key) as order:
            self._next = answer
            fetched = await self._fetcher.fetch(w, key, order)
            if fetched is not None:
                await self._turns.settle(w, PendingAnswer(key, fetched, sweep_waits=False))

    async def _answer(self, _: httpx.Request) -> httpx.Response:
        return self._next


async def settled(folder: Path, objects: int, rounds: int) -> dict[str, list[Cost]]:
    """What sweeps cost from the answers' bytes to the synced commit, by kind."""
    config, plugins = _config(folder, "http://127.0.0.1:1"), load_plugins()
    found: dict[str, list[Cost]] = {kind: [] for kind in TARGETS}
    for number in range(rounds):
        (folder / "poller.db").unlink(missing_ok=True)
        async with open_app(load(config, plugins), plugins) as app:
            sweeper = Sweeper(app)
            first = pages_of(objects)
            found["baseline"].append(await sweeper.cost(first))
            found["unchanged"].append(await sweeper.cost(first))
            found["one changed a page"].append(await sweeper.cost(changed_once_a_page(objects, number + 1)))
            assert await app.write(app.store.log.last_seq) == len(first) - 1
    return found


def _config(folder: Path, url: str) -> Path:
    path = folder / "poller.toml"
    path.write_text(CONFIG.format(url=url), encoding="utf-8")
    return path


# A whole sweep, transport included.


def serve(pages: Sequence[bytes], told: Connection) -> None:
    """Serve these pages until the process is ended."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = int(parse_qs(urlsplit(self.path).query)["page"][0])
            body = pages[page - 1] if page <= len(pages) else b'{"items":[]}'
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def upstream(pages: Sequence[bytes]) -> Iterator[int]:
    """A server of these pages in a process of its own; its port."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=serve, args=(pages, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


async def whole(folder: Path, objects: int, rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of unchanged sweeps, transport included, and of a bare loop over the same pages."""
    pages, plugins = pages_of(objects), load_plugins()
    (folder / "poller.db").unlink(missing_ok=True)
    with upstream(pages) as port:
        config = load(_config(folder, f"http://127.0.0.1:{port}"), plugins)
        async with open_app(config, plugins) as app:
            await sweep_once(app)
            sweeps, bare = [], []
            for _ in range(rounds):
                before = time.process_time()
                await sweep_once(app)
                sweeps.append(time.process_time() - before)
                bare.append(cpu(partial(_bare, port, len(pages))))
    return sweeps, bare


def _bare(port: int, pages: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for page in range(1, pages + 1):
        connection.request("GET", f"/items?page={page}&per_page=100")
        orjson.loads(connection.getresponse().read())
    connection.close()


# What is known does not make a poll dearer, nor memory larger.


async def grown(folder: Path, sizes: Sequence[int]) -> list[tuple[int, float, float, float]]:
    """(known objects, CPU microseconds of an unchanged and of a changed poll, peak megabytes) as the list grows."""
    config, plugins, rows = _config(folder, "http://127.0.0.1:1"), load_plugins(), []
    for objects in sizes:
        (folder / "poller.db").unlink(missing_ok=True)
        async with open_app(load(config, plugins), plugins) as app:
            sweeper, request = Sweeper(app), httpx.Request("GET", "http://127.0.0.1:1/items")
            for number, page in enumerate(each_page(objects, {}), 1):
                await sweeper.poll(number, httpx.Response(200, content=page, request=request))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            first = pages_of(SIZE * SIZE)[:SIZE]
            each = (await sweeper.cost(first)).seconds / SIZE * 1e6
            changed = changed_once_a_page(SIZE * SIZE, 1)[:SIZE]
            dear = (await sweeper.cost(changed)).seconds / SIZE * 1e6
        rows.append((objects, each, dear, peak))
    return rows


def main() -> int:
    """Measure, print, and say whether the targets are met."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--objects", type=int, nargs="+", default=[10_000, 100_000])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--known", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    given, console, missed = arguments.parse_args(), Console(), []
    configure("warning", "auto")
    garbage.look_seldom()
    garbage.keep_all()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # First, so that the peak is theirs: below whole lists are held in memory.
        if given.known:
            for objects, each, dear, memory in asyncio.run(grown(folder, given.known)):
                console.print(
                    f"{objects:>9,} objects known: {each:.0f} CPU us an unchanged poll, {dear:.0f} us one with a "
                    f"changed object, peak memory {memory:.0f} MB",
                    soft_wrap=True,
                )
        table = Table(title="sweeps, CPU time as a share of orjson.loads of the same bytes", title_justify="left")
        for head in ("objects", "sweep", "share", "min - max", "target"):
            table.add_column(head, justify="left" if head == "sweep" else "right")
        for objects in given.objects:
            rounds = given.rounds if objects <= 10_000 else max(1, given.rounds - 2)
            for kind, costs in asyncio.run(settled(folder, objects, rounds)).items():
                shares = [cost.share for cost in costs]
                share, target = statistics.median(shares), TARGETS[kind]
                missed += [] if share <= target else [f"{objects:,} objects, {kind}: {share:.2f} > {target}"]
                span = f"{min(shares):.2f} - {max(shares):.2f}"
                table.add_row(f"{objects:,}", kind, f"{share:.2f}", span, f"<= {target}")
        console.print(table)
        sweeps, bare = asyncio.run(whole(folder, 10_000, given.rounds))
        seconds, loop = statistics.median(sweeps), statistics.median(bare)
        console.print(
            f"a whole unchanged sweep of 10,000 objects, transport included: {seconds:.3f} CPU s (target <= "
            f"{WHOLE_TARGET}); a bare http.client + orjson loop over it: {loop:.3f} CPU s, ratio {seconds / loop:.1f}",
            soft_wrap=True,
        )
        missed += [] if seconds <= WHOLE_TARGET else [f"whole sweep: {seconds:.3f} s > {WHOLE_TARGET} s"]
    for line in missed:
        console.print(f"missed: {line}", style="red")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
