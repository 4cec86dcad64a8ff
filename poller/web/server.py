"""uvicorn, embedded: it leaves the signals alone and ends with the daemon's stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn

from poller.app import App
from poller.web.api import build
from poller.web.context import HEARTBEAT, Site
from state.errors import PollerError

BACKLOG = 128
GRACE = 3  # seconds in which requests may end

log = structlog.get_logger("poller")


class _Server(uvicorn.Server):
    """A server that belongs to somebody: signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(app: App, stop: asyncio.Event, *, heartbeat: float = HEARTBEAT) -> AsyncIterator[str | None]:
    """Answer HTTP while the block runs; gives the URL, None where it is switched off. Streams end at `stop`.

    Raises PollerError when the address cannot be had.
    """
    address = app.config.poller.address
    if address is None:
        yield None
        return
    with Site(app, stop, heartbeat=heartbeat).opened() as site, contextlib.closing(_listen(*address)) as listening:
        async with _running(site, listening):
            url = _url(listening)
            log.info("http.listening", url=url)
            # Nothing runs between here and the daemon's READY: it says so before it next waits for anything.
            site.ready = True
            try:
                yield url
            finally:
                site.ready = False


@contextlib.asynccontextmanager
async def _running(site: Site, listening: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        build(site),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    ringing = asyncio.create_task(_ring_at_stop(site), name="http stop")
    try:
        while not (server.started or serving.done()):
            await asyncio.sleep(0.005)
        yield
    finally:
        site.closing = True
        site.ring()
        server.should_exit = True
        ringing.cancel()
        await asyncio.gather(ringing, return_exceptions=True)
        await serving


async def _ring_at_stop(site: Site) -> None:
    await site.stop.wait()
    site.ring()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, number)
    except OSError as error:
        raise PollerError(f"poller.listen: {host}:{port}: {error}", hint="write an address of this machine") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise PollerError(
            f"poller.listen: cannot listen on {host}:{port}: {error.strerror}",
            hint='is another poller running? choose another port, or switch it off with listen = ""',
        ) from error
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
