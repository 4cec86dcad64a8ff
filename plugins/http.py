"""Sink `http`: POSTs events as CloudEvents, signed as Standard Webhooks 1.0.0 say.

aiohttp carries the calls (measured: eight times what httpx's own transport does at 32 in flight). Its
connector refuses private and loopback addresses, see `poller.sinks.ssrf`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self

import aiohttp
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from yarl import URL

from poller import Attempt, Event, Gone, Receipt, Rejected, RetryLater, hookimpl
from poller.events.cloudevents import BATCH_CONTENT_TYPE, CONTENT_TYPE, batched, structured
from poller.http_dates import retry_after
from poller.options.quantities import Duration
from poller.options.secrets import Secret, SecretError
from poller.rendering.templates import RenderError, Templated, render
from poller.sinks.protocol import Refused
from poller.sinks.ssrf import AddressRefused, connector, why_refused

KEPT: Final = 4096  # bytes of an answer that go into the log of attempts
READ: Final = 64 * 1024  # bytes of an answer read before the connection is given up
CONNECTIONS: Final = 100
_LATER: Final = frozenset({408, 425, 429})
_OURS: Final = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature", "content-length", "host"})


def _checked_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError as exc:
        raise PydanticCustomError("url", "not a URL: {why}", {"why": str(exc)}) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise PydanticCustomError("url", "a URL begins with https:// or http:// and a host name")
    return text


def _checked_key(secret: Secret) -> Secret:
    try:
        _key(secret.reveal())
    except SecretError:  # let pass by the secret's own check: this command only looks
        return secret
    except ValueError as exc:
        raise PydanticCustomError("secret", "{why}", {"why": str(exc)}) from None
    return secret


@lru_cache(maxsize=64)
def _key(secret: str) -> bytes:
    """The bytes of a Standard Webhooks secret. Raises ValueError that does not repeat it."""
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError("a signing secret is whsec_ and base64 (24 to 64 random bytes)")
    return key


HttpUrl = Annotated[str, AfterValidator(_checked_url)]
SigningSecret = Annotated[Secret, AfterValidator(_checked_key)]


class HttpOptions(Templated):
    """`[[subscriptions]]` with `plugin = "http"`."""

    url: HttpUrl
    secret: SigningSecret | tuple[SigningSecret, ...] | None = None
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: Mapping[str, Secret] = Field(default_factory=dict)
    timeout: Duration = Field(default=15.0, gt=0, le=60)  # the engine gives an attempt no more
    mode: Literal["structured", "batched"] = "structured"
    allow_private: bool = False
    ca_file: Path | None = None
    proxy: HttpUrl | None = None

    @field_validator("headers")
    @classmethod
    def _free(cls, headers: Mapping[str, Secret]) -> Mapping[str, Secret]:
        for name in headers:
            if name.lower() in _OURS:
                raise PydanticCustomError("headers", "{name} is set by Poller itself", {"name": name})
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise PydanticCustomError("headers", "{name} is not a header name", {"name": repr(name)})
        return headers

    @field_validator("ca_file")
    @classmethod
    def _found(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        path = Path((info.context or {}).get("root") or ".") / path.expanduser()
        if not path.is_file():
            raise PydanticCustomError("ca_file", "there is no file {path}", {"path": str(path)})
        return path


class HttpSink:
    """One callback URL, with its connections kept open between events."""

    Options = HttpOptions

    def __init__(self, name: str, options: HttpOptions, *, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._url = URL(options.url)
        self._shown = shown(self._url)
        given = options.secret if isinstance(options.secret, tuple) else (options.secret,)
        self._secrets = tuple(secret for secret in given if secret is not None)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        ca_file = self._options.ca_file
        tls = _system_trust() if ca_file is None else ssl.create_default_context(cafile=ca_file)
        # A proxy is the operator's choice and resolves names itself, so only literal addresses are checked then.
        behind_proxy = self._options.proxy is not None
        whole = self._options.timeout
        self._session = aiohttp.ClientSession(
            connector=connector(allow_private=self._options.allow_private or behind_proxy, limit=CONNECTIONS, tls=tls),
            timeout=aiohttp.ClientTimeout(total=whole, sock_connect=min(whole, 10.0)),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": f"Poller/{version('poller')}", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def deliver(self, events: Sequence[Event], attempt: Attempt) -> Receipt:  # noqa: ARG002 - the contract's
        """POST the events; several ones in structured mode go out one by one, in order."""
        if self._options.mode == "batched" or self._options.template is not None or len(events) == 1:
            return await self._post(events)
        for event in events[:-1]:
            await self._post([event])
        return await self._post(events[-1:])

    def render(self, events: Sequence[Event]) -> str:
        """The request as it would leave, without signature and values of headers of your own."""
        content_type, body = self._body(events)
        lines = [
            f"{self._options.method} {self._shown}",
            f"Content-Type: {content_type}",
            f"webhook-id: {message_id(events)}",
            *(f"{name}: …" for name in self._options.headers),
        ]
        return "\n".join([*lines, "", body.decode()])

    async def _post(self, events: Sequence[Event]) -> Receipt:
        try:
            content_type, body = self._body(events)
        except RenderError as exc:  # nothing that waiting puts right
            raise Rejected(Receipt(status="template", text=str(exc))) from exc
        headers = self._headers(message_id(events), body, content_type)
        try:
            return await self._send(headers, body)
        except aiohttp.ConnectionTimeoutError as exc:
            raise RetryLater(None, Receipt(status="timeout", text=f"{self._shown}: no connection")) from exc
        except TimeoutError as exc:
            text = f"{self._shown}: no answer within {self._options.timeout:g} s"
            raise RetryLater(None, Receipt(status="timeout", text=text)) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise RetryLater(None, self._unreached(exc)) from exc

    async def _send(self, headers: Mapping[str, str], body: bytes) -> Receipt:
        if self._session is None:
            raise RuntimeError("deliver was called outside of `async with`")
        if self._options.proxy is not None:
            self._check_literal()
        async with self._session.request(
            self._options.method,
            self._url,
            data=body,
            headers=headers,
            allow_redirects=False,
            proxy=self._options.proxy,
        ) as response:
            text = await _start_of(response)
            return judged(response.status, response.headers, text, now=self._clock())

    def _body(self, events: Sequence[Event]) -> tuple[str, bytes]:
        """Content type and bytes. Raises RenderError."""
        if self._options.template is not None:
            return "application/json", render(self._options.template, events).encode()
        if self._options.mode == "batched":
            return BATCH_CONTENT_TYPE, batched(events)
        return CONTENT_TYPE, structured(events[0])

    def _headers(self, id: str, body: bytes, content_type: str) -> Mapping[str, str]:
        now = int(self._clock())
        headers = {"Content-Type": content_type, "webhook-id": id, "webhook-timestamp": str(now)}
        if self._secrets:
            headers["webhook-signature"] = signature(id, now, body, [secret.reveal() for secret in self._secrets])
        for name, value in self._options.headers.items():
            if name.lower() == "content-type":
                name = "Content-Type"
            headers[name] = value.reveal()
        return headers

    def _check_literal(self) -> None:
        host = self._url.host or ""
        reason = why_refused(host)
        if not self._options.allow_private and reason not in (None, "not an IP address"):
            raise AddressRefused(f"{host} is {reason}")

    def _unreached(self, exc: Exception) -> Receipt:
        """What is told of a connection that was not made or broke."""
        cause: BaseException | None = exc
        while cause is not None and not isinstance(cause, AddressRefused):
            cause = cause.__cause__
        if cause is None:
            return Receipt(status="unreachable", text=f"{self._shown}: {exc or type(exc).__name__}")
        return Receipt(status="refused address", text=f"{self._shown}: {cause}; allow it with `allow_private = true`")


@lru_cache(maxsize=1)
def _system_trust() -> ssl.SSLContext:
    """Reading all of the system's certificates takes 30 ms: once is enough for all subscriptions."""
    return ssl.create_default_context()


