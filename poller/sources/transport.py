"""The httpx transport of sources: each request needs a permit from the budget and is limited in time, size and origin.

The first request of a poll uses the permit that was obtained before the poll was chosen. Every further one (a token, a
redirect) waits for a separate permit.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Final

import httpx
import msgspec

from poller.budget.limiter import Paused, Permit, RateLimiter, current_permit
from poller.events.cloudevents import iso
from poller.redaction import SECRETS
from poller.sources.charsets import WrongCharset, as_utf8, charset_of, opening
from poller.sources.content_coding import ACCEPTED, CodingError, TooMuch, Unpacker, codings_of
from poller.sources.errors import FetchError, TooLarge, TooSlow
from poller.sources.renewal import Dropped, RenewedTransport
from poller.sources.urls import shown_url
from state.errors import LeaseLost, PollerError

REDIRECTS: Final = 5
MOST: Final = 32_000_000  # bytes of an answer, unless configured
LARGE: Final = 1_000_000  # bytes; a smaller answer cannot hold a dangerous number of values
MOST_VALUES: Final = 2_000_000  # JSON values in one answer: each costs up to 100 bytes once parsed
STEPS: Final = 32  # pieces of a body after which other tasks run
_OF_CODING: Final = (b"content-encoding", b"content-length", b"transfer-encoding")
_OF_BODY: Final = (b"content-type", b"content-length")
USER_AGENT: Final = "Poller (+https://pypi.org/project/poller)"

TO_LOG_IN: Final = "check the credentials, base_url and path: it may be a page to log in"
PATIENCE: Final = 60.0  # seconds: longest wait in the middle of a chain for a server that wants no call


class BudgetTransport(httpx.AsyncBaseTransport):
    """Spends the budget for every call, and limits the time and size of each answer.

    Content codings are decoded here, so that lists, logins and all other requests of plugins have the same limits.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        limiter: RateLimiter,
        *,
        timeout: float,
        most: int = MOST,
        proxy: str | None = None,
    ) -> None:
        self._inner = inner
        self._proxy = proxy  # proxy of `inner`; named if it fails
        self._limiter = limiter
        self._timeout = timeout
        self._most = most  # bytes of an answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; its call counts as answered when its body was read or it failed."""
        permit = current_permit()
        if permit is None or not permit.take():
            permit = await self._permit(request)
        until = asyncio.get_running_loop().time() + self._timeout
        if self._limiter.valid_until is not None:
            request.extensions = {**request.extensions, "trace": self._before_it_leaves}
        try:
            self._limiter.refuse_if_late()
            try:
                response = await self._answer(request, until)
            except Dropped:
                if request.method != "GET":  # it may have been carried out (RFC 9110, 9.2.2)
                    raise
                permit.done()
                permit = await self._permit(request)
                until = asyncio.get_running_loop().time() + self._timeout
                response = await self._answer(request, until)
            await self._limiter.heed(response.status_code, response.headers)
            codings = _codings(request, response)
        except BaseException:
            permit.done()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        limits = _Limits(url=shown_url(request.url), until=until, timeout=self._timeout, most=self._most)
        return httpx.Response(
            response.status_code,
            headers=[(name, value) for name, value in response.headers.raw if name.lower() not in _OF_CODING],
            stream=_Stream(response.stream, permit, limits, codings),
            extensions=response.extensions,
        )

    async def _permit(self, request: httpx.Request) -> Permit:
        """A permit for a call without one: the rest of a chain, a login, or an inspection on command."""
        try:
            return await self._limiter.permit(patience=PATIENCE)
        except Paused as paused:
            what = f"{paused} before {iso(paused.until)}"
            raise FetchError(shown_url(request.url), what, status=httpx.codes.TOO_MANY_REQUESTS) from paused

    async def _before_it_leaves(self, event: str, _: object) -> None:
        """Check the lease once more when the connection is open, which may have taken a while."""
        if event.endswith("send_request_headers.started"):
            self._limiter.refuse_if_late()

    async def _answer(self, request: httpx.Request, until: float) -> httpx.Response:
        """The head of the answer. Raises FetchError or httpx.TransportError for any exception of the network."""
        try:
            async with asyncio.timeout_at(until):
                response = await self._inner.handle_async_request(request)
        except TimeoutError as error:
            raise TooSlow(shown_url(request.url), f"no answer within {self._timeout:g} s") from error
        except httpx.TransportError as error:
            if self._proxy is None or isinstance(error, Dropped):
                raise
            what = f"no answer through the proxy {shown_url(self._proxy)} ({_said(error)})"
            raise FetchError(
                shown_url(request.url), what, hint="check that the proxy answers, and `proxy` of the source"
            ) from error
        except LeaseLost:
            raise
        except Exception as error:
            raise _unanswered(request, error) from error
        if response.has_redirect_location and not _is_redirect_target(request.url, response.headers["location"]):
            await response.aclose()
            raise FetchError(
                shown_url(request.url),
                f"{response.status_code}, redirected to {response.headers['location'][:100]!r}, which is not a "
                "URL that can be requested",
                status=response.status_code,
                hint="set the URL to where the API is",
            )
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _is_redirect_target(asked: httpx.URL, location: str) -> bool:
    """Whether a request can be built for the target of a redirect."""
    try:
        url = asked.join(location)
        return httpx.Request("GET", url).url.scheme in ("http", "https") and bool(url.host)
    except (httpx.InvalidURL, ValueError, TypeError):  # including UnicodeError, for a host that IDNA refuses
        return False


