"""Runs a sandbox on a loopback port: in the running event loop, or in a thread of its own.

    async with serving() as server:          # in an async test
        httpx.get(f"{server.url}/customers", ...)
        server.sandbox.office.edit("customers", 154600, city="Laval")

    with running() as server: ...            # the same from a thread, for code that runs its own loop

Starting and stopping take milliseconds: connections are cut, not drained.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn

from plugins.nutcache.sandbox.asgi import ROOT, Application
from plugins.nutcache.sandbox.journal import Journal
from plugins.nutcache.sandbox.office import Office
from plugins.nutcache.sandbox.sandbox import Sandbox, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running sandbox and its address."""

    origin: str  # http://127.0.0.1:PORT; `/_sandbox/` is below it
    sandbox: Sandbox

    @property
    def url(self) -> str:
        """The API's base URL, without a slash at its end."""
        return self.origin + ROOT

    @property
    def office(self) -> Office:
        return self.sandbox.office

    @property
    def journal(self) -> Journal:
        return self.sandbox.office.journal


@asynccontextmanager
async def serving(
    settings: Settings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    speed: float = 0.0,
    pace: float = 0.0,
) -> AsyncIterator[Server]:
    """Serve while the block runs. `speed` and `pace` as in `live`; without them nothing changes by itself.

    Raises OSError if the port is taken.
    """
    with _listen(host, port) as listener:
        sandbox = Sandbox(settings)
        server = await _start(sandbox, listener)
        living = asyncio.create_task(live(sandbox.office, speed=speed, pace=pace))
        try:
            yield Server(origin=f"http://{host}:{listener.getsockname()[1]}", sandbox=sandbox)
        finally:
            await _end(living)
            await _stop(server)
            sandbox.journal.close()


def _listen(host: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def _start(sandbox: Sandbox, listener: socket.socket) -> uvicorn.Server:
    config = uvicorn.Config(
        Application(sandbox, drop=lambda client: _drop(server, client)),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        date_header=False,
        server_header=False,
        timeout_keep_alive=75,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    return server


@contextmanager
def running(settings: Settings | None = None, **options: Any) -> Iterator[Server]:
    """Serve in a thread while the block runs; `options` as those of `serving`."""
    ready: list[Server] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(settings, **options) as server:
            ready.append(server)
            started.set()
            await over.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.close()
            started.set()

    with ThreadPoolExecutor(1, thread_name_prefix="sandbox") as threads:
        served = threads.submit(run)
        started.wait()
        if not ready:
            served.result()  # raises the error that prevented the start
        try:
            yield ready[0]
        finally:
            loop.call_soon_threadsafe(over.set)
            served.result()


async def live(office: Office, *, speed: float = 0.0, pace: float = 0.0) -> None:
    """Run the office in real time until cancelled.

    With `speed`, that many office seconds pass in a second, nights and weekends included. With `pace`, that many
    changes happen a second on average, day and night: quiet hours are skipped.
    """
    chance = random.Random(office.journal.clock())
    changes, last = 1, time.monotonic()
    while pace or speed:
        if pace:
            await asyncio.sleep(chance.expovariate(pace / changes))
            changes = office.step()
            continue
        await asyncio.sleep(min(1.0, max(0.001, (office.due - office.now) / speed)))
        now = time.monotonic()
        office.advance((now - last) * speed)
        last = now


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _stop(server: uvicorn.Server) -> None:
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    tasks = list(server.server_state.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)


def _drop(server: uvicorn.Server, client: Any) -> None:
    for connection in list(server.server_state.connections):
        if getattr(connection, "client", None) == tuple(client):
            connection.transport.abort()
