"""Hostile answers against every place that reads from a peer: what the program ends with, uses and stands still for.

Part of `make prove-hostile`. A case is a name and an answer in bytes (`CASES`); a place is a coroutine that asks its
URL (`PLACES`). Each case is asked at each place, in a fresh process. Exit status 1 where anything was ended, more than
400 MB of memory were used, or the event loop stood still for more than 250 ms.

Stillness is the time between two turns of the loop, of which only processor time of this process counts: neither the
load of the machine nor waiting is a fault. It includes work of other threads, since what holds the interpreter's lock
keeps the loop waiting, too. A case that was too long is repeated, and its shortest run counts: a pause that an answer
causes is there each time.

    python -m tests.proofs.hostile [NAME]    only cases with NAME in their name
"""

from __future__ import annotations

import asyncio
import gzip
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import repeat
from multiprocessing.context import ForkServerContext
from pathlib import Path
from queue import Empty
from typing import Final

import brotli
import structlog

from poller.app import App, open_app
from poller.config.load import load
from poller.daemon import heartbeat
from poller.hooks.loading import load_plugins
from poller.operations.inspection import inspect
from poller.polling.poll import poll
from tests.support.raw_server import Answer, answer, answering

MEMORY: Final = 400  # MB
TRIES: Final = 3
PATIENCE: Final = 30  # seconds for one case at one place
STILL: Final = 0.25  # seconds
CHUNK: Final = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


def zipped(body: bytes) -> Answer:
    return answer(gzip.compress(body, 1), b"Content-Encoding: gzip")


def packed(times: int) -> bytes:
    """A small body that unpacks to 200 MB."""
    body = gzip.compress(bytes(200_000_000), 1)
    for _ in range(times - 1):
        body = gzip.compress(body)
    return body


CASES: Final[dict[str, Callable[[], Answer]]] = {
    "header bytes": lambda: answer(b"[]", b"X-User: J\xfcrgen", b'ETag: "\xff\xfe"', b"Link: <\xff>; rel=next"),
    "charset hex": lambda: answer(b"oops" * 100, b"Content-Type: text/html; charset=hex", status=b"503 Busy"),
    "charset idna": lambda: answer(b"x." * 50_000, b"Content-Type: text/html; charset=idna", status=b"500 Oops"),
    "redirect to a script": lambda: answer(b"", b"Location: javascript:alert(1)", status=b"302 Found"),
    "redirect to no host": lambda: answer(b"", b"Location: http://xn--/", status=b"302 Found"),
    "gzip": lambda: answer(packed(1), b"Content-Encoding: gzip"),
    "gzip in gzip in gzip": lambda: answer(packed(3), b"Content-Encoding: gzip, gzip, gzip"),
    "brotli": lambda: answer(brotli.compress(bytes(200_000_000), quality=1), b"Content-Encoding: br"),
    "millions of objects": lambda: answer(
        gzip.compress(b"[" + b"{}," * 10_000_000 + b"{}]"), b"Content-Encoding: gzip"
    ),
    "millions of numbers": lambda: answer(b"[" + b"1," * 1_900_000 + b"1]"),
    "millions of keys": lambda: answer(b'[{"id":1,"x":[' + b"{}," * 900_000 + b"{}]}]"),
    "an object of millions": lambda: zipped(b"{" + b",".join(b'"k%d":1' % n for n in range(1_900_000)) + b"}"),
    "an object of objects": lambda: zipped(b"{" + b",".join(b'"%d":{}' % n for n in range(600_000)) + b"}"),
    "keys of one object": lambda: zipped(b'[{"id":1,' + b",".join(b'"k%d":1' % n for n in range(1_900_000)) + b"}]"),
    "an id of 30 MB": lambda: zipped(b'[{"id":"' + b"x" * 30_000_000 + b'"}]'),
    "a number of 30 MB": lambda: zipped(b'[{"id":1,"n":' + b"9" * 30_000_000 + b"}]"),
    "an id of 3 million digits": lambda: zipped(b'[{"id":' + b"9" * 3_000_000 + b"}]"),
    "nested": lambda: answer(b"[" * 1_000_000),
    "nested objects": lambda: zipped(b'[{"id":1,"a":' + b'{"a":' * 400_000 + b"1" + b"}" * 400_000 + b"}]"),
    "without end": lambda: [b"HTTP/1.1 200 OK\r\n\r\n", *repeat(b"x" * 65536, 2000)],
    "chunks without end": lambda: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *repeat(CHUNK, 2000)],
    "chunks of a byte": lambda: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 200_000],
    "headers without end": lambda: [b"HTTP/1.1 200 OK\r\n", *repeat(b"X: " + b"y" * 60_000 + b"\r\n", 200)],
    "no HTTP": lambda: b"\x00\xff" * 1000,
}
CONFIG: Final = """
[poller]
state = "poller.db"
listen = ""
[budgets.b]
limits = ["1000/s"]
[sources.list]
plugin = "rest"
budget = "b"
base_url = "{url}"
timeout = "3s"
[sources.list.endpoints.things]
path = "/"
[sources.login]
plugin = "rest"
budget = "b"
base_url = "{url}"
timeout = "3s"
auth = {{ type = "oauth2", token_url = "{url}/token", client_id = "c", client_secret = "c4nary-secret" }}
[sources.login.endpoints.things]
path = "/"
[sources.behind]
plugin = "rest"
budget = "b"
base_url = "https://api.example"
proxy = "{url}"
timeout = "3s"
[sources.behind.endpoints.things]
path = "/"
"""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[App]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "poller.toml")
        file.write_text(CONFIG.format(url=url))
        plugins = load_plugins(lazily=True)
        async with open_app(load(file, plugins), plugins) as app:
            yield app


