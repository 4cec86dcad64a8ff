"""Hostile clients of the HTTP side: what a daemon uses and stands still for, and whether polling goes on.

Part of `make prove-hostile`. Each attack (`ATTACKS`) comes from a process of its own, against a daemon in a fresh
process that polls a list ten times a second. Exit status 1 where the daemon ended, used more than 400 MB, stood still
for more than 250 ms (measured as in `tests.proofs.hostile`), stopped polling, or did not answer afterwards.

    python -m tests.proofs.hostile_clients [NAME]    only attacks with NAME in their name
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Final
from urllib.parse import urlsplit

import httpx
import structlog

from poller.config.load import load
from poller.daemon.daemon import Daemon, run_daemon
from poller.hooks.loading import load_plugins
from tests.proofs.hostile import MEMORY, PATIENCE, STILL, TRIES, stillness
from tests.support.raw_server import answer, answering

LASTS: Final = 2.0  # seconds of one attack
CONFIG: Final = """
[poller]
state = "poller.db"
listen = "127.0.0.1:0"
[budgets.b]
limits = ["10/s"]
share = 1
[sources.list]
plugin = "rest"
budget = "b"
base_url = "{url}"
[sources.list.endpoints.things]
path = "/"
baseline = "emit"
[[subscriptions]]
name = "none"
plugin = "http"
url = "{url}/hook"
allow_private = true
"""
Result = tuple[float, float, int] | str  # MB, seconds of stillness, polls meanwhile

HEAD: Final = b"Host: 127.0.0.1\r\n"
POST: Final = b"POST /api/v1/subscriptions/none/replay HTTP/1.1\r\n" + HEAD
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def connections(url: str, count: int) -> Iterator[list[socket.socket]]:
    """As many connections as can be had."""
    at = urlsplit(url)
    found = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            found.append(socket.create_connection((at.hostname, at.port), timeout=0.2))
    yield found
    for one in found:
        one.close()


def sending(count: int, start: bytes, more: bytes = b"", *, every: float = 0.0) -> Callable[[str], None]:
    """Send a beginning on many connections, then more of it for as long as the attack lasts; answers are not read."""

    def attack(url: str) -> None:
        until = time.monotonic() + LASTS
        with connections(url, count) as opened:
            for one in opened:
                with contextlib.suppress(OSError):
                    one.sendall(start)
            while time.monotonic() < until:
                for one in opened if more else ():
                    with contextlib.suppress(OSError):
                        one.sendall(more)
                time.sleep(every if more else 0.1)

    return attack


def asking(*requests: tuple[str, str, bytes]) -> Callable[[str], None]:
    """Ask again and again, whatever is answered."""

    def attack(url: str) -> None:
        until = time.monotonic() + LASTS
        with httpx.Client(base_url=url, timeout=2.0, trust_env=False) as client:
            while time.monotonic() < until:
                for method, path, body in requests:
                    with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL):
                        client.request(method, path, content=body, headers={"content-type": "application/json"})

    return attack


def noise(url: str) -> None:
    """Bytes that are not HTTP, the same each time."""
    chance, until = random.Random(1), time.monotonic() + LASTS
    while time.monotonic() < until:
        with connections(url, 20) as opened:
            for one in opened:
                with contextlib.suppress(OSError):
                    one.sendall(chance.randbytes(chance.randrange(1, 20_000)))


ATTACKS: Final[dict[str, Callable[[str], None]]] = {
    "1100 idle connections": sending(1100, b""),
    "heads a byte at a time": sending(150, b"GET / HTTP/1.1\r\n", b"X", every=0.01),
    "heads without end": sending(20, b"GET / HTTP/1.1\r\n" + HEAD, b"X: " + b"y" * 60_000 + b"\r\n"),
    "many small headers": sending(20, b"GET / HTTP/1.1\r\n" + HEAD, b"X: y\r\n" * 5000),
    "a target without end": sending(20, b"GET /", b"x" * 65536),
    "a body of 3 GB": sending(20, POST + b"Content-Length: 3000000000\r\n\r\n", b"x" * 65536),
    "chunks without end": sending(
        20, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"
    ),
    "chunks of a byte": sending(20, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 5000),
    "answers that nobody reads": sending(200, (b"GET /api/v1/status HTTP/1.1\r\n" + HEAD + b"\r\n") * 50),
    "streams that nobody reads": sending(300, b"GET /api/v1/events/stream?after=0 HTTP/1.1\r\n" + HEAD + b"\r\n"),
    "nested bodies": asking(("POST", "/api/v1/endpoints/list/things/release", b"[" * 60_000)),
    "large numbers": asking(
        ("GET", f"/api/v1/events?after={'9' * 150}&limit=1000", b""),
        ("GET", f"/api/v1/deliveries/{'9' * 4000}", b""),
        ("POST", "/api/v1/subscriptions/none/replay", b'{"after":1e400}'),
    ),
    "globs that backtrack": asking(
        ("GET", f"/api/v1/events?type={'*a' * 90}&subject={'*a' * 90}", b""),
        ("GET", f"/api/v1/deliveries?subject={'*a' * 90}", b""),
    ),
    "plans that cost": asking(("GET", "/api/v1/plan?" + "&".join(["weight=things=999999"] * 50), b"")),
    "pages and metrics": asking(("GET", "/", b""), ("GET", "/metrics", b""), ("GET", "/openapi.json", b"")),
    "no HTTP": noise,
}


async def attacked(name: str, upstream: str) -> Result:
    """Run a daemon, have it attacked, and see how it is afterwards."""
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "poller.toml")
        file.write_text(CONFIG.format(url=upstream))
        plugins = load_plugins(lazily=True)

        async def until(daemon: Daemon) -> None:
            while daemon.url is None or daemon.app.engine.loops["b"].tasks.begun < 2:
                await asyncio.sleep(0.05)
            over = asyncio.Event()
            before, watching = daemon.app.engine.loops["b"].tasks.begun, asyncio.create_task(stillness(over))
            attacker = multiprocessing.get_context("forkserver").Process(target=attack, args=(name, daemon.url))
            await asyncio.to_thread(attacker.start)
            await asyncio.to_thread(attacker.join)
            async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
                healthy = (await client.get(f"{daemon.url}/readyz")).is_success
            over.set()
            polls, still = daemon.app.engine.loops["b"].tasks.begun - before, await watching
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found.append((memory, still, polls) if healthy and attacker.exitcode == 0 else "no answer afterwards")

        await run_daemon(load(file, plugins), plugins, until=until)
    return found[0] if found else "ended"


def attack(name: str, url: str) -> None:
    """One attack, with as many sockets as it needs."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    ATTACKS[name](url)
    os._exit(0)


