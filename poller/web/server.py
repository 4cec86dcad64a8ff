"""The listeners of a daemon: one on TCP where `poller.listen` says, and one on a Unix socket next to the state.

A listener is a socket together with the settings that guard it. A reload with other settings opens another listener and
then closes the old one, so no socket is ever guarded by the settings of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from poller.config.models import Settings
from poller.hooks.forks import NOT_FORKED
from poller.operations import local_socket
from poller.operations.history import SAMPLE_EVERY
from poller.operations.program import Program
from poller.web.context import HEARTBEAT, WebContext
from state.errors import PollerError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from poller.web.listener import Listener

BACKLOG: Final = 128

log = structlog.get_logger("poller")


class LateListener:
    """One socket, and what answers on it, which is imported and built when it is needed.

    That takes as long as the rest of a start, and a fifth of the memory. The socket next to the state, which has no
    `settings`, and answers without token or `Host`, waits with it for its first connection.
    """

    def __init__(
        self, listening: socket.socket, settings: Settings | None, app: Callable[[], Awaitable[ASGIApp]]
    ) -> None:
        self.listening = listening
        NOT_FORKED.add(listening)
        self.settings = settings
        self._app = app
        self._listener: Listener | None = None
        self._opening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections. A socket with settings answers when this returns: probes have little patience."""
        if self.settings is not None:
            await self._open()
            return
        self._opening = asyncio.create_task(self._open_late(), name="http")
        self._opening.add_done_callback(self._opened)

    async def _open_late(self) -> None:
        await _first_connection(self.listening)
        await self._open()

    async def _open(self) -> None:
        app = await self._app()
        from poller.web.access import Access
        from poller.web.listener import Listener

        self._listener = Listener(self.listening, app, None if self.settings is None else Access.of(self.settings))
        await self._listener.start()

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """Log why nothing answers, and refuse connections, which would wait in vain."""
        error = None if opening.cancelled() else opening.exception()
        if error is not None:
            log.error("http.not_answering", error=str(error), exc_info=error)
            self.listening.close()

    def stop_accepting(self) -> None:
        """Accept no more connections, and end streams."""
        if self._opening is not None:
            self._opening.cancel()
        if self._listener is not None:
            self._listener.stop_accepting()

    async def close(self) -> None:
        """Let requests end within the grace period, and close the socket."""
        self.stop_accepting()
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._listener is not None:
            await self._listener.close()
        self.listening.close()


async def _first_connection(listening: socket.socket) -> None:
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listening, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(listening)


class Prepared:
    """A listener for new settings: bound, but not served yet. It is either adopted or discarded."""

    def __init__(self, settings: Settings, listening: socket.socket | None, *, changes: bool = True) -> None:
        self.settings = settings
        self.listening = listening
        self.changes = changes  # False: the current listener already matches these settings

    def discard(self) -> None:
        """Discard it: the server continues unchanged."""
        if self.listening is not None:
            self.listening.close()


