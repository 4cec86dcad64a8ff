"""Credentials of a source, as httpx auth flows. Their calls (a login, a renewal) are spent like all others.

Tokens are kept in memory only. A secret is read again for every request, so a changed file is used at once. Credentials
are never added to a request for another origin than the source's own.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol
from urllib.parse import quote_plus

import httpx
import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from poller.options.forms import TextForm
from poller.options.secrets import HeaderSecret, Secret, SecretError
from poller.redaction import SECRETS
from poller.sources.charsets import opening
from poller.sources.pagination import same_origin
from poller.sources.protocol import PageError
from poller.sources.statuses import READ, is_refusal
from poller.sources.urls import with_parameters

_EARLY: Final = 300.0  # a token is renewed so many seconds before it ends, or a tenth of its life if that is less
_DEFAULT_LIFE: Final = 3600.0  # seconds, if the answer names none (RFC 6749 section 5.1 only recommends it)
_LARGEST: Final = 100_000  # bytes of a token endpoint's answer: millions of values would take gigabytes
_SETTLED: Final = 60.0  # seconds: the age from which a token that an answer calls invalid may have been a valid one
_OLD: Final = 900.0  # seconds: the age from which any 403 may mean that the token has ended
_OF_TOKENS: Final = re.compile(
    r"token.{0,60}(?:expired|invalid|revoked|required)|(?:expired|invalid|revoked|active).{0,40}token", re.I | re.S
)
_OUTAGES: Final = (408, 425, 429)  # as well as 5xx: such an answer says nothing about the credentials

HeaderName = Annotated[
    str,
    TextForm(
        r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "this is not the name of a header: letters, digits and signs such as - and _"
    ),
]


class AuthError(PageError):
    """The source's credentials cannot be used: they were refused by the token endpoint, or cannot be read.

    `status` is 401 if they were refused, as if the list itself had answered so.
    """

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Bearer(_Table):
    """`Authorization: Bearer TOKEN` (RFC 6750)."""

    type: Literal["bearer"]
    token: HeaderSecret


class Basic(_Table):
    """User name and password (RFC 7617)."""

    type: Literal["basic"]
    username: Secret
    password: Secret


class Header(_Table):
    """A key in a header."""

    type: Literal["header"]
    name: HeaderName
    value: HeaderSecret


class Query(_Table):
    """A key in the URL's query."""

    type: Literal["query"]
    name: str = Field(min_length=1)
    value: Secret


class OAuth2(_Table):
    """OAuth 2 client credentials (RFC 6749 section 4.4), or a refresh token that was issued before (section 6)."""

    type: Literal["oauth2"]
    token_url: str
    client_id: Secret
    client_secret: Secret
    scope: str | None = None
    refresh_token: Secret | None = None
    client_auth: Literal["basic", "body"] = "basic"  # how the token endpoint expects the client's own credentials

    @field_validator("token_url")
    @classmethod
    def _is_url(cls, text: str) -> str:
        return http_url(text)


class NoAuth(_Table):
    """The API needs no credentials."""

    type: Literal["none"] = "none"


AuthTable = Annotated[Bearer | Basic | Header | Query | OAuth2 | NoAuth, Field(discriminator="type")]


def http_url(text: str) -> str:
    """Check an absolute http(s) URL without credentials in it, for pydantic. Raises ValueError."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise ValueError(f"not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("a URL begins with https:// (or http://) and names a host")
    if url.userinfo:
        raise ValueError('credentials do not belong into a URL; use auth = { type = "basic", ... }')
    return text


def authenticate(table: AuthTable, origin: httpx.URL) -> httpx.Auth | None:
    """The auth flow of a source whose requests go to `origin`."""
    match table:
        case Bearer(token=token):
            return StaticAuth(origin, lambda request: authorize(request, "Bearer", text(token)))
        case Basic():
            return StaticAuth(origin, lambda request: _add_basic(request, table.username, table.password))
        case Header(name=name, value=value):
            return StaticAuth(origin, lambda request: _add_header(request, name, text(value)))
        case Query(name=name, value=value):
            return StaticAuth(origin, lambda request: _add_param(request, name, revealed(value)))
        case OAuth2():
            return TokenAuth(origin, OAuth2Grants(table))
    return None


def revealed(secret: Secret) -> str:
    """A secret's current value. Raises AuthError."""
    try:
        return secret.reveal()
    except SecretError as exc:
        raise AuthError(str(exc), hint=exc.hint) from exc


