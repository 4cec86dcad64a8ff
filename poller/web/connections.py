"""Connections of the HTTP side: their number, and how long each may keep the server waiting.

A connection without a running request is closed when its place is needed, so that silent connections block nobody.
uvicorn implements HTTP; it has no limit on the time for a request's head or body, or on unread answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
from dataclasses import dataclass
from typing import Any, Final

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from poller.web.answers import PROBLEM, problem

SHARE_OF_FILES: Final = 4  # a listener has at most a quarter of the files that this process may open
UNREAD: Final = 65536  # bytes that may wait for a reader before the app must wait
SENDING: Final = 65536  # bytes that the kernel buffers for a reader (it doubles them); its default is megabytes
HEAD: Final = 65536  # bytes of a request's head
ACCEPT_AGAIN: Final = 1.0  # seconds to wait when no file descriptor is left
BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nconnection: close\r\n"
    b"retry-after: 1\r\n\r\n" + problem(503, "too many connections", hint="try again in a second")
)

log = structlog.get_logger("poller")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the connections of one listener."""

    connections: int = 200
    head: float = 10.0  # seconds for a request's head
    body: float = 30.0  # seconds for its body
    stalled: float = 30.0  # seconds in which a reader must take waiting bytes


LIMITS: Final = Limits()


def most_connections(wanted: int) -> int:
    """How many connections a listener may have, so that polling never lacks a file descriptor."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // SHARE_OF_FILES))


class UnknownLength(h11.RemoteProtocolError):
    """A request with a chunked body."""


class WithLengths(h11.Connection):
    """HTTP/1.1 without chunked request bodies, which RFC 9112 allows a server to refuse (6.3).

    Parsing a chunk costs the same whether it has one byte or thousands, and happens before the token is checked: a
    quarter of a megabyte in chunks of one byte took seconds of the event loop.
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next part of a request. Raises UnknownLength before a chunked body is read."""
        event = super().next_event()
        if isinstance(event, h11.Request) and any(name == b"transfer-encoding" for name, _ in event.headers):
            raise UnknownLength("chunked", error_status_hint=411)
        return event


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 of one connection, which is closed if a head, a body or a reader takes too long."""

    limits = LIMITS
    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _awaited: float | None = None
    idle_since: float = 0.0  # loop time

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.conn = WithLengths(h11.SERVER, HEAD)
        transport.set_write_buffer_limits(high=UNREAD)
        with contextlib.suppress(OSError):  # the client has gone
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDING)
        self.idle_since = self.loop.time()
        self._await()

    def data_received(self, data: bytes) -> None:
        """Read more bytes; the protocol may now wait for another part."""
        super().data_received(data)
        self._await()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.idle_since = self.loop.time()
        super().on_response_complete()
        self._await()

    def pause_writing(self) -> None:
        """The reader does not keep up."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(self.limits.stalled, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader has caught up."""
        super().resume_writing()
        self._stalled = _cancel(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._late, self._stalled = _cancel(self._late), _cancel(self._stalled)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are for its log
        """Answer a request that is not HTTP, or whose body has no length, and close."""
        headers = [(b"content-type", PROBLEM.encode()), (b"connection", b"close")]
        status, body = 400, problem(400, "this is not a valid HTTP/1.1 request")
        if isinstance(sys.exception(), UnknownLength):
            status, body = 411, problem(411, "a body needs a Content-Length", hint="send it whole, not chunked")
        events: list[h11.Event] = [
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await(self) -> None:
        """Set the time by which the current head or body must be complete."""
        state = self.conn.their_state
        limits = self.limits
        awaited = limits.head if state is h11.IDLE else limits.body if state is h11.SEND_BODY else None
        if awaited != self._awaited:
            self._late, self._awaited = _cancel(self._late), awaited
            if awaited is not None and not self.transport.is_closing():
                self._late = self.loop.call_later(awaited, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, and return None to replace it."""
    if timer is not None:
        timer.cancel()
    return None


class BoundedServer(uvicorn.Server):
    """A uvicorn server on one socket with a limit on its connections. The daemon handles signals."""

    def __init__(self, config: uvicorn.Config, *, state: dict[str, Any], limits: Limits) -> None:
        super().__init__(config)
        self._state = state
        self._accepting: asyncio.Task[None] | None = None
        self._limits = limits
        self._most = most_connections(limits.connections)
        self._lacking = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`; no signal is caught."""
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        [listening] = sockets or []
        self.servers = []
        self._accepting = asyncio.create_task(self._accept(listening), name="http accept")
        self.started = True

    def stop_accepting(self) -> None:
        """Accept no more connections."""
        if self._accepting is not None:
            self._accepting.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and let requests end."""
        self.stop_accepting()
        if self._accepting is not None:
            await asyncio.gather(self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # no file descriptor is left, or the client has gone
                if not self._lacking:
                    log.warning("http.not_accepting", error=str(error), retry_in=ACCEPT_AGAIN)
                self._lacking = True
                await asyncio.sleep(ACCEPT_AGAIN)
                continue
            self._lacking = False
            if self._has_room():
                await self._take(loop, connection)
            else:
                _refuse(connection)

    async def _take(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # the client has gone
            connection.close()

    def _has_room(self) -> bool:
        """Whether one more connection fits. The connection that has been idle longest is closed if needed."""
        connections = self.server_state.connections
        while len(connections) >= self._most:
            idle = [one for one in self._in_order() if one.is_idle]
            if not idle:
                return False
            idle[0].transport.abort()
            connections.discard(idle[0])  # its connection_lost is called in the loop's next turn
        return True

    def _in_order(self) -> list[BoundedProtocol]:
        found = [one for one in self.server_state.connections if isinstance(one, BoundedProtocol)]
        return sorted(found, key=lambda one: one.idle_since)

    def _protocol(self) -> BoundedProtocol:
        made = BoundedProtocol(config=self.config, server_state=self.server_state, app_state=self._state)
        made.limits = self._limits
        return made


def _refuse(connection: socket.socket) -> None:
    """Answer that there are too many connections, as far as that can be written at once, and close."""
    with connection:
        try:
            connection.send(BUSY)
        except OSError:  # the client has gone, or does not read
            return