class HttpServer:
    """All listeners of a daemon."""

    def __init__(self, context: WebContext, settings: Settings) -> None:
        self._context = context
        self._api: ASGIApp | None = None  # once somebody has asked
        self._building = asyncio.Lock()
        self._settings = settings
        self._tcp: LateListener | None = None
        self._local: LateListener | None = None

    @property
    def url(self) -> str | None:
        """The URL of API and dashboard; None if they are switched off."""
        return None if self._tcp is None else _url(self._tcp.listening)

    def prepare(self, settings: Settings) -> Prepared:
        """Bind a listener for new settings next to the current one. Raises PollerError, with nothing changed."""
        old = self._tcp
        if settings.address is None:
            return Prepared(settings, None, changes=old is not None)
        if old is not None and settings.address == self._settings.address:
            if old.settings is not None and _guards(old.settings) == _guards(settings):
                return Prepared(settings, None, changes=False)
            return Prepared(settings, old.listening.dup())
        beside = None if old is None else old.listening
        return Prepared(settings, listen(*settings.address, beside=beside))

    async def adopt(self, prepared: Prepared) -> None:
        """Serve the prepared listener, then end the old one with all of its connections."""
        if not prepared.changes:
            self._settings = prepared.settings
            return
        old, self._tcp, self._settings = self._tcp, None, prepared.settings
        if old is not None:
            old.stop_accepting()
            self._context.ring()
        if prepared.listening is not None:
            self._tcp = LateListener(prepared.listening, prepared.settings, self._app)
            await self._tcp.start()
            log.info("http.listening", url=self.url)
        if old is not None:
            await old.close()

    async def open_local(self, listening: socket.socket) -> None:
        """Serve the socket next to the state, without token or `Host`; its file mode says who may open it."""
        self._local = LateListener(listening, None, self._app)
        await self._local.start()

    async def _app(self) -> ASGIApp:
        """What answers on every socket, built in a thread, because polling goes on meanwhile."""
        async with self._building:
            if self._api is None:
                self._api = await asyncio.to_thread(_built, self._context)
            return self._api

    async def close(self) -> None:
        """End every listener."""
        listeners = [one for one in (self._tcp, self._local) if one is not None]
        for listener in listeners:
            listener.stop_accepting()
        self._context.ring()
        await asyncio.gather(*(listener.close() for listener in listeners))


@contextlib.asynccontextmanager
async def serve(program: Program, stop: asyncio.Event, *, heartbeat: float = HEARTBEAT) -> AsyncIterator[HttpServer]:
    """Answer HTTP while the block runs. Streams end at `stop`.

    Raises PollerError if the address is not available.
    """
    _raise_file_limit()
    place = program.config.poller.state
    # Commands reach workers that share a database through the database.
    listening = local_socket.listening(place) if isinstance(place, Path) else contextlib.nullcontext()
    with WebContext(program, stop, heartbeat=heartbeat).opened() as context, listening as local:
        server = HttpServer(context, program.config.poller)
        beside = [
            asyncio.create_task(_ring_at_stop(context), name="http stop"),
            asyncio.create_task(_sample(program), name="budget samples"),
        ]
        try:
            await server.adopt(server.prepare(program.config.poller))
            if local is not None:
                await server.open_local(local)
            # Nothing runs between here and the daemon's READY, which is sent before the next await.
            context.ready = True
            yield server
        finally:
            context.ready = False
            context.closing = True
            await server.close()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)


def _built(context: WebContext) -> ASGIApp:
    import poller.web.listener  # noqa: F401 - here rather than on the event loop
    from poller.web.api import build

    return build(context)


def _guards(settings: Settings) -> tuple[object, ...]:
    """The settings that guard a socket."""
    return settings.hosts, settings.token


def _raise_file_limit() -> None:
    """Raise this process's limit of open files to the maximum that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _ring_at_stop(context: WebContext) -> None:
    await context.stop.wait()
    context.ring()


async def _sample(program: Program) -> None:
    """Remember how full the budgets are, for the dashboard."""
    while True:
        program.sample_budgets()
        await asyncio.sleep(SAMPLE_EVERY)


def listen(host: str, port: int, *, beside: socket.socket | None = None) -> socket.socket:
    """A listening socket, even if another listener of this process (`beside`) has the same port. Raises PollerError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = found[0]
        listening = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        raise PollerError(f"poller.listen: {host}:{port}: {error}", hint="write an address of this machine") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _sharing(listening, beside):
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


@contextlib.contextmanager
def _sharing(listening: socket.socket, beside: socket.socket | None) -> Iterator[None]:
    """Let both sockets have one port, for this moment only and for no other process: 0.0.0.0 and 127.0.0.1 overlap."""
    pair = () if beside is None else (listening, beside)
    for one in pair:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        yield
    finally:
        for one in pair:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