def read(name: Secret) -> str:
    """The value of a name that is not secret itself. Raises AuthError."""
    try:
        return name.read()
    except SecretError as exc:
        raise AuthError(str(exc), hint=exc.hint) from exc


def text(secret: Secret) -> str:
    """A secret that is valid in a header. Raises AuthError, because an HTTP library's own error would show the
    value.
    """
    value = revealed(secret)
    if not (value.isascii() and value.isprintable()):
        raise AuthError(
            f"{secret!r} contains characters that no HTTP header may contain",
            hint="look for a line break or a space in it",
        )
    return value


def authorize(request: httpx.Request, scheme: str, token: str) -> None:
    """Set the `Authorization` header."""
    _add_header(request, "Authorization", f"{scheme} {token}")


class StaticAuth(httpx.Auth):
    """Fixed credentials, added to requests for the source's own origin."""

    def __init__(self, origin: httpx.URL, add: Callable[[httpx.Request], None]) -> None:
        self._origin = origin
        self._add = add

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if same_origin(request.url, self._origin):
            self._add(request)
        yield request


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Token:
    """An issued token. Never shown."""

    value: str
    since: float  # when it was given, by the flow's own clock
    until: float  # renewed from then on
    refresh: str | None = None


class Grants(Protocol):
    """How an API issues tokens."""

    def ask(self, refresh: str | None) -> httpx.Request:
        """The request for a token: by the refresh token that came with the last one, or from the beginning."""
        ...


@dataclass(frozen=True, slots=True)
class OAuth2Grants:
    """Tokens by OAuth 2: from a refresh token, else from the client's credentials."""

    table: OAuth2

    def ask(self, refresh: str | None) -> httpx.Request:
        """The request for a token."""
        table = self.table
        if refresh is None and table.refresh_token:
            refresh = revealed(table.refresh_token)
        form = {"grant_type": "refresh_token", "refresh_token": refresh} if refresh else {}
        form = form or {"grant_type": "client_credentials"}
        if table.scope:
            form["scope"] = table.scope
        client, secret = read(table.client_id), revealed(table.client_secret)
        SECRETS.add_pair(quote_plus(client), quote_plus(secret))
        if table.client_auth == "body":
            return token_request(table.token_url, {**form, "client_id": client, "client_secret": secret})
        request = token_request(table.token_url, form)
        # RFC 6749 section 2.3.1: both are form-encoded before they are joined.
        authorize(request, "Basic", _base64(f"{quote_plus(client)}:{quote_plus(secret)}"))
        return request