async def poll_once(url: str, source: str) -> None:
    """Poll the one list of a source."""
    async with opened(url) as app:
        run = app.engine.sources[source]
        async with await run.poll_loop.limiter.permit():
            await poll(app.engine.polling, run, run.endpoints["things"], "list")


async def look_once(url: str) -> None:
    """Look at an endpoint, as `poller check --online` and `poller try` do."""
    async with opened(url) as app:
        run = app.engine.sources["list"]
        await inspect(run, run.endpoints["things"])


PLACES: Final[dict[str, Callable[[str], Awaitable[None]]]] = {
    "list": lambda url: poll_once(url, "list"),
    "login": lambda url: poll_once(url, "login"),
    "proxy": lambda url: poll_once(url, "behind"),
    "look": look_once,
    "heartbeat": lambda url: heartbeat.call(url, patience=3.0),
}


async def stillness(over: asyncio.Event) -> float:
    """The longest time for which the loop stood still."""
    worst = 0.0
    while not over.is_set():
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(0.005)
        # What other programs take from this machine is no fault of ours: only time that this one has used counts.
        worst = max(worst, min(time.perf_counter() - began - 0.005, time.process_time() - used))
    return worst


async def asked(place: str, url: str) -> float:
    """Ask at one place. Gives the longest time for which the loop stood still."""
    over = asyncio.Event()
    watching = asyncio.create_task(stillness(over))
    await asyncio.sleep(0.05)
    try:
        await PLACES[place](url)
    finally:
        over.set()
    return await watching


def serve(case: str, found: multiprocessing.Queue[str]) -> None:
    """Serve one answer from a process of its own: what it costs the server is not ours."""

    async def run() -> None:
        given = CASES[case]()
        async with answering(lambda _: given) as url:
            found.put(url)
            await asyncio.Event().wait()

    asyncio.run(run())


def measure(place: str, url: str, found: multiprocessing.Queue[tuple[float, float] | str]) -> None:
    """One case at one place, in a fresh process: memory is the peak of this case alone."""
    structlog.configure(processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
    try:
        still = asyncio.run(asked(place, url))
        found.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, still))
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        found.put(f"ended by {type(error).__name__}: {error}")


def measured(context: ForkServerContext, place: str, url: str) -> tuple[float, float] | str:
    """The outcome of one case at one place: the best of some tries where it is not good enough."""
    best: tuple[float, float] | str = "not tried"
    for _ in range(TRIES):
        results: multiprocessing.Queue[tuple[float, float] | str] = context.Queue()
        process = context.Process(target=measure, args=(place, url, results))
        process.start()
        try:
            result = results.get(timeout=PATIENCE)
        except Empty:
            process.kill()
            return f"no end within {PATIENCE} s"
        finally:
            process.join()
        if isinstance(result, str):
            return result
        best = result if isinstance(best, str) else (min(best[0], result[0]), min(best[1], result[1]))
        if is_good(best):
            break
    return best


def is_good(result: tuple[float, float] | str) -> bool:
    return not isinstance(result, str) and result[0] <= MEMORY and result[1] <= STILL


def main() -> int:
    """Run every case at every place."""
    context, failed, began = multiprocessing.get_context("forkserver"), 0, time.monotonic()
    context.set_forkserver_preload(["tests.proofs.hostile"])
    for case in (case for case in CASES if not sys.argv[1:] or sys.argv[1] in case):
        urls = context.Queue()
        server = context.Process(target=serve, args=(case, urls), daemon=True)
        server.start()
        url = urls.get(timeout=120)
        for place in PLACES:
            result = measured(context, place, url)
            failed += not is_good(result)
            told = result if isinstance(result, str) else f"{result[0]:4.0f} MB, still for {result[1] * 1000:4.0f} ms"
            print(f"{'ok' if is_good(result) else 'FAIL':4} {place:10} {case:26} {told}", flush=True)
        server.kill()
        server.join()
    print(f"{failed} failed; {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
