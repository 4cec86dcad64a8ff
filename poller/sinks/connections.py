"""Connections of callbacks (aiohttp): a socket is only opened to an allowed address."""

from __future__ import annotations

import re
import socket
import ssl
from asyncio import AbstractEventLoop
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientError, ClientRequest, ClientResponse, ClientResponseError, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.resolver import DefaultResolver

from poller.sinks.ssrf import AddressRefused, literal_address, why_refused

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([2-5][0-9]{2})[ \r\n]")
_BEGINNING: Final = 16  # bytes of an answer that hold its status
LONGEST: Final = 300.0  # seconds; a connection that is always busy would never notice that its name has moved
_kept: ContextVar[bool] = ContextVar("kept", default=False)
RECEIVE: Final = 16 * 1024  # bytes of a connection's receive buffer; answers to callbacks are small


class GuardedResolver(AbstractResolver):
    """Resolves names without the addresses that must not be reached."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Public addresses of `host`. Raises AddressRefused if it has only others."""
        found = await self._resolver.resolve(host, port, family)
        public = [result for result in found if why_refused(result["host"]) is None]
        if found and not public:
            address = found[0]["host"]
            raise AddressRefused(f"{host} is {address}, which is {why_refused(address)}")
        return public

    async def close(self) -> None:
        await self._resolver.close()


class Garbled(ClientError):
    """An answer with a status, of which the rest is not HTTP: a 204 with a body, two lengths, endless headers."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Protocol(ResponseHandler):
    """Keeps the first bytes of an answer. After `LONGEST` seconds its connection takes no further call."""

    beginning = b""
    calls = 0  # that it has carried

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__(loop)
        self._until = loop.time() + LONGEST

    @property
    def should_close(self) -> bool:
        """See aiohttp. Asked after each answer."""
        return super().should_close or self._loop.time() >= self._until

    def set_response_params(self, **params: Any) -> None:
        """See aiohttp. Called before each answer."""
        self.beginning = b""
        self.calls += 1
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if len(self.beginning) < _BEGINNING:
            self.beginning += data[: _BEGINNING - len(self.beginning)]
        super().data_received(data)


class Response(ClientResponse):
    """A response. Raises Garbled if only its status can be read."""

    async def start(self, connection: Connection) -> ClientResponse:
        """See aiohttp."""
        try:
            return await super().start(connection)
        except ClientResponseError as exc:
            protocol = connection.protocol
            if isinstance(protocol, _Protocol) and (found := _STATUS.match(protocol.beginning)):
                raise Garbled(int(found[1])) from exc
            raise


class _Connector(TCPConnector):
    """A connector whose answers keep their first bytes, and whose connections know whether they were kept."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(_Protocol, loop=self._loop)  # type: ignore[assignment] # aiohttp offers no other way

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        """See aiohttp. Asked by the task that makes the call."""
        _kept.set(False)
        found = await super().connect(req, traces, timeout)
        _kept.set(isinstance(found.protocol, _Protocol) and found.protocol.calls > 0)
        return found


def was_kept() -> bool:
    """Whether the latest call of this task was made on a connection that had carried one before."""
    return _kept.get()


def guarded_socket(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """A socket for one address that is about to be connected to. Raises AddressRefused."""
    host = str(info[4][0])
    reason = why_refused(host)
    if reason is not None:
        raise AddressRefused(f"{host} is {reason}")
    return small_socket(info)


def small_socket(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """A socket with a small receive buffer: a quarter of a megabyte of `100 Continue` takes a second to parse."""
    family, kind, proto, _, _ = info
    made = socket.socket(family, kind, proto)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
    return made


def connector(
    *,
    allow_private: bool = False,
    limit: int = 100,
    tls: ssl.SSLContext | bool = True,
    resolver: AbstractResolver | None = None,
    keep: bool = True,
) -> TCPConnector:
    """An aiohttp connector that connects only to public addresses, unless `allow_private`. At most `limit`
    connections; without `keep` each carries one call.
    """
    common = {"limit": limit, "ssl": tls, "force_close": not keep}
    if allow_private:
        return _Connector(resolver=resolver, socket_factory=small_socket, **common)
    return _Connector(resolver=GuardedResolver(resolver), socket_factory=guarded_socket, **common)


async def check_host(host: str, resolver: AbstractResolver | None = None) -> None:
    """Refuse a host that is, or resolves here to, an address that must not be reached. Raises AddressRefused.

    For calls through a proxy, which resolves names itself: a name without an address here is left to the proxy.
    """
    address = literal_address(host)
    if address is not None:
        if reason := why_refused(address):
            raise AddressRefused(
                f"{host} is {reason}" if address == host else f"{host} is {address}, which is {reason}"
            )
        return
    guarded = GuardedResolver(resolver)
    try:
        await guarded.resolve(host.rstrip("."), 0, socket.AF_UNSPEC)
    except AddressRefused:
        raise
    except OSError:
        return
    finally:
        await guarded.close()
