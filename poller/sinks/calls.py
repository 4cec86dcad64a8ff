"""HTTP calls of sinks: guarded, limited, and configured only by `poller.toml`.

Redirects are not followed (a 301 would turn a POST into a GET, and may lead to an internal address). Settings of the
environment (proxies, `.netrc`) are ignored. Only public addresses are contacted unless the sink may do otherwise.
Answers have limits in bytes and time. Errors never repeat a URL's user, password or query.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import msgspec

from poller.late import late
from poller.sinks.protocol import Receipt, RetryLater
from poller.sinks.ssrf import AddressRefused

if TYPE_CHECKING:
    import aiohttp
    import yarl
    from yarl import URL

    import poller.sinks.connections as connections
else:
    aiohttp, connections, yarl = late("aiohttp"), late("poller.sinks.connections"), late("yarl")

READ: Final = 64 * 1024  # bytes of an answer that are read before the connection is closed
HEADER: Final = 32 * 1024  # bytes of one header of an answer; policies and cookies may have more than aiohttp's 8 KiB
CONNECTIONS: Final = 100
_AS_WRITTEN: Final = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")  # RFC 3986
_SPECIAL: Final = "write / # ? @ and : in a user or password as %2F %23 %3F %40 and %3A"


class Answer(NamedTuple):
    """A receiver's answer, with as much of the body as was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.body.decode(errors="replace")


