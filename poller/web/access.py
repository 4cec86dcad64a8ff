"""Who may ask: the `Host` allow-list, the token, and for what changes something the same origin.

A page of any site can make a browser on this machine send requests here. Names that are not ours are refused, which
ends DNS rebinding; a POST from another origin is refused, which ends cross-site request forgery.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poller.config.models import Settings
from poller.options.secrets import SecretError

OPEN = ("/healthz", "/readyz")  # without a token: for probes
HARMLESS = ("GET", "HEAD", "OPTIONS")
PORTS = {"http": ":80", "https": ":443"}
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))

Headers = dict[str, list[str]]


class Guard:
    """ASGI middleware. `settings` is asked anew at each request: a reload may change them."""

    def __init__(self, app: ASGIApp, settings: Callable[[], Settings]) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing else is served

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_missing(message.get("headers", ()))]
            await send(message)

        headers = _headers(scope)
        refused = (
            _refused_host(headers, self._settings())
            or _refused_token(scope["path"], headers, self._settings())
            or _refused_origin(scope["method"], headers)
        )
        if refused is None:
            await self._app(scope, receive, send_guarded)
        else:
            await _answer(send_guarded, *refused)


def host_of(netloc: str) -> str:
    """The name in a `Host` header, in lower case, without port and brackets."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0].lower()
    return netloc.partition(":")[0].lower().rstrip(".")


def _refused_host(headers: Headers, settings: Settings) -> tuple[int, str] | None:
    given = headers.get("host", [])
    if len(given) == 1 and host_of(given[0]) in settings.hosts:
        return None
    return 421, "this name is not answered here: add it to poller.allowed_hosts if it is yours"


def _refused_token(path: str, headers: Headers, settings: Settings) -> tuple[int, str] | None:
    if settings.token is None or path in OPEN:
        return None
    try:
        wanted = settings.token.reveal()
    except SecretError as error:
        return 503, f"poller.token cannot be read: {error}"
    given = _token(headers.get("authorization", [""])[0])
    if hmac.compare_digest(given.encode(), wanted.encode()):
        return None
    return 401, "a token is needed: Authorization: Bearer TOKEN"


def _token(authorization: str) -> str:
    """The token that was sent: as Bearer, or as the password of Basic, which every browser can ask for."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _refused_origin(method: str, headers: Headers) -> tuple[int, str] | None:
    """What a browser says of where a request comes from; whoever says nothing is no browser."""
    if method in HARMLESS:
        return None
    site = headers.get("sec-fetch-site", ["none"])[0]
    origin = next(iter(headers.get("origin", ())), None)
    if site in ("none", "same-origin") and (origin is None or _is_here(origin, headers["host"][0])):
        return None
    return 403, "a page of another site may not change anything here"


def _is_here(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    default = PORTS.get(parts.scheme, "")
    return default != "" and parts.netloc.lower().removesuffix(default) == host.lower().removesuffix(default)


def _headers(scope: Scope) -> Headers:
    headers: Headers = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _missing(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    has_cache = any(name.lower() == b"cache-control" for name, _ in given)
    return [*HEADERS, *(() if has_cache else ((b"cache-control", b"no-store"),))]


async def _answer(send: Send, status: int, why: str) -> None:
    body = orjson.dumps({"error": why})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers += [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b'Basic realm="poller"')]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