class TokenAuth(httpx.Auth):
    """A token that is requested, kept in memory, renewed before it ends and once after it is refused.

    Requests without a token wait for the one that requests it. An outage of the token endpoint (429, 5xx) is returned
    as the request's own answer, so it is handled like any other. Raises AuthError if the credentials are refused.
    """

    def __init__(
        self,
        origin: httpx.URL,
        grants: Grants,
        *,
        scheme: str = "Bearer",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._origin = origin
        self._grants = grants
        self._scheme = scheme
        self._clock = clock
        self._token: Token | None = None
        self._lock = asyncio.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:  # noqa: ARG002
        """Refuse synchronous use: two threads would log in twice."""
        raise RuntimeError("tokens are asked for by an httpx.AsyncClient only")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """The request with a token, after the calls that a token takes."""
        if not same_origin(request.url, self._origin):
            yield request
            return
        refused: Token | None = None
        for _ in range(2):
            async with self._lock:
                token = self._token
                if token is None or token is refused or self._clock() >= token.until:
                    refresh = token.refresh if token else None
                    answer = yield self._grants.ask(refresh)
                    await answer.aread()
                    if refresh and answer.status_code in (400, 401, 403):
                        refresh, answer = None, (yield self._grants.ask(None))
                        await answer.aread()
                    if _is_outage(answer.status_code):
                        return
                    self._token = token = read_token(answer, now=self._clock(), before=refresh)
            authorize(request, self._scheme, token.value)
            response = yield request
            if not await self._is_refused(response, token):
                return
            refused = token

    async def _is_refused(self, response: httpx.Response, token: Token) -> bool:
        """Whether an answer refuses the token: a 401, a 400 or 403 that says so in its text, or any 403 to a token that
        was given long ago. A server may end a token earlier than it has said, and answer all that is forbidden alike.
        """
        if response.status_code == 401:
            return True
        age = self._clock() - token.since
        if response.status_code not in (400, 403) or age < _SETTLED:
            return False
        await response.aread()
        if is_refusal(response):
            return False
        return (response.status_code == 403 and age >= _OLD) or _OF_TOKENS.search(opening(response, READ)) is not None


def token_request(url: str, form: dict[str, str]) -> httpx.Request:
    """A request for a token (RFC 6749 section 4: a form)."""
    return httpx.Request("POST", url, data=form, headers={"Accept": "application/json"})


def read_token(answer: httpx.Response, *, now: float, before: str | None = None) -> Token:
    """The token in an answer (RFC 6749 section 5). Raises AuthError, which names the error's code, never the body.

    `before` is the refresh token that was used: it stays valid if no other one comes (section 6).
    """
    try:
        content = answer.content.removeprefix(b"\xef\xbb\xbf")
        body = msgspec.json.decode(content) if len(content) <= _LARGEST else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    found = body if isinstance(body, dict) else {}
    value = found.get("access_token")
    if not answer.is_success or not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        code = found.get("error")
        is_code = isinstance(code, str) and code.isidentifier()
        said = code if is_code else "no token in the answer" if found else "the answer is no JSON object"
        url = answer.request.url.copy_with(query=None)
        raise AuthError(
            f"{url} gives no token: {answer.status_code}, {said}",
            hint="check the source's credentials, then run `poller check --online`",
            status=None if answer.is_success and not is_code else 401,  # GitHub refuses credentials with 200
        )
    life = _seconds(found.get("expires_in"))
    refresh = found.get("refresh_token")
    for given in (value, refresh):
        if isinstance(given, str):
            SECRETS.add(given)
    return Token(
        value=value,
        since=now,
        until=now + life - min(_EARLY, life / 10),
        refresh=refresh if isinstance(refresh, str) and refresh else before,
    )


def _seconds(value: Any) -> float:
    """The lifetime that a token has. 0 means that it is not known: a token that has ended would not be given."""
    try:
        life = float(value)
    except (TypeError, ValueError):
        return _DEFAULT_LIFE
    return life if life > 0 else _DEFAULT_LIFE


def _is_outage(status: int) -> bool:
    return status >= 500 or status in _OUTAGES


def _add_header(request: httpx.Request, name: str, value: str) -> None:
    request.headers[name] = value


def _add_param(request: httpx.Request, name: str, value: str) -> None:
    request.url = with_parameters(request.url, {name: value})


def _add_basic(request: httpx.Request, username: Secret, password: Secret) -> None:
    name, word = read(username), revealed(password)
    SECRETS.add_pair(name, word)
    authorize(request, "Basic", _base64(f"{name}:{word}"))


def _base64(plain: str) -> str:
    return b64encode(plain.encode()).decode("ascii")