@lru_cache(maxsize=256)
def parsed_url(text: str) -> URL:
    """An http or https URL, sent as it is written if all of its characters are those of a URL: a signature may be made
    of them. Raises ValueError that does not repeat the URL, because it may hold a password.
    """
    try:
        url = yarl.URL(text, encoded=_AS_WRITTEN.fullmatch(text) is not None)
        port = url.explicit_port
    except ValueError:
        raise ValueError(f"not a URL; {_SPECIAL}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("a URL begins with https:// or http:// and a host name")
    if url.user is None and "@" in text.partition("://")[2] and (port is not None or "@" in url.fragment):
        # http://user:1234/5@host: the intended password would be read as a port and a path.
        raise ValueError(f"is that a user and a password before the @? {_SPECIAL}; write an @ of a path as %40")
    return url


def parsed_proxy(text: str) -> URL:
    """The URL of an HTTP proxy: a host, a port, and optionally user and password. Raises ValueError that does not
    repeat it.
    """
    url = parsed_url(text)
    if url.raw_path not in ("", "/") or url.raw_query_string or url.raw_fragment:
        raise ValueError(f"a proxy is http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; {_SPECIAL}")
    return url


def shown(url: URL) -> str:
    """The URL without user, password, query and fragment, which may hold secrets."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


class Calls:
    """The connections of one sink, kept open between calls, and made anew where a kept one had been closed."""

    def __init__(
        self,
        *,
        timeout: float,
        allow_private: bool = False,
        ca_file: Path | None = None,
        proxy: URL | None = None,
    ) -> None:
        self._timeout = timeout
        self._allow_private = allow_private
        self._ca_file = ca_file
        self._proxy = proxy
        self._sessions: tuple[aiohttp.ClientSession, ...] = ()  # one that keeps connections, one that does not

    async def __aenter__(self) -> Self:
        tls = _system_trust() if self._ca_file is None else ssl.create_default_context(cafile=self._ca_file)
        self._sessions = tuple(self._session(tls, keep=keep) for keep in (True, False))
        return self

    def _session(self, tls: ssl.SSLContext, *, keep: bool) -> aiohttp.ClientSession:
        # The operator chooses the proxy, so it may have any address; the URL is checked before each call.
        anywhere = self._allow_private or self._proxy is not None
        return aiohttp.ClientSession(
            connector=connections.connector(allow_private=anywhere, limit=CONNECTIONS, tls=tls, keep=keep),
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(self._timeout, 10.0)),
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=connections.Response,
            auto_decompress=False,
            max_line_size=HEADER,
            max_field_size=HEADER,
            trust_env=False,
            headers={"User-Agent": f"Poller/{version('poller')}", "Accept-Encoding": "identity"},
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sessions, self._sessions = self._sessions, ()
        for session in sessions:
            await session.close()

    async def send(
        self, method: str, url: URL, *, body: bytes, headers: Mapping[str, str], name: str = "", most: int = READ
    ) -> Answer:
        """Make one call and return its answer, whatever the status. Raises RetryLater if there is none; `name` is the
        URL in messages.

        A receiver may close a connection that was kept just as it is used again: the call is made once more, on a new
        one. A receiver that had taken the first one, and closed without an answer, gets the same twice.
        """
        if not self._sessions:
            raise RuntimeError("a call was made outside of `async with`")
        kept, single = self._sessions
        call = partial(self._sent, _target(url, self._proxy), method, body, headers, most)
        try:
            try:
                return await call(kept)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not connections.was_kept():
                    raise
                return await call(single)
        except connections.Garbled as exc:  # a receiver that says 2xx has what it was sent
            return Answer(exc.status, {}, b"")
        except (aiohttp.ClientError, OSError) as exc:  # a TimeoutError is an OSError
            raise RetryLater(None, self._unanswered(name or shown(url), exc)) from exc

    async def _sent(
        self,
        target: _Target,
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        most: int,
        session: aiohttp.ClientSession,
    ) -> Answer:
        if self._proxy is not None and not self._allow_private:
            await connections.check_host(target.url.raw_host or "")
        async with session.request(
            method,
            target.url,
            data=body,
            headers={**target.headers(headers), **headers},
            allow_redirects=False,
            proxy=target.proxy,
            proxy_headers=target.proxy_headers,
        ) as response:
            return Answer(response.status, response.headers, await _start_of(response, most))

    def _unanswered(self, name: str, exc: Exception) -> Receipt:
        """The receipt of a call without an answer."""
        match exc:
            case aiohttp.ConnectionTimeoutError():
                return Receipt(status="timeout", text=f"{name}: no connection")
            case TimeoutError():
                return Receipt(status="timeout", text=f"{name}: no answer within {self._timeout:g} s")
        return _unreached(name, exc)


class _Target(msgspec.Struct, frozen=True):
    """A URL as it is requested: without user and password, which are sent as headers so that no error repeats them."""

    url: URL
    login: Mapping[str, str]
    to_proxy: Mapping[str, str]  # headers for the proxy in a request that is not tunnelled
    proxy: URL | None
    proxy_headers: Mapping[str, str] | None  # headers of CONNECT, the only part of an https request that the proxy sees

    def headers(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """The given headers with those of the target; a given `Authorization` is kept."""
        if self.login and any(name.lower() == "authorization" for name in given):
            return self.to_proxy
        return {**self.login, **self.to_proxy}


@lru_cache(maxsize=256)
def _target(url: URL, proxy: URL | None) -> _Target:
    to_proxy = {} if proxy is None else _login(proxy, "Proxy-Authorization")
    tunnelled = url.scheme == "https"
    return _Target(
        url=url.with_user(None),
        login=_login(url, "Authorization"),
        to_proxy={} if tunnelled else to_proxy,
        proxy=None if proxy is None else proxy.with_user(None),
        proxy_headers=to_proxy if tunnelled and to_proxy else None,
    )


async def _start_of(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The answer's first bytes. Only its status counts: a body that breaks off does not undo a 2xx."""
    if response.content.at_eof():  # no body, like a 204
        return b""
    content = bytearray()
    try:
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > most:
                response.close()
                break
    except (aiohttp.ClientError, TimeoutError):
        response.close()
    return bytes(content[:most])


def _login(url: URL, header: str) -> Mapping[str, str]:
    """User and password of a URL as a header, separate from the URL, so that no error can repeat them."""
    if url.user is None and url.password is None:
        return {}
    credentials = f"{url.user or ''}:{url.password or ''}".encode()
    return {header: f"Basic {base64.b64encode(credentials).decode()}"}


def _unreached(name: str, exc: Exception) -> Receipt:
    """The receipt for a connection that could not be made or broke."""
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, AddressRefused):
        cause = cause.__cause__
    if cause is not None:
        return Receipt(status="refused address", text=f"{name}: {cause}; allow it with `allow_private = true`")
    return Receipt(status="unreachable", text=f"{name}: {_reason(exc)}")


def _reason(exc: Exception) -> str:
    """Why there is no answer. Never the `str` of the library's exception, which may repeat the whole URL."""
    match exc:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {exc.status} {exc.message}"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy cannot be reached: {exc.os_error}"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate is not accepted: {exc.certificate_error}"
        case aiohttp.ClientConnectorError():
            return str(exc.os_error)
        case aiohttp.ClientResponseError():
            return f"not an HTTP answer: {exc.message}"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case OSError() if exc.strerror:
            return exc.strerror
    return type(exc).__name__


@lru_cache(maxsize=1)
def _system_trust() -> ssl.SSLContext:
    """The system's certificates, read once for all sinks, because that takes 30 ms."""
    return ssl.create_default_context()