def judged(status: int, headers: Mapping[str, str], text: str, *, now: float) -> Receipt:
    """The receipt for a 2xx; any other status raises what the engine has to do about it.

    3xx is a failure on the schedule: a redirect is never followed (Standard Webhooks), but may be a
    maintenance page.
    """
    receipt = Receipt(status=str(status), text=text)
    if 200 <= status < 300:
        return receipt
    if status == 410:
        raise Gone(receipt)
    if status in _LATER or status >= 500 or status < 400:
        raise RetryLater(retry_after(headers.get("Retry-After"), now), receipt)
    raise Refused(receipt)


def message_id(events: Sequence[Event]) -> str:
    """The `webhook-id`: the event's id, or one made of all ids, the same at each attempt."""
    if len(events) == 1:
        return events[0].id
    digest = hashlib.sha256("\n".join(event.id for event in events).encode()).hexdigest()
    return f"batch_{digest[:32]}"


def signature(id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """`webhook-signature`: one `v1,` signature per secret, so that each can be the one a receiver knows."""
    signed = f"{id}.{timestamp}.".encode() + body
    digests = (hmac.digest(_key(secret), signed, "sha256") for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def shown(url: URL) -> str:
    """The URL without user, password, query and fragment, which may hold secrets."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


async def _start_of(response: aiohttp.ClientResponse) -> str:
    """The first 4 KiB of the answer. Its status is what counts: a body that breaks off does not undo a 2xx."""
    content = bytearray()
    try:
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > READ:
                response.close()
                break
    except (aiohttp.ClientError, TimeoutError):
        response.close()
    return bytes(content[:KEPT]).decode(errors="replace")


@hookimpl
def register_sinks(register: Callable[[str, type[Any]], None]) -> None:
    register("http", HttpSink)
