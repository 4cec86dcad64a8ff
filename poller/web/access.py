"""Access to the HTTP side: the `Host` allow-list, the token, and the same origin for requests that change something.

A page of any site can make a browser on this machine send requests here. Requests for an unknown name are refused,
which prevents DNS rebinding; a POST from another origin is refused, which prevents cross-site request forgery.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from poller.config.models import Settings
from poller.options.secrets import Secret, SecretError
from poller.web.answers import send_problem

OPEN: Final = ("/healthz", "/readyz")  # served without a token, for probes
HARMLESS: Final = ("GET", "HEAD", "OPTIONS")
PORTS: Final = {"http": ":80", "https": ":443"}
HEADERS: Final = (  # added to every answer that does not set its own
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)

Headers = dict[str, list[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The requirements of a listener. They never change: other settings get another listener."""

    hosts: frozenset[str]
    token: Secret | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The requirements that `[poller]` configures."""
        return cls(hosts=settings.hosts, token=settings.token)


class Guard:
    """ASGI middleware that refuses requests without access. Without `access` every request is served: the socket's file
    mode protects it.
    """

    def __init__(self, app: ASGIApp, access: Access | None) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_missing(message.get("headers", ()))]
            await send(message)

        refused = None if self._access is None else _refused(scope, self._access)
        if refused is None:
            await self._app(scope, receive, send_guarded)
        else:
            await send_problem(send_guarded, *refused)


def host_of(netloc: str) -> str:
    """The name in a `Host` header, in lower case, without port and brackets."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0].lower()
    return netloc.partition(":")[0].lower().rstrip(".")


def _refused(scope: Scope, access: Access) -> tuple[int, str] | None:
    headers = _headers(scope)
    return (
        _refused_host(headers, access)
        or _refused_token(scope["path"], headers, access)
        or _refused_origin(scope["method"], headers)
    )


def _refused_host(headers: Headers, access: Access) -> tuple[int, str] | None:
    given = headers.get("host", [])
    if len(given) == 1 and host_of(given[0].decode("latin-1")) in access.hosts:
        return None
    return 421, "this server does not answer for that name: add the name to poller.allowed_hosts if it is yours"


def _refused_token(path: str, headers: Headers, access: Access) -> tuple[int, str] | None:
    if access.token is None or path in OPEN:
        return None
    try:
        wanted = access.token.reveal()
    except SecretError as error:
        return 503, f"poller.token cannot be read: {error}"
    given = _token(headers.get("authorization", [b""])[0])
    if hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(wanted.encode()).digest()):
        return None
    return 401, "a token is needed: Authorization: Bearer TOKEN"


def _token(authorization: bytes) -> bytes:
    """The token of a request: as Bearer, or as the password of Basic, which every browser can ask for."""
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _refused_origin(method: str, headers: Headers) -> tuple[int, str] | None:
    """Whether the browser says that the request comes from another site. A client that says nothing is not a
    browser.
    """
    if method in HARMLESS:
        return None
    site = headers.get("sec-fetch-site", [b"none"])[0]
    origin = next(iter(headers.get("origin", ())), None)
    if site in (b"none", b"same-origin") and (origin is None or _is_here(origin, headers["host"][0])):
        return None
    return 403, "pages of other sites may not change anything here; a proxy has to pass on the Host of its clients"


def _is_here(origin: bytes, host: bytes) -> bool:
    try:
        parts = urlsplit(origin.decode("latin-1"))
    except ValueError:
        return False
    default = PORTS.get(parts.scheme, "")
    ours = host.decode("latin-1").lower().removesuffix(default)
    return default != "" and parts.netloc.lower().removesuffix(default) == ours


def _headers(scope: Scope) -> Headers:
    headers: Headers = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value)
    return headers


def _missing(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name.lower() for name, _ in given}
    return [header for header in HEADERS if header[0] not in names]