def measure(name: str, upstream: str, results: multiprocessing.Queue[Result]) -> None:
    structlog.configure(processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
    try:
        results.put(asyncio.run(attacked(name, upstream)))
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        results.put(f"ended by {type(error).__name__}: {error}")


def serve(found: multiprocessing.Queue[str]) -> None:
    """The list that is polled."""

    async def run() -> None:
        async with answering(lambda _: answer(b'[{"id":1},{"id":2}]', b"Cache-Control: no-store")) as url:
            found.put(url)
            await asyncio.Event().wait()

    asyncio.run(run())


def is_good(result: Result) -> bool:
    return not isinstance(result, str) and result[0] <= MEMORY and result[1] <= STILL and result[2] >= 5


def main() -> int:
    """Run every attack."""
    context, failed, began = multiprocessing.get_context("forkserver"), 0, time.monotonic()
    context.set_forkserver_preload(["tests.proofs.hostile_clients"])
    urls = context.Queue()
    server = context.Process(target=serve, args=(urls,), daemon=True)
    server.start()
    upstream = urls.get(timeout=60)
    for name in (name for name in ATTACKS if not sys.argv[1:] or sys.argv[1] in name):
        for _ in range(TRIES):
            results = context.Queue()
            process = context.Process(target=measure, args=(name, upstream, results))
            process.start()
            try:
                result = results.get(timeout=PATIENCE)
            except Empty:
                result = f"no end within {PATIENCE} s"
                process.kill()
            process.join()
            if is_good(result):
                break
        failed += not is_good(result)
        told = (
            result
            if isinstance(result, str)
            else f"{result[0]:4.0f} MB, still for {result[1] * 1000:4.0f} ms, {result[2]} polls meanwhile"
        )
        print(f"{'ok' if is_good(result) else 'FAIL':4} client     {name:26} {told}", flush=True)
    server.kill()
    print(f"{failed} failed; {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
