import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from poller.sources.auth import AuthError, AuthTable, OAuth2, OAuth2Grants, TokenAuth, authenticate, read_token
from tests.support.upstream import serving

TABLE = TypeAdapter(AuthTable)
HOME = httpx.URL("https://shop.example/api")


def make_auth(table: dict[str, Any], origin: str | httpx.URL = HOME, **context: Any) -> httpx.Auth | None:
    return authenticate(TABLE.validate_python(table, context=context), httpx.URL(origin))


def sent(auth: httpx.Auth | None, url: str = "https://shop.example/api/items?a=1") -> httpx.Request:
    """The request as it leaves."""
    assert auth is not None
    return next(auth.sync_auth_flow(httpx.Request("GET", url)))


# --- credentials that are added as they are


def test_a_bearer_token_goes_into_the_authorization_header():
    assert sent(make_auth({"type": "bearer", "token": "t"})).headers["authorization"] == "Bearer t"


def test_basic_credentials_may_be_any_text():
    header = sent(make_auth({"type": "basic", "username": "ana", "password": "sö:"})).headers["authorization"]

    assert header == "Basic " + b64encode("ana:sö:".encode()).decode()


def test_a_key_goes_into_its_header():
    assert sent(make_auth({"type": "header", "name": "X-Api-Key", "value": "k"})).headers["x-api-key"] == "k"


def test_a_key_goes_into_the_query_beside_what_is_there():
    assert str(sent(make_auth({"type": "query", "name": "key", "value": "a&b"})).url) == (
        "https://shop.example/api/items?a=1&key=a%26b"
    )


def test_a_key_in_the_query_leaves_the_rest_of_a_next_url_as_it_is():
    url = "https://shop.example/api/items?c=%E9&f=a%26b&f=x+y,z&e&key=old&sig=ab%2F=="

    with_key = sent(make_auth({"type": "query", "name": "key", "value": "k"}), url)

    assert str(with_key.url) == "https://shop.example/api/items?c=%E9&f=a%26b&f=x+y,z&e&sig=ab%2F==&key=k"


def test_an_open_api_needs_none():
    assert make_auth({"type": "none"}) is None


@pytest.mark.parametrize(
    "table",
    [
        {"type": "bearer", "token": "hush"},
        {"type": "basic", "username": "ana", "password": "hush"},
        {"type": "header", "name": "X-Key", "value": "hush"},
        {"type": "query", "name": "key", "value": "hush"},
    ],
    ids=lambda table: table["type"],
)
@pytest.mark.parametrize("url", ["https://evil.example/", "http://shop.example/", "https://shop.example:8443/"])
def test_credentials_go_to_their_own_origin_only(table, url):
    request = sent(make_auth(table), url)

    assert "hush" not in str(request.url)
    assert request.headers.keys() <= {"host"}


def test_a_changed_file_is_used_for_the_next_request(tmp_path):
    (tmp_path / "token").write_text("old")
    auth = make_auth({"type": "bearer", "token": {"file": "token"}}, root=tmp_path)
    assert sent(auth).headers["authorization"] == "Bearer old"

    (tmp_path / "fresh").write_text("new")
    os.replace(tmp_path / "fresh", tmp_path / "token")

    assert sent(auth).headers["authorization"] == "Bearer new"


@pytest.mark.parametrize("token", ["two\nlines", "tökén", "nul\0"])
def test_a_token_that_no_header_may_hold_is_an_error_that_does_not_show_it(token):
    with pytest.raises((AuthError, ValidationError), match="no HTTP header") as raised:
        sent(make_auth({"type": "bearer", "token": token}))
    assert token not in str(raised.value)


def test_a_secret_that_cannot_be_read_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.delenv("NOWHERE_SET", raising=False)
    auth = make_auth({"type": "bearer", "token": {"env": "NOWHERE_SET"}}, secrets="later")

    with pytest.raises(AuthError, match="NOWHERE_SET is not set") as raised:
        sent(auth)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"type": "barer", "token": "hush"}, "bearer"),
        ({"type": "bearer", "tokn": "hush"}, "tokn"),
        ({"type": "header", "name": "X Key", "value": "hush"}, "this is not"),
        ({"type": "oauth2", "token_url": "/token", "client_id": "a", "client_secret": "hush"}, "https://"),
    ],
)
def test_a_wrong_table_is_refused_without_showing_a_secret(table, says):
    with pytest.raises(ValidationError) as raised:
        TABLE.validate_python(table)
    assert says in str(raised.value)
    assert "hush" not in str([problem["msg"] for problem in raised.value.errors()])


# --- tokens


