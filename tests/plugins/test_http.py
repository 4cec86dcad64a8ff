"""The http sink against a real server: signatures, statuses, templates, bounds and the address guard."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError
from standardwebhooks import Webhook

from plugins.http import BATCH_BYTES, HttpOptions, HttpSink, message_id, signature
from poller import Attempt, Event, Gone, Receipt, Refused, Rejected, RetryLater, TooLarge
from poller.sinks import connections
from poller.sinks.text import RECEIPT_BYTES
from tests.support.raw_server import answer, answering

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_KEY = "whsec_" + base64.b64encode(b"another key of 24 bytes!").decode()
FIRST = Attempt(number=1, delivery_id="7")


def make_event(**fields: Any) -> Event:
    data = fields.pop("data", {"object": {"id": 7, "name": "B"}, "version": 1})
    return Event(
        **{
            "id": "k4x",
            "source": "/sources/acme",
            "type": "nutcache.projects.created",
            "subject": "projects/7",
            "time": 1795472732.123,
            "observed_after": None,
            "raw": orjson.dumps(data),
            "seq": 1234,
            **fields,
        }
    )


@dataclass
class Callback:
    """A server that keeps what it was sent and answers as told."""

    url: str = ""
    answer: Callable[[web.Request], web.StreamResponse] = lambda request: web.Response(text="thanks")
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)

    @property
    def place(self) -> str:
        return self.url.removesuffix("/hook")

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        self.methods.append(request.method)
        self.connections.add(request.transport)
        return self.answer(request)


@pytest.fixture
async def callback() -> AsyncIterator[Callback]:
    async with serving() as server:
        yield server


@asynccontextmanager
async def serving() -> AsyncIterator[Callback]:
    server = Callback()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield server
    finally:
        await runner.cleanup()


def options(url: Any, **keys: Any) -> HttpOptions:
    return HttpOptions.model_validate({"url": url, "allow_private": True, **keys})


async def deliver(given: HttpOptions, *events: Event) -> Receipt:
    async with HttpSink("crm", given) as sink:
        return await sink.deliver(events or [make_event()], FIRST)


async def test_an_event_is_posted_as_a_cloudevent(callback: Callback) -> None:
    receipt = await deliver(options(callback.url), make_event())

    [(headers, body)] = callback.requests
    assert receipt == Receipt(status="200", text="thanks")
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["webhook-id"] == "k4x"
    assert orjson.loads(body)["subject"] == "projects/7"


async def test_the_signature_is_accepted_by_the_standardwebhooks_library(callback: Callback) -> None:
    await deliver(options(callback.url, secret=KEY), make_event())

    [(headers, body)] = callback.requests
    assert Webhook(KEY).verify(body, headers)["id"] == "k4x"


async def test_while_rotating_either_secret_verifies(callback: Callback) -> None:
    await deliver(options(callback.url, secret=[OTHER_KEY, KEY]), make_event())

    [(headers, body)] = callback.requests
    for key in (KEY, OTHER_KEY):
        assert Webhook(key).verify(body, headers)["id"] == "k4x"


def test_the_signature_is_that_of_the_published_vector() -> None:
    signed = signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [KEY])

    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_the_timestamp_is_of_the_attempt(callback: Callback) -> None:
    async with HttpSink("crm", options(callback.url, secret=KEY), clock=lambda: 1614265330.9) as sink:
        await sink.deliver([make_event()], FIRST)

    assert callback.requests[0][0]["webhook-timestamp"] == "1614265330"


async def test_batched_mode_sends_one_array(callback: Callback) -> None:
    await deliver(options(callback.url, mode="batched"), make_event(), make_event(id="k4y"))

    [(headers, body)] = callback.requests
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert [event["id"] for event in orjson.loads(body)] == ["k4x", "k4y"]
    assert headers["webhook-id"] == message_id([make_event(), make_event(id="k4y")])


async def test_structured_mode_sends_several_events_in_order(callback: Callback) -> None:
    await deliver(options(callback.url), make_event(), make_event(id="k4y"))

    assert [headers["webhook-id"] for headers, _ in callback.requests] == ["k4x", "k4y"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_delivered(callback: Callback, status: int) -> None:
    callback.answer = lambda request: web.Response(status=status)

    assert (await deliver(options(callback.url))).status == str(status)


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        *[(status, RetryLater) for status in (301, 302, 304, 307, 407, 408, 425, 429, 500, 502, 503, 504)],
        *[(status, Refused) for status in (400, 401, 403, 404, 405, 415, 422)],
        (410, Gone),
        (413, TooLarge),
    ],
)
async def test_each_status_says_what_happens_next(
    callback: Callback, status: int, raised: type[RetryLater | Refused | Gone | TooLarge]
) -> None:
    callback.answer = lambda request: web.Response(status=status, headers={"Location": "/elsewhere"})

    with pytest.raises(raised) as failure:
        await deliver(options(callback.url))
    assert failure.value.receipt.status == str(status)
    assert len(callback.requests) == 1


async def test_retry_after_is_handed_on(callback: Callback) -> None:
    callback.answer = lambda request: web.Response(status=429, headers={"Retry-After": "3600"})

    with pytest.raises(RetryLater) as failure:
        await deliver(options(callback.url))
    assert failure.value.after == 3600.0


async def test_the_start_of_the_answer_is_kept(callback: Callback) -> None:
    callback.answer = lambda request: web.Response(status=500, text="é" * 400_000)

    with pytest.raises(RetryLater) as failure:
        await deliver(options(callback.url))
    assert len(failure.value.receipt.text.encode()) <= RECEIPT_BYTES
    assert failure.value.receipt.text.startswith("éé")


async def test_an_endless_answer_is_cut_off() -> None:
    was_cut: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        try:
            for _ in range(10_000):  # 40 MB, which no buffer on the way takes
                writer.write(b"x" * 4096)
                await writer.drain()
            was_cut.set_result(False)
        except ConnectionError:
            was_cut.set_result(True)
        writer.close()

    server = await asyncio.start_server(long, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        receipt = await deliver(options(f"http://127.0.0.1:{port}/"))
        assert await was_cut

    assert receipt == Receipt(status="200", text="x" * RECEIPT_BYTES)


async def test_no_answer_in_time_is_tried_again() -> None:
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: taken.append(writer), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RetryLater) as failure:
            await deliver(options(f"http://127.0.0.1:{port}/", timeout="50ms"))
        for writer in taken:
            writer.close()

    assert failure.value.receipt.status == "timeout"


async def test_a_2xx_whose_body_breaks_off_is_delivered() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthan")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        receipt = await deliver(options(f"http://127.0.0.1:{port}/"))

    assert receipt.status == "200"


@pytest.mark.parametrize(
    "rest",
    [
        b"204 No Content\r\nContent-Length: 2\r\n\r\nok",
        b"204 No Content\r\nConnection: close\r\n\r\nok",
        b"204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"200 OK\r\nContent-Length: 0\r\n\r\nok",
        b"200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        b"200 OK\r\n" + b"Set-Cookie: a=b\r\n" * 200 + b"\r\n",
        b"200 OK\r\nContent-Security-Policy: " + b"x" * 50_000 + b"\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_2xx_is_delivered_although_the_rest_is_not_http(rest: bytes) -> None:
    async with answering(lambda _: b"HTTP/1.1 " + rest) as url:
        assert (await deliver(options(url))).status.startswith("20")


async def test_a_large_header_does_not_hide_how_long_to_wait() -> None:
    policy = b"Content-Security-Policy: " + b"x" * 16_000
    async with answering(lambda _: answer(b"", b"Retry-After: 120", policy, status=b"429 Slow down")) as url:
        with pytest.raises(RetryLater) as failure:
            await deliver(options(url))

    assert failure.value.after == 120


async def test_nobody_there_is_told_without_secrets(callback: Callback) -> None:
    url = "http://user:hunter2@127.0.0.1:1/hook?token=hunter2"

    with pytest.raises(RetryLater) as failure:
        await deliver(options(url))
    assert failure.value.receipt.status == "unreachable"
    assert "http://127.0.0.1:1/hook" in failure.value.receipt.text
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_private_addresses_are_refused_unless_allowed(callback: Callback, host: str) -> None:
    url = callback.url.replace("127.0.0.1", host)

    with pytest.raises(RetryLater) as failure:
        await deliver(options(url, allow_private=False))
    assert failure.value.receipt.status == "refused address"
    assert "allow_private" in failure.value.receipt.text
    assert callback.requests == []


@pytest.mark.parametrize(("longest", "opened"), [(300.0, 1), (0.0, 5)])
async def test_connections_are_kept_open_but_not_for_ever(
    callback: Callback, monkeypatch: pytest.MonkeyPatch, longest: float, opened: int
) -> None:
    monkeypatch.setattr(connections, "LONGEST", longest)
    async with HttpSink("crm", options(callback.url)) as sink:
        for number in range(5):
            await sink.deliver([make_event(id=f"k{number}")], FIRST)

        assert len(callback.connections) == opened


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/a%2Fb/%7Ec?sig=a%2Bb%2Fc%3D&sp=%2Frun&x=a+b&e=%c3%bc", None),
        ("/h(1)?q=%41&t=%27&u=%28a%29&v=a%2Cb", None),
        ("/\u00e4 b?x=\u00fc", "/%C3%A4%20b?x=%C3%BC"),
        ("/%zz?100%", "/%25zz?100%25"),
    ],
)
async def test_a_url_is_sent_as_it_is_written(callback: Callback, written: str, sent: str | None) -> None:
    paths = []
    callback.answer = lambda request: paths.append(request.raw_path) or web.Response()
    await deliver(options(callback.url.replace("//", "//me:p%40ss@") + written))

    assert paths == ["/hook" + (sent or written)]
    assert callback.requests[0][0]["authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()


async def test_a_later_attempt_of_a_digest_goes_on_where_the_one_before_it_failed(callback: Callback) -> None:
    events = [make_event(id=f"k{number}") for number in range(4)]
    room = [2, 1, 9]  # how many events the receiver takes, attempt by attempt

    def answer(request: web.Request) -> web.Response:
        room[0] -= 1
        return web.Response(status=200 if room[0] >= 0 else 429)

    callback.answer = answer
    async with HttpSink("crm", options(callback.url)) as sink:
        for number in (1, 2):
            with pytest.raises(RetryLater):
                await sink.deliver(events, Attempt(number=number, delivery_id="7"))
            del room[0]
        await sink.deliver(events[:3], Attempt(number=3, delivery_id="7"))  # a half
        await sink.deliver(events[3:], Attempt(number=3, delivery_id="8"))
        posted = [headers["webhook-id"] for headers, _ in callback.requests]
        assert posted == ["k0", "k1", "k2", "k2", "k3", "k3"]

        await sink.deliver(events[:1], FIRST)
        assert len(callback.requests) == 7


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_kept_connection_that_is_closed_as_it_is_used_again_costs_no_attempt(method: str) -> None:
    async with (
        answering(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", closes_late=True) as url,
        HttpSink("crm", options(url, method=method)) as sink,
    ):
        for number in range(3):
            assert (await sink.deliver([make_event(id=f"k{number}")], FIRST)).status == "200"


async def test_a_new_connection_that_is_closed_without_an_answer_is_a_failed_attempt() -> None:
    asked = []
    async with answering(lambda request: asked.append(request) or b"") as url:
        with pytest.raises(RetryLater):
            await deliver(options(url))

    assert len(asked) == 1


async def test_a_header_with_a_line_break_is_named(callback: Callback, tmp_path: Path) -> None:
    path = tmp_path / "tenant"
    path.write_text("7\n")
    given = options(callback.url, headers={"X-Tenant": {"file": str(path)}})
    path.write_text("7\nX-Admin: yes\n")
    with pytest.raises(RetryLater) as raised:
        await deliver(given)
    assert "headers.X-Tenant: this has a line break" in raised.value.receipt.text
    with pytest.raises(ValidationError, match="line break"):
        options(callback.url, headers={"X-Tenant": {"file": str(path)}})


async def test_own_headers_and_method(callback: Callback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "Bearer t0ken")
    given = options(callback.url, method="PUT", headers={"Authorization": {"env": "HOOK_TOKEN"}, "X-Tenant": "7"})

    await deliver(given)
    [(headers, _)] = callback.requests
    assert (headers["authorization"], headers["x-tenant"]) == ("Bearer t0ken", "7")
    assert callback.methods == ["PUT"]


async def test_a_template_makes_the_body(callback: Callback) -> None:
    template = '{"what": {{ event.headline|tojson }}, "missing": {{ event.data.object.nothing|tojson }}}'

    await deliver(options(callback.url, template=template, headers={"content-type": "application/vnd.x+json"}))
    [(headers, body)] = callback.requests
    assert orjson.loads(body) == {"what": "Project “B” (7) created", "missing": None}
    assert headers["content-type"] == "application/vnd.x+json"


async def test_a_template_that_fails_on_an_event_is_a_dead_letter(callback: Callback) -> None:
    with pytest.raises(Rejected) as failure:
        await deliver(options(callback.url, template="{{ 1 / 0 }}"))

    assert failure.value.receipt.status == "template"
    assert callback.requests == []


async def test_a_proxy_is_used_and_may_be_private(callback: Callback) -> None:
    given = options("http://callback.example/hook", proxy=callback.place, allow_private=False)

    assert (await deliver(given)).status == "200"
    assert callback.requests[0][0]["host"] == "callback.example"


async def test_a_proxy_is_not_asked_for_a_private_address(callback: Callback) -> None:
    with pytest.raises(RetryLater) as failure:
        await deliver(options("http://169.254.169.254/latest", proxy=callback.place, allow_private=False))

    assert failure.value.receipt.status == "refused address"
    assert callback.requests == []


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.169.254.",
        "0x7f.1",
        "localhost",
        "[::1]",
    ],
)
async def test_no_form_of_a_private_address_gets_past_a_proxy(callback: Callback, host: str) -> None:
    with pytest.raises(RetryLater) as failure:
        await deliver(options(f"http://{host}/latest", proxy=callback.place, allow_private=False))

    assert failure.value.receipt.status == "refused address"
    assert callback.requests == []


async def test_a_name_that_only_the_proxy_knows_is_left_to_it(callback: Callback) -> None:
    receipt = await deliver(options("http://crm.invalid/hook", proxy=callback.place, allow_private=False))

    assert receipt.status == "200"


async def proxying(answer: bytes, heads: list[bytes] | None = None) -> tuple[asyncio.Server, str]:
    """A proxy that gives everybody this answer, also to CONNECT; and its URL with a password."""

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0)
    return server, f"http://us%2Fer:hunt%2F%23er2@127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_a_proxy_that_fails_is_told_without_its_password(scheme: str, answer: bytes) -> None:
    server, url = await proxying(answer)
    async with server:
        with pytest.raises(RetryLater) as failure:
            await deliver(options(f"{scheme}://crm.invalid/hook?key=hunt/#er2", proxy=url))

    told = repr(failure.value.receipt) + str(failure.value)
    assert "hunt" not in told
    assert "us/er" not in told
    assert "us%2Fer" not in told


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_gets_its_password(scheme: str) -> None:
    heads: list[bytes] = []
    server, url = await proxying(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", heads)
    async with server:
        with pytest.raises(RetryLater):
            await deliver(options(f"{scheme}://crm.invalid/hook", proxy=url))

    assert b"\r\nProxy-Authorization: Basic " + base64.b64encode(b"us/er:hunt/#er2") in heads[0]


async def test_a_proxy_that_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(RetryLater) as failure:
        await deliver(options("https://crm.invalid/hook", proxy="http://user:hunter2@127.0.0.1:1"))

    assert "the proxy cannot be reached" in failure.value.receipt.text
    assert "hunter2" not in repr(failure.value.receipt)


async def test_a_password_of_any_characters_reaches_who_it_is_for(callback: Callback) -> None:
    await deliver(options(callback.url.replace("://", "://us%2Fer:p%23%C3%BC%E2%82%AC@")))

    credentials = callback.requests[0][0]["authorization"].removeprefix("Basic ")
    assert base64.b64decode(credentials).decode() == "us/er:p#ü€"


async def test_the_url_and_the_proxy_may_be_secrets(callback: Callback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://callback.invalid/hook")
    monkeypatch.setenv("PROXY", callback.place)

    assert (await deliver(options({"env": "HOOK"}, proxy={"env": "PROXY"}))).status == "200"


async def test_a_redirect_is_not_followed(callback: Callback) -> None:
    callback.answer = lambda request: web.Response(status=301, headers={"Location": "/elsewhere"})

    with pytest.raises(RetryLater):
        await deliver(options(callback.url))
    assert callback.methods == ["POST"]


async def test_proxies_of_the_environment_are_not_heeded(callback: Callback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    assert (await deliver(options(callback.url))).status == "200"


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=",
    ],
)
async def test_an_answer_that_does_not_end_is_given_up(start: bytes) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with suppress(RetryLater):
            receipt = await deliver(options(f"http://127.0.0.1:{port}/", timeout="500ms"))
            assert receipt.status == "200"  # as its status came whole


async def test_only_what_leaves_as_one_body_is_limited() -> None:
    url = "https://crm.example/"

    assert HttpSink("crm", options(url)).max_bytes is None
    assert HttpSink("crm", options(url, mode="batched")).max_bytes == BATCH_BYTES


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"url": "crm.example"}, "https://"),
        ({"url": "ftp://crm.example"}, "https://"),
        ({"url": "https://user:hunter2/x@crm.example/"}, "%2F"),
        ({"url": "https://user:hunter2#x@crm.example/"}, "%2F"),
        ({"url": "https://user:1234/hunter2@crm.example/"}, "%2F"),
        ({"url": "https://user:1234#hunter2@crm.example/"}, "%2F"),
        ({"proxy": "http://user:hunter2/x@proxy.example:8080"}, "%2F"),
        ({"proxy": "http://user:1234/hunter2"}, "a proxy is"),
        ({"proxy": "socks5://proxy.example"}, "https://"),
        ({"secret": "hunter2!"}, "whsec_"),
        ({"secret": "whsec_aHVudGVy"}, "24 to 64"),
        ({"headers": {"webhook-id": "x"}}, "set by Poller"),
        ({"headers": {"a b": "x"}}, "not a header name"),
        ({"ca_file": "nowhere.pem"}, "does not exist"),
        ({"template": "{% if %}"}, "line 1"),
        ({"template": "x", "template_file": "y"}, "exclude each other"),
        ({"timeout": 0}, "duration"),
        ({"timeout": "0s"}, "between 1ms and 1m"),
        ({"timeout": "2m"}, "between 1ms and 1m"),
        ({"methd": "POST"}, "methd"),
    ],
)
def test_wrong_options_are_explained(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as failure:
        options(**{"url": "https://crm.example/", **keys})

    assert complaint in str(failure.value)
    assert "hunter2" not in str(failure.value)


def test_a_secret_that_is_not_there_is_no_error_for_a_command_that_only_looks() -> None:
    given = {"url": "https://crm.example/", "secret": {"env": "NOT_SET_ANYWHERE"}}

    assert HttpOptions.model_validate(given, context={"secrets": "later"}).secret is not None
    with pytest.raises(ValidationError, match="NOT_SET_ANYWHERE"):
        HttpOptions.model_validate(given)


async def test_a_preview_shows_the_request_but_no_secrets() -> None:
    sink = HttpSink("crm", options("https://u:p4ss@crm.example/hook?key=s3cret", headers={"X-Key": "s3cret"}))

    text = sink.render([make_event()])
    assert text.startswith("POST https://crm.example/hook\n")
    assert '"subject":"projects/7"' in text
    assert "s3cret" not in text
    assert "p4ss" not in text
