"""Connections of sources, against servers that write bytes as they are."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from poller.sources.connections import IDLE, Connections, Wire

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]  # to a request's head
OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\n[]"


class Server:
    """Answers each request of each connection, and notes which connection it came by."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self._answer = answer
        self._connections = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections, number = self._connections + 1, self._connections
        with suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append((number, head))
                await self._answer(head, writer)
        writer.close()


def saying(*answers: bytes, close: bool = False) -> Answer:
    left = list(answers)

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        if close:
            writer.close()

    return answer


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[tuple[Server, httpx.AsyncClient, str]]:
    server = Server(answer)
    listening = await asyncio.start_server(
        lambda reader, writer: server.tasks.add(asyncio.ensure_future(server.serve(reader, writer))), "127.0.0.1", 0
    )
    try:
        async with httpx.AsyncClient(transport=Connections(ssl.create_default_context), timeout=None) as client:
            yield server, client, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await asyncio.gather(*server.tasks, return_exceptions=True)


def connections(server: Server) -> list[int]:
    return [number for number, _ in server.requests]


async def test_requests_that_follow_each_other_use_one_connection():
    async with served(saying(SHORT)) as (server, client, url):
        answers = [await client.get(f"{url}/{path}?q=a%20b", headers={"X-Case": "kept"}) for path in "abc"]

    assert [answer.content for answer in answers] == [b"[]"] * 3
    assert connections(server) == [0, 0, 0]
    assert server.requests[2][1].startswith(b"GET /c?q=a%20b HTTP/1.1\r\n")
    assert b"X-Case: kept\r\n" in server.requests[2][1]


async def test_requests_at_the_same_time_use_a_connection_each():
    async with served(saying(SHORT)) as (server, client, url):
        await asyncio.gather(client.get(url), client.get(url))
        await client.get(url)

    assert sorted(connections(server)) == [0, 0, 1] or sorted(connections(server)) == [0, 1, 1]


@pytest.mark.parametrize(
    ("answer", "close"),
    [
        (SHORT, True),
        (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n[]", True),
        (OK + b"\r\n[]", True),  # without a length: the body ends with the connection
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n[]", True),
        (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n[]", False),
        (SHORT + b"more than was announced", False),
    ],
)
async def test_a_connection_that_ends_with_an_answer_is_not_used_again(answer: bytes, close: bool):
    async with served(saying(answer, close=close)) as (server, client, url):
        for _ in range(2):
            assert (await client.get(url)).content == b"[]"
            if close:
                await asyncio.wait(server.tasks)
            for _ in range(20):  # the client hears of it
                await asyncio.sleep(0)

    assert connections(server) == [0, 1]


async def test_a_connection_that_was_not_used_for_a_minute_is_not_used_again(monkeypatch: pytest.MonkeyPatch):
    async with served(saying(SHORT)) as (server, client, url):
        await client.get(url)
        time = (loop := asyncio.get_running_loop()).time
        with monkeypatch.context() as later:
            later.setattr(loop, "time", lambda: time() + IDLE + 1.0)
            await client.get(url)

    assert connections(server) == [0, 1]


async def test_what_arrived_before_a_reset_is_read():
    wire = Wire()
    wire.data_received(b"all")
    wire.connection_lost(ConnectionResetError("reset by peer"))

    assert await wire.read() == b"all"
    with pytest.raises(httpx.ReadError, match="reset by peer"):
        await wire.read()


async def test_answers_that_only_inform_are_passed_over():
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with served(saying(b"HTTP/1.1 100 Continue\r\n\r\n" + early + SHORT)) as (server, client, url):
        for _ in range(2):
            answer = await client.get(url)
            assert (answer.status_code, answer.content) == (200, b"[]")

    assert connections(server) == [0, 0]


async def test_an_answer_to_head_has_no_body():
    async with served(saying(OK + b"Content-Length: 99\r\n\r\n")) as (server, client, url):
        for _ in range(2):
            assert (await client.head(url)).headers["content-length"] == "99"

    assert connections(server) == [0, 0]


async def test_another_protocol_ends_the_connection():
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    async with served(saying(switch, SHORT)) as (server, client, url):
        headers = {"Upgrade": "x", "Connection": "upgrade"}
        assert (await client.get(url, headers=headers)).status_code == 101
        assert (await client.get(url)).content == b"[]"

    assert connections(server) == [0, 1]


async def test_a_body_is_sent_with_its_request():
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await got.put(await reader.readexactly(9))
        writer.write(SHORT)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with httpx.AsyncClient(transport=Connections(ssl.create_default_context)) as client:
        await client.post(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", content=b'{"a": 12}')
    listening.close()

    assert got.get_nowait() == b'{"a": 12}'


async def test_a_long_body_is_not_read_before_it_is_wanted():
    body, writers = b"x" * 30_000_000, []

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async with served(answer) as (_, client, url):
        async with client.stream("GET", url) as response:
            for _ in range(2000):
                await asyncio.sleep(0)
            assert writers[0].transport.get_write_buffer_size() > 0
            assert await response.aread() == body
        assert (await client.get(url)).content == body


async def test_a_request_that_was_given_up_leaves_no_connection_behind():
    asked = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"/silent" in head:
            asked.set()
        else:
            writer.write(SHORT)

    async with served(answer) as (server, client, url):
        asking = asyncio.create_task(client.get(f"{url}/silent"))
        await asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await client.get(url)).content == b"[]"

    assert connections(server) == [0, 1]


async def test_an_answer_of_which_not_all_was_read_leaves_no_connection_behind():
    async with served(saying(OK + b"Content-Length: 9\r\n\r\n[", SHORT)) as (server, client, url):
        async with client.stream("GET", url):
            pass
        assert (await client.get(url)).content == b"[]"

    assert connections(server) == [0, 1]


async def test_a_request_that_is_refused_at_the_last_moment_is_not_sent():
    async def refuse(event: str, _: Any) -> None:
        raise RuntimeError(event)

    async with served(saying(SHORT)) as (server, client, url):
        with pytest.raises(RuntimeError, match=r"send_request_headers\.started"):
            await client.get(url, extensions={"trace": refuse})
        await client.get(url)

    assert [head.split()[1] for _, head in server.requests] == [b"/"]


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"", httpx.RemoteProtocolError, "without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", httpx.RemoteProtocolError, "illegal status line"),
        (OK + b"X: " + b"y" * 200_000, httpx.RemoteProtocolError, "too long"),
        (OK + b"Content-Length: 3\r\n\r\n[", httpx.RemoteProtocolError, "closed connection"),
    ],
)
async def test_what_is_no_answer_is_an_error_of_httpx(answer: bytes, error: type[Exception], said: str):
    async with served(saying(answer, close=True)) as (_, client, url):
        with pytest.raises(error, match=said):
            await client.get(url)


async def test_a_request_that_no_server_would_understand_is_not_sent():
    async with served(saying(SHORT)) as (server, client, url):
        with pytest.raises(httpx.LocalProtocolError):
            await client.get(url, headers={"X-Two-Lines": "a\nb"})
        assert server.requests == []


async def test_a_server_that_is_not_there_is_a_connect_error():
    async with httpx.AsyncClient(transport=Connections(ssl.create_default_context)) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1")
        with pytest.raises(httpx.ConnectError):
            await client.get("http://nobody.invalid")
