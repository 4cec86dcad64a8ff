"""Every call of a source is written down before it leaves and paid from the budget: held against a real server."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from poller.budget.budget import Budget
from poller.budget.limiter import CallRecords, RateLimiter
from poller.budget.limits import Limit
from poller.clock import VirtualClock
from poller.sources import renewal
from poller.sources.auth import TokenAuth
from poller.sources.errors import FetchError, TooLarge, TooSlow
from poller.sources.transport import Network, build_client, fetch, system_trust
from tests.support.upstream import serving

DAY = 86_400.0


class Written:
    """The calls as a store would keep them."""

    def __init__(self) -> None:
        self.calls: list[float | None] = []  # when each was answered
        self.throttled: list[float] = []
        self.is_broken = False

    async def spend(self, answers: list[tuple[int, float]]) -> int:
        if self.is_broken:
            raise OSError("the disk is full")
        await self.flush(answers)
        self.calls.append(None)
        return len(self.calls) - 1

    async def flush(self, answers: list[tuple[int, float]]) -> None:
        for number, at in answers:
            self.calls[number] = at

    async def throttle(self, until: float) -> None:
        self.throttled.append(until)


class Api:
    """A server that notes how many calls were written down when each arrived."""

    def __init__(self, written: Written) -> None:
        self.arrived: list[tuple[str, int]] = []
        self.headers: dict[str, str] = {}
        self.status = 200
        self.token = "t1"
        self.ports: set[int] = set()  # of connections
        self.body: Callable[[], AsyncIterator[bytes]] | None = None
        self.path_of_body = "/list"
        self._written = written

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.arrived.append((path, len(self._written.calls)))
        self.ports.add(request.client.port if request.client else 0)
        if path.startswith("/hop/"):
            left = int(path.removeprefix("/hop/"))
            return RedirectResponse(f"/hop/{left - 1}" if left > 1 else "/list")
        if path == "/members":
            return RedirectResponse("/login?next=/members", 302)
        if path == "/login":
            return Response("<!doctype html><title>Log in</title>", media_type="text/html")
        if path in ("/search", "/moved"):
            return RedirectResponse("/list", 302 if path == "/search" else 308)
        if path == "/away":
            return RedirectResponse("http://localhost:9/elsewhere")
        if path == self.path_of_body and self.body is not None:
            return StreamingResponse(self.body())
        if path == "/token":
            return Response(f'{{"access_token": "{self.token}", "expires_in": 3600}}')
        if path == "/guarded" and request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(status_code=401)
        if self.body is not None:
            return StreamingResponse(self.body(), headers=self.headers)
        return Response("[]", self.status, headers=self.headers)


class Setup:
    """A client with its budget, on a clock that moves only when everybody waits for it."""

    def __init__(self, url: str, api: Api, written: Written, limits: list[Limit], auth: Any, options: Any) -> None:
        self.url, self.api, self.written = url, api, written
        self.clock = VirtualClock()
        self.budget = Budget("k", limits, share=1.0)
        records = CallRecords(spend=written.spend, flush=written.flush, throttle=written.throttle)
        self.limiter = RateLimiter(self.budget, self.clock, records)
        network = Network(source="s", **{"timeout": 30.0, "most": 32_000_000, **options})
        self.client = build_client(network, limiter=self.limiter, auth=auth and auth(httpx.URL(url)))

    async def get(self, path: str = "/list") -> httpx.Response:
        return await self.moving(fetch(self.client, httpx.Request("GET", self.url + path)))

    async def moving(self, work: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=0.005)
            if (at := self.clock.next_waking()) is not None:
                self.clock.advance(max(0.0, at - self.clock.steady()))
        return task.result()


@asynccontextmanager
async def setup(*limits: Limit, auth: Any = None, **options: Any) -> AsyncIterator[Setup]:
    written = Written()
    api = Api(written)
    app = Starlette(routes=[Route("/{path:path}", api.answer, methods=["GET", "POST"])])
    async with serving(app) as url:
        made = Setup(url, api, written, list(limits) or [Limit(100, 1.0)], auth, options)
        try:
            yield made
        finally:
            await made.client.aclose()


async def test_a_call_is_written_down_before_it_arrives():
    async with setup() as s:
        for _ in range(3):
            await s.get()

    assert s.api.arrived == [("/list", 1), ("/list", 2), ("/list", 3)]


async def test_a_call_that_cannot_be_written_down_does_not_leave():
    async with setup() as s:
        s.written.is_broken = True
        with pytest.raises(OSError, match="disk is full"):
            await s.get()

        assert s.api.arrived == []
        assert s.budget.in_flight == 0


async def test_redirects_are_paid_like_any_call():
    async with setup(Limit(2, 60.0)) as s:
        began = s.clock.steady()
        await s.get("/hop/3")

    assert s.api.arrived == [("/hop/3", 1), ("/hop/2", 2), ("/hop/1", 3), ("/list", 4)]
    assert s.clock.steady() - began == pytest.approx(60, abs=0.1)


async def test_a_redirect_to_another_origin_is_not_followed():
    async with setup() as s:
        with pytest.raises(FetchError, match="another origin"):
            await s.get("/away")
        with pytest.raises(FetchError, match="more than 5 times"):
            await s.get("/hop/9")

    assert len(s.written.calls) == 1 + 6


async def test_a_redirect_to_a_page_to_log_in_names_the_page():
    async with setup() as s:
        with pytest.raises(
            FetchError, match=r"/members: redirected to http://.*/login\?next=…, which is a page of HTML"
        ):
            await s.get("/members")


async def test_a_post_that_is_redirected_as_a_get_is_not_followed():
    async with setup() as s:
        with pytest.raises(FetchError, match=r"redirected to http://.*/list, but as a GET instead of a POST"):
            await s.moving(fetch(s.client, httpx.Request("POST", s.url + "/search", json={"q": "x"})))
        await s.moving(fetch(s.client, httpx.Request("POST", s.url + "/moved", json={"q": "x"})))

    assert [path for path, _ in s.api.arrived] == ["/search", "/moved", "/list"]


class Grants:
    """Asks the server itself for tokens."""

    def __init__(self, url: httpx.URL) -> None:
        self._url = url

    def ask(self, refresh: str | None) -> httpx.Request:
        return httpx.Request("POST", self._url.join("/token"))


async def test_logins_and_renewed_tokens_are_paid_like_any_call():
    async with setup(auth=lambda url: TokenAuth(url, Grants(url))) as s:
        await s.get("/guarded")
        s.api.token = "t2"
        await s.get("/guarded")

    paths = ["/token", "/guarded", "/guarded", "/token", "/guarded"]
    assert s.api.arrived == [(path, number) for number, path in enumerate(paths, start=1)]


async def test_a_call_counts_until_its_window_after_its_last_byte():
    async with setup(Limit(1, 10.0)) as s:

        async def body() -> AsyncIterator[bytes]:
            yield b"["
            s.clock.advance(7.0)
            yield b"]"

        s.api.body = body
        began = s.clock.steady()
        await s.get()
        assert s.budget.wait(s.clock.steady()) == pytest.approx(10, abs=0.01)
        await s.get()

    assert s.clock.steady() - began == pytest.approx(7 + 10 + 7, abs=0.1)


async def test_a_call_that_fails_counts_as_answered_then():
    async with setup(Limit(1, 10.0)) as s:
        dead = httpx.Request("GET", "http://127.0.0.1:9/")
        with pytest.raises(FetchError, match="no answer"):
            await fetch(s.client, dead)

        assert s.budget.in_flight == 0
        assert s.budget.wait(s.clock.steady()) == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize(
    ("options", "begin", "error", "match"),
    [
        ({"most": 5000}, b"", TooLarge, "more than 5,000 bytes"),
        ({"most": 5000}, gzip.compress(b"[]"), TooLarge, "more than 5,000 bytes"),
        ({"timeout": 0.2}, b"", TooSlow, "not complete within"),
    ],
    ids=["too large", "too large after the end of its coding", "too slow"],
)
async def test_an_answer_that_is_too_large_or_too_slow_is_cut_and_counts(
    options: dict[str, Any], begin: bytes, error: type[FetchError], match: str
) -> None:
    async with setup(**options) as s:

        async def endless() -> AsyncIterator[bytes]:
            yield begin
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.01)

        s.api.body, s.api.headers = endless, {"content-encoding": "gzip"} if begin else {}
        with pytest.raises(error, match=match):
            await s.get()

        assert s.budget.in_flight == 0


async def test_a_permit_pays_for_the_first_call_alone():
    async with setup() as s, await s.limiter.permit():
        assert len(s.written.calls) == 1
        await s.get()
        assert len(s.written.calls) == 1
        await s.get()
        assert len(s.written.calls) == 2


async def test_an_unused_permit_is_over_and_its_call_counts():
    async with setup(Limit(1, 10.0)) as s:
        async with await s.limiter.permit():
            assert s.budget.in_flight == 1
        assert s.budget.wait(s.clock.steady()) == pytest.approx(10, abs=0.01)


async def test_answers_that_no_later_call_took_along_are_flushed():
    async with setup() as s:
        await s.get()
        assert s.written.calls == [None]
        await s.limiter.flush()

    assert s.written.calls == [pytest.approx(s.clock.steady())]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"retry-after": "30"}),
        (503, {"retry-after": "30"}),
        (429, {"retry-after": "{date}", "date": "{now}"}),
        (200, {"ratelimit": '"default";r=0;t=30', "ratelimit-policy": '"default";q=100;w=60'}),
        (200, {"ratelimit-remaining": "0", "ratelimit-reset": "30"}),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "{epoch}", "date": "{now}"}),
    ],
)
async def test_the_servers_own_word_holds_calls_back_and_survives_a_restart(status, headers):
    async with setup() as s:
        now = s.clock.now()
        words = {"date": formatdate(now + 30, usegmt=True), "now": formatdate(now, usegmt=True), "epoch": f"{now + 30}"}
        s.api.status, s.api.headers = status, {name: text.format(**words) for name, text in headers.items()}
        await s.get()
        steady = s.clock.steady()

        assert s.budget.wait(steady) == pytest.approx(30, abs=0.01)
        assert s.written.throttled == [pytest.approx(steady + 30, abs=0.01)]
        restarted = Budget("k", [Limit(100, 1.0)])
        restarted.restore([], steady, throttled_until=s.written.throttled[-1])
        assert restarted.wait(steady) == pytest.approx(30, abs=0.01)


async def test_a_429_without_a_word_backs_off_longer_each_time_and_not_in_step():
    async with setup(Limit(1000, 1.0)) as s:
        s.api.status = 429
        waits = []
        for _ in range(6):
            await s.get()
            waits.append(s.budget.wait(s.clock.steady()))
        assert s.limiter.refused == 6
        s.api.status = 200
        await s.get()

    for step, wait in enumerate(waits):
        assert 0.8 * 2**step <= wait <= 1.2 * 2**step
    assert len({wait / 2**step for step, wait in enumerate(waits)}) == 6


async def test_a_token_endpoint_without_end_is_cut_like_a_list():
    async with setup(auth=lambda url: TokenAuth(url, Grants(url)), most=5000, timeout=2.0) as s:

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)

        s.api.body, s.api.path_of_body = endless, "/token"
        with pytest.raises(TooLarge, match="/token: more than 5,000 bytes"):
            await s.get("/guarded")

        assert s.budget.in_flight == 0


async def test_a_list_of_millions_of_values_is_refused_before_it_is_split():
    async with setup() as s:

        async def body() -> AsyncIterator[bytes]:
            yield b"[" + b"{}," * 1_500_000 + b"{}]"

        s.api.body = body
        with pytest.raises(TooLarge, match="more than 2,000,000 JSON values"):
            await s.get()


async def test_a_proxy_that_does_not_answer_is_named_without_its_password():
    async with setup(Limit(100, 60.0), proxy="http://someone:proxy-password-7@127.0.0.1:1") as it:
        with pytest.raises(FetchError, match=r"no answer through the proxy http://127\.0\.0\.1:1") as raised:
            await it.get()
    assert "password" not in str(raised.value)


@pytest.mark.parametrize(("longest", "seen"), [(300.0, 1), (0.0, 3)])
async def test_a_connection_is_renewed_although_it_is_busy(monkeypatch, longest, seen):
    monkeypatch.setattr(renewal, "LONGEST", longest)
    async with setup() as s:
        for _ in range(3):
            await s.get()
        assert len(s.api.ports) == seen


async def test_an_answer_is_read_to_its_end_while_its_connection_is_renewed(monkeypatch):
    monkeypatch.setattr(renewal, "LONGEST", 0.0)
    begun, over = asyncio.Event(), asyncio.Event()

    async def body():
        yield b"["
        begun.set()
        await over.wait()
        yield b"]"

    async with setup() as s:
        s.api.body = body
        reading = asyncio.ensure_future(s.get())
        await begun.wait()
        s.api.body = None
        await s.get()
        over.set()
        assert (await reading).content == b"[]"


@pytest.mark.parametrize(("after", "method", "calls"), [(b"", "GET", 4), (b"\r\n", "GET", 4), (b"", "POST", 2)])
async def test_a_call_over_a_kept_connection_that_brings_no_answer_is_repeated_over_a_new_one(after, method, calls):
    arrived = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]" + after)
        with contextlib.suppress(asyncio.IncompleteReadError):
            arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with setup() as s, await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await s.moving(fetch(s.client, httpx.Request("GET", url)))
        if method == "POST":
            with pytest.raises(FetchError, match="no answer"):
                await s.moving(fetch(s.client, httpx.Request(method, url)))
        else:
            for _ in range(2):
                assert (await s.moving(fetch(s.client, httpx.Request(method, url)))).content == b"[]"
        await s.client.aclose()

    assert (len(arrived), len(s.written.calls)) == (calls, calls)  # each call is paid
    assert [b"connection: close" in head.lower() for head in arrived] == [False, False, True, True][:calls]


async def test_certificates_are_read_for_the_first_call_with_tls():
    system_trust.cache_clear()
    async with setup() as s:
        await s.get()
        assert system_trust.cache_info().currsize == 0

        s.url = s.url.replace("http://", "https://")
        with pytest.raises(FetchError):
            await s.get()
        assert system_trust.cache_info().currsize == 1