@dataclass
class Bank:
    """An API whose tokens last as long as it likes, and that keeps what it was asked."""

    life: float = 3600.0
    refresh: bool = False
    broken: list[tuple[int, bytes]] = field(default_factory=list)  # answers of the token endpoint to come
    valid: set[str] = field(default_factory=set)
    asked: list[dict[str, str]] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    served: int = 0
    refusal: tuple[int, str] = (401, "who are you?")  # the answer to a token that is not valid
    silent: bool = False  # the token endpoint does not answer before `go_on`
    waited_on: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def token(self, request: Request) -> Response:
        """Give out a token, or the next broken answer."""
        self.asked.append({key: values[0] for key, values in parse_qs((await request.body()).decode()).items()})
        self.clients.append(request.headers.get("authorization", ""))
        if self.silent:
            self.waited_on.set()
            await self.go_on.wait()
        if self.broken:
            status, body = self.broken.pop(0)
            return Response(body, status, headers={"Retry-After": "7"})
        token = f"token-{len(self.asked)}"
        self.valid = {token}
        body = {"access_token": token, "token_type": "bearer", "expires_in": self.life}
        return JSONResponse(body | ({"refresh_token": f"refresh-{len(self.asked)}"} if self.refresh else {}))

    async def items(self, request: Request) -> Response:
        """The list, for who has a valid token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.valid:
            return PlainTextResponse(self.refusal[1], self.refusal[0])
        self.served += 1
        return JSONResponse([])

    def app(self) -> Starlette:
        """The API."""
        return Starlette(routes=[Route("/token", self.token, methods=["POST"]), Route("/items", self.items)])


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(bank: Bank, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    """A client with OAuth 2 credentials of the bank's."""
    async with serving(bank.app()) as url:
        table = OAuth2.model_validate(
            {"type": "oauth2", "token_url": f"{url}/token", "client_id": "id", "client_secret": "s:1", "scope": "read"}
        )
        auth = TokenAuth(httpx.URL(url), OAuth2Grants(table), clock=clock)
        async with httpx.AsyncClient(base_url=url, auth=auth, trust_env=False) as client:
            yield client


async def test_a_token_is_asked_for_once_and_used_by_all(client, bank):
    answers = await asyncio.gather(*(client.get("/items") for _ in range(5)))

    assert [answer.status_code for answer in answers] == [200] * 5
    assert bank.asked == [{"grant_type": "client_credentials", "scope": "read"}]
    assert b64decode(bank.clients[0].removeprefix("Basic ")) == b"id:s%3A1"


async def test_a_token_is_renewed_before_it_ends(client, bank, clock):
    await client.get("/items")
    clock.now += bank.life - 301
    await client.get("/items")
    assert len(bank.asked) == 1

    clock.now += 2
    answer = await client.get("/items")

    assert (answer.status_code, len(bank.asked), bank.served) == (200, 2, 3)


async def test_a_refused_token_is_renewed_once_and_the_request_repeated(client, bank):
    await client.get("/items")
    bank.valid.clear()

    answer = await client.get("/items")

    assert (answer.status_code, len(bank.asked)) == (200, 2)


@pytest.mark.parametrize(
    ("status", "text", "age", "is_renewed"),
    [
        (403, '{"error": {"code": "InvalidTokenError", "message": "Challenge failed: TokenExpired"}}', 61, True),
        (400, '{"message": "An active access token is required", "type": "TokenInvalidError"}', 61, True),
        (403, '{"message": "The access token is invalid"}', 59, False),  # it was not valid before either
        (403, '{"message": "Not permitted"}', 899, False),
        (403, '{"message": "Not permitted"}', 901, True),
        (400, '{"message": "limit is invalid"}', 901, False),
        (403, '{"message": "Too many requests"}', 901, False),
        (404, '{"message": "invalid token"}', 901, False),
    ],
)
async def test_a_token_is_renewed_by_whatever_status_says_that_it_has_ended(
    client, bank, clock, status, text, age, is_renewed
):
    bank.refusal = (status, text)
    await client.get("/items")
    bank.valid.clear()
    clock.now += age

    answer = await client.get("/items")

    assert (answer.status_code, len(bank.asked)) == ((200, 2) if is_renewed else (status, 1))


async def test_a_renewal_in_vain_ends_with_the_401(client, bank):
    bank.broken = [(200, json.dumps({"access_token": f"useless-{n}"}).encode()) for n in range(2)]

    answer = await client.get("/items")

    assert (answer.status_code, len(bank.asked), bank.served) == (401, 2, 0)