def _codings(request: httpx.Request, response: httpx.Response) -> list[str]:
    try:
        return codings_of(response.headers.get("content-encoding", ""))
    except CodingError as error:
        raise FetchError(shown_url(request.url), str(error), status=response.status_code) from error


class _Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one answer."""

    url: str  # the URL without secrets
    until: float  # deadline by the loop's clock
    timeout: float  # seconds, for the message
    most: int  # largest answer in bytes

    def check(self, size: int) -> None:
        """Raises TooLarge."""
        if size > self.most:
            hint = "ask for smaller pages, or raise max_answer"
            raise TooLarge(self.url, f"more than {self.most:,} bytes", hint=hint)


class _Stream(httpx.AsyncByteStream):
    """A decoded body, limited in time and size. Its end counts as the call's answer."""

    def __init__(self, inner: httpx.AsyncByteStream, permit: Permit, limits: _Limits, codings: list[str]) -> None:
        self._inner = inner
        self._permit = permit
        self._limits = limits
        self._unpacker = Unpacker(codings, most=limits.most)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        came, pieces = 0, 0
        try:
            async for chunk in self._chunks():
                came += len(chunk)
                self._limits.check(came)  # also what follows the end of a coding, which unpacks to nothing
                for piece in self._unpacker.feed(chunk):
                    pieces += 1
                    if pieces % STEPS == 0:
                        await asyncio.sleep(0)  # received data is read without waiting: let other tasks run
                    yield piece
            self._unpacker.finish()
        except CodingError as error:
            raise FetchError(self._limits.url, f"not what its content-encoding says ({error})") from error
        except TooMuch:
            self._limits.check(self._limits.most + 1)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises FetchError for any exception of the network."""
        chunks = aiter(self._inner)
        while True:
            try:
                async with asyncio.timeout_at(self._limits.until):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise TooSlow(self._limits.url, f"not complete within {self._limits.timeout:g} s") from error
            except Exception as error:
                raise FetchError(self._limits.url, f"no whole answer ({_said(error)})") from error
            yield chunk

    async def aclose(self) -> None:
        self._permit.done()
        await self._inner.aclose()


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """The network settings of one source, and the size of an answer."""

    source: str
    timeout: float  # seconds of one whole answer
    most: int  # bytes of one answer
    verify: bool = True
    ca_file: Path | None = None
    proxy: str | None = None


def build_client(
    network: Network, *, limiter: RateLimiter, auth: httpx.Auth | None, inner: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """The client of one source, over `inner` or the network. Raises PollerError if its `ca_file` cannot be used."""
    transport = BudgetTransport(
        inner or _transport(network),
        limiter,
        timeout=network.timeout,
        most=network.most,
        proxy=None if inner else network.proxy,
    )
    return httpx.AsyncClient(
        transport=transport,
        auth=auth,
        timeout=None,  # the transport measures the time, from when the call is sent
        follow_redirects=False,
        trust_env=False,
        headers={"user-agent": USER_AGENT, "accept-encoding": ACCEPTED},
    )


@cache
def system_trust() -> ssl.SSLContext:
    """The system's certificates, not those bundled with httpx. Reading them takes 30 ms, so all sources share them."""
    return ssl.create_default_context()


