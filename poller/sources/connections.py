"""Connections to servers, each for one request after the other: HTTP/1.1 by h11, on asyncio's own transports.

httpx's own transport does the same by httpcore and anyio, which take four times as long for a short answer. Proxies are
left to it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import h11
import httpx

IDLE: Final = 60.0  # seconds for which an unused connection is kept
LONGEST_HEAD: Final = 100 * 1024  # bytes of an answer's status line and headers
MOST_WAITING: Final = 256 * 1024  # bytes that have arrived and were not read; the server waits if there are more
EYEBALLS: Final = 0.25  # seconds until a host's next address is tried as well (RFC 8305)

Origin = tuple[str, str, int]  # scheme, host and port


class Connections(httpx.AsyncBaseTransport):
    """Keeps connections open for further requests to the same origin. As many are open as requests are under way.

    `trust` gives the certificates that are trusted. It is called for the first connection with TLS, because reading
    them takes as long as many calls without.
    """

    def __init__(self, trust: Callable[[], ssl.SSLContext]) -> None:
        self._trust = trust
        self._context: ssl.SSLContext | None = None
        self._idle: dict[Origin, list[_Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read the head of its answer. Raises httpx.TransportError.

        The extension `trace` is awaited before the request leaves, as httpcore does; none of its other events are told.
        """
        url = request.url
        origin = url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        connection = self._take(origin) or await self._connect(origin)
        try:
            if (trace := request.extensions.get("trace")) is not None:
                await trace("http11.send_request_headers.started", {})
            await connection.send(request)
            head = await connection.head()
        except BaseException:
            connection.close()
            raise
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(connection, lambda: self._give_back(origin, connection)),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason},
        )

    async def aclose(self) -> None:
        """Close the connections that are not in use."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()
        await asyncio.sleep(0)  # asyncio closes the sockets then

    def _take(self, origin: Origin) -> _Connection | None:
        """An open connection to the origin that is not in use, the latest used one."""
        self._drop_old()
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return None

    def _give_back(self, origin: Origin, connection: _Connection) -> None:
        if connection.begin_anew():
            self._idle.setdefault(origin, []).append(connection)
        else:
            connection.close()

    def _drop_old(self) -> None:
        oldest = asyncio.get_running_loop().time() - IDLE
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].idle_since < oldest:
                idle.pop(0).close()
            if not idle:
                del self._idle[origin]

    async def _connect(self, origin: Origin) -> _Connection:
        scheme, host, port = origin
        if scheme == "https" and self._context is None:
            self._context = self._trust()
            self._context.set_alpn_protocols(["http/1.1"])
        try:
            _, wire = await asyncio.get_running_loop().create_connection(
                Wire, host, port, ssl=self._context if scheme == "https" else None, happy_eyeballs_delay=EYEBALLS
            )
        except OSError as error:  # also of name resolution and TLS
            raise httpx.ConnectError(str(error)) from error
        return _Connection(wire)


class Wire(asyncio.Protocol):
    """The bytes of one connection. What arrived before it broke off can still be read."""

    def __init__(self) -> None:
        self.is_over = False  # nothing more arrives
        self._transport: asyncio.Transport | None = None
        self._arrived: deque[bytes] = deque()
        self._waiting = 0  # bytes in `_arrived`
        self._error: Exception | None = None
        self._news: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrived.append(data)
        self._waiting += len(data)
        if self._waiting > MOST_WAITING and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.is_over = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        self._error = exc
        self._wake()

    @property
    def is_quiet(self) -> bool:
        """Whether it is open and has nothing to be read, as it must be between two requests."""
        return not (self.is_over or self._arrived)

    def write(self, data: bytes) -> None:
        """Send. If the connection has broken off, `read` says so."""
        if self._transport is not None:
            self._transport.write(data)

    async def read(self) -> bytes:
        """The next bytes; none at the end. Raises httpx.ReadError if the connection broke off."""
        while not self._arrived:
            if self._error is not None:
                raise httpx.ReadError(str(self._error)) from self._error
            if self.is_over:
                return b""
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        data = self._arrived.popleft()
        self._waiting -= len(data)
        if not self._arrived and self._transport is not None:
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """Close at once: nothing that matters is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class _Connection:
    """One request and its answer at a time over a wire."""

    def __init__(self, wire: Wire) -> None:
        self.idle_since = 0.0  # by the loop's clock
        self._wire = wire
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)

    @property
    def is_open(self) -> bool:
        """Whether the server has not closed it, as far as is known."""
        return self._wire.is_quiet

    async def send(self, request: httpx.Request) -> None:
        """Send a request. Raises httpx.LocalProtocolError for one that no server would understand."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        try:
            head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            parts = [self._http.send(head)]
            parts += [self._http.send(h11.Data(data=part)) async for part in request.stream if part]
            parts.append(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        self._wire.write(b"".join(part for part in parts if part))

    async def head(self) -> h11.Response | h11.InformationalResponse:
        """The head of the answer, after those that only inform. Raises httpx.TransportError."""
        while True:
            event = await self.event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == httpx.codes.SWITCHING_PROTOCOLS:
                return event

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        """The next part of the answer. Raises httpx.TransportError."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type) or event is h11.PAUSED
                return event
            data = await self._wire.read()
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                raise httpx.RemoteProtocolError("the server closed the connection without an answer")
            self._http.receive_data(data)

    def begin_anew(self) -> bool:
        """Be ready for another request, if the server takes one after this answer."""
        is_done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not is_done or self._http.trailing_data[0] or not self.is_open:
            return False
        self._http.start_next_cycle()
        self.idle_since = asyncio.get_running_loop().time()
        return True

    def close(self) -> None:
        """Close it."""
        self._wire.close()


class _Body(httpx.AsyncByteStream):
    """The body of an answer. `ended` is called once, when nothing more is read."""

    def __init__(self, connection: _Connection, ended: Callable[[], None]) -> None:
        self._connection = connection
        self._ended: Callable[[], None] | None = ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._connection.event(), h11.Data):
            yield bytes(event.data)

    async def aclose(self) -> None:
        """Give the connection back."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