async def test_requests_refused_together_renew_once(client, bank):
    await client.get("/items")
    bank.valid.clear()

    answers = await asyncio.gather(*(client.get("/items") for _ in range(4)))

    assert {answer.status_code for answer in answers} == {200}
    assert len(bank.asked) == 2


async def test_a_refresh_token_is_used_for_the_renewal(client, bank, clock):
    bank.refresh = True
    await client.get("/items")
    bank.refresh = False  # the renewals bring none: the one that came first is used again
    for _ in range(2):
        clock.now += bank.life
        await client.get("/items")

    assert bank.asked[1:] == [{"grant_type": "refresh_token", "refresh_token": "refresh-1", "scope": "read"}] * 2


@pytest.mark.parametrize("refusal", [400, 401, 403])
async def test_a_refused_refresh_token_falls_back_to_the_credentials(client, bank, clock, refusal):
    bank.refresh = True
    await client.get("/items")
    clock.now += bank.life
    bank.broken = [(refusal, b'{"error": "invalid_grant"}')]

    answer = await client.get("/items")

    assert answer.status_code == 200
    bank.refresh = False
    for _ in range(2):
        clock.now += bank.life
        await client.get("/items")
    kinds = ["client_credentials", "refresh_token", "client_credentials", "refresh_token", "refresh_token"]
    assert [form["grant_type"] for form in bank.asked] == kinds


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_outage_of_the_token_endpoint_is_the_requests_own_answer(client, bank, status):
    bank.broken = [(status, b"busy")]

    answer = await client.get("/items")

    assert (answer.status_code, answer.headers["retry-after"], answer.request.url.path) == (status, "7", "/token")
    assert (await client.get("/items")).status_code == 200


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, b'{"error": "invalid_client", "error_description": "hush"}', "400, invalid_client"),
        (401, b"<html>hush</html>", "401, the answer is no JSON object"),
        (200, b'{"error": "incorrect_client_credentials", "error_description": "hush"}', "200, incorrect_client_"),
        (200, b'{"token": "hush"}', "200, no token in the answer"),
        (200, b'{"access_token": "two\\nhush"}', "200, no token in the answer"),
    ],
)
async def test_refused_credentials_are_an_error_without_the_answers_body(client, bank, status, body, says):
    bank.broken = [(status, body)]

    with pytest.raises(AuthError, match=says) as raised:
        await client.get("/items")

    assert "hush" not in str(raised.value)
    assert (raised.value.status, bool(raised.value.hint)) == (None if "200, no token" in says else 401, True)


async def test_a_login_that_is_given_up_does_not_block_the_next(client, bank):
    bank.silent = True
    asking = asyncio.create_task(client.get("/items"))
    await bank.waited_on.wait()
    asking.cancel()
    await asyncio.wait([asking])
    bank.silent = False

    assert (await client.get("/items")).status_code == 200
    bank.go_on.set()


async def test_another_origin_sees_no_token_and_causes_no_login(client, bank):
    async with serving(bank.app()) as other:
        answer = await client.get(f"{other}/items")

    assert (answer.status_code, bank.asked) == (401, [])


def test_client_credentials_may_go_into_the_body_and_a_refresh_token_may_be_given():
    table = {"type": "oauth2", "token_url": "https://id.example/token", "client_id": "i", "client_secret": "s"}
    grants = OAuth2Grants(OAuth2.model_validate({**table, "client_auth": "body", "refresh_token": "r"}))

    request = grants.ask(None)

    assert request.content == b"grant_type=refresh_token&refresh_token=r&client_id=i&client_secret=s"
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("told", "until"), [(1000, 900.0), ("1000", 900.0), (None, 3300.0), ("soon", 3300.0), (0, 3300.0)]
)
def test_a_token_lasts_as_long_as_it_says_less_a_margin(told, until):
    content = b"\xef\xbb\xbf" + json.dumps({"access_token": "hush", "expires_in": told}).encode()
    answer = httpx.Response(200, content=content, request=httpx.Request("POST", HOME))

    token = read_token(answer, now=0.0)

    assert token.until == until
    assert "hush" not in repr(token)


def test_tokens_are_for_async_clients_only():
    auth = make_auth({"type": "oauth2", "token_url": f"{HOME}/token", "client_id": "i", "client_secret": "s"})

    with pytest.raises(RuntimeError, match="AsyncClient"):
        sent(auth)


def test_a_token_in_an_answer_of_millions_of_values_is_not_looked_for():
    answer = httpx.Response(
        200, content=b"[" + b"{}," * 100_000 + b"{}]", request=httpx.Request("POST", "https://id.example/token")
    )

    with pytest.raises(AuthError, match="no JSON object"):
        read_token(answer, now=0.0)