@cache
def _no_trust() -> ssl.SSLContext:
    """Trusts nobody: for calls without TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _LateTrust(httpx.AsyncBaseTransport):
    """The system's certificates are read for the first call with TLS: reading them takes as long as many calls without.

    `made` makes the transport over the network that trusts what a context trusts.
    """

    def __init__(self, made: Callable[[ssl.SSLContext], httpx.AsyncBaseTransport]) -> None:
        self._made = made
        self._plain = made(_no_trust())
        self._secure: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        if request.url.scheme != "https":
            return await self._plain.handle_async_request(request)
        if self._secure is None:
            self._secure = self._made(system_trust())
        return await self._secure.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._plain.aclose()
        if self._secure is not None:
            await self._secure.aclose()


def _transport(network: Network) -> httpx.AsyncBaseTransport:
    if network.proxy and "@" in network.proxy:
        SECRETS.add(network.proxy)

    def made(verify: ssl.SSLContext | bool) -> httpx.AsyncBaseTransport:
        return RenewedTransport(
            lambda: httpx.AsyncHTTPTransport(
                verify=verify,
                proxy=network.proxy,
                limits=httpx.Limits(max_connections=100, keepalive_expiry=60),
                trust_env=False,
            )
        )

    try:
        trust = None if network.ca_file is None else ssl.create_default_context(cafile=network.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise PollerError(f"sources.{network.source}.ca_file: {network.ca_file}: {error}", hint="a PEM file") from error
    if not network.verify:
        return made(False)
    return _LateTrust(made) if trust is None else made(trust)


async def fetch(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request and read its whole answer, following redirects only within its origin. Raises FetchError."""
    first = request
    for _ in range(REDIRECTS + 1):
        response = await _send(client, request)
        if response.next_request is None:
            if request is not first and response.is_success and response.content.lstrip()[:1] == b"<":
                raise _misled(first, request, response, "which is a page of HTML", hint=TO_LOG_IN)
            return response
        if _origin(response.next_request.url) != _origin(first.url):
            hint = "credentials are not sent elsewhere; set the URL to where the API is"
            raise _misled(first, response.next_request, response, "another origin", hint=hint)
        if response.next_request.method != first.method:  # without its body, it is another question
            what = f"but as a {response.next_request.method} instead of a {first.method}"
            raise _misled(first, response.next_request, response, what, hint="set the URL to where the API is")
        request = response.next_request
    raise FetchError(shown_url(first.url), f"redirected more than {REDIRECTS} times")


def _misled(first: httpx.Request, to: httpx.Request, response: httpx.Response, what: str, *, hint: str) -> FetchError:
    reason = f"redirected to {shown_url(to.url)}, {what}"
    return FetchError(shown_url(first.url), reason, status=response.status_code, hint=hint)


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    for name, value in client.headers.items():
        request.headers.setdefault(name, value)
    try:
        response = await client.send(request)
    except httpx.TransportError as error:
        raise _unanswered(request, error) from error
    body = response.content
    if len(body) > LARGE and body.lstrip()[:1] in (b"[", b"{") and sum(map(body.count, b",[{")) > MOST_VALUES:
        raise TooLarge(
            shown_url(request.url),
            f"more than {MOST_VALUES:,} JSON values",
            status=response.status_code,
            hint="ask for smaller pages",
        )
    return _in_utf8(response)


def _in_utf8(response: httpx.Response) -> httpx.Response:
    """The answer with a JSON body in UTF-8, and without a charset by which a plugin could misread it."""
    charset = charset_of(response)
    kind = response.headers.get("content-type", "").partition(";")[0]
    is_json = "json" in kind.lower() or opening(response).lstrip("\ufeff \t\r\n")[:1] in ("{", "[")
    try:
        body = as_utf8(response.content, charset) if is_json else response.content
    except WrongCharset as error:
        raise FetchError(shown_url(response.request.url), str(error), status=response.status_code) from error
    if body is response.content and (charset is not None or response.charset_encoding is None):
        return response
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_BODY]
    readable = httpx.Response(
        response.status_code,
        headers=[*headers, (b"content-type", f"{kind}; charset=utf-8".encode())],
        content=body,
        request=response.request,
        extensions=response.extensions,
    )
    readable.next_request = response.next_request
    return readable


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


_MEANINGS: Final = {  # of errors that libraries name by their own parts
    "illegal request line": "what came is not HTTP/1.1",  # which h11 takes for a request
    "illegal status line": "what came is not HTTP/1.1",
    "WRONG_VERSION_NUMBER": "what answers there does not speak TLS; is its URL http:// or another port?",
}


def _unanswered(request: httpx.Request, error: Exception) -> FetchError:
    """The error for a request that got no answer."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        meaning = next((f": {words}" for sign, words in _MEANINGS.items() if sign in str(error)), "")
        return FetchError(shown_url(request.url), f"no answer ({_said(error)}){meaning}")
    hint = "set ca_file to the certificate of its authority; if no server is trusted, install the system's certificates"
    return FetchError(shown_url(request.url), f"its certificate is not accepted: {cause.verify_message}", hint=hint)


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
