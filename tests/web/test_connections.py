"""Connections that ask for too much: each is ended or refused, and others are answered as before."""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from starlette.types import Receive, Scope, Send

from poller.web.connections import Limits, most_connections
from poller.web.listener import Listener
from poller.web.requests import LARGEST
from poller.web.server import listen

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
BIG = 64 * 1024 * 1024  # bytes: more than any socket buffer takes


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says how long the body was; /big answers more than anybody reads, /never nothing at all."""
    if scope["path"] == "/never":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    sent = BIG if scope["path"] == "/big" else 0
    for _ in range(sent // 65536):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    await send({"type": "http.response.body", "body": b"%d bytes" % len(body)})


@contextlib.asynccontextmanager
async def served(**limits: float) -> AsyncIterator[int]:
    """The port of a listener with these limits."""
    listener = Listener(listen("127.0.0.1", 0), app, None, Limits(**limits))  # type: ignore[arg-type]
    await listener.start()
    try:
        yield listener.listening.getsockname()[1]
    finally:
        await listener.close()


async def answer(port: int, request: bytes) -> bytes:
    """Everything that is answered to a request until the connection ends, or a moment after a whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.readuntil(b"\r\n\r\n") + await reader.read(4096)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()


async def test_idle_connections_keep_nobody_out() -> None:
    async with served(connections=10, head=60.0) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        assert b"0 bytes" in await answer(port, ASK)
        async with asyncio.timeout(10.0):  # else each ends by itself, as it asks for nothing
            ended = [await reader.read() for reader, _ in idle[:90]]
        for _, writer in idle:
            writer.close()

    assert ended == [b""] * 90


async def test_connections_with_a_request_are_not_closed_for_others() -> None:
    async with served(connections=2) as port:
        busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in busy:
            writer.write(ASK.replace(b"GET /", b"GET /never"))
            await writer.drain()
        said = b""
        while not said:  # the two are known to be asked for something once a third is refused
            with contextlib.suppress(ConnectionError):
                said = await answer(port, b"")
        for _, writer in busy:
            writer.close()

    assert said.startswith(b"HTTP/1.1 503")
    assert b"application/problem+json" in said


@pytest.mark.parametrize("sent", [b"", b"GET / HT", ASK[:-2] + b"A: b\r\n", POST + b"Content-Length: 9\r\n\r\nhalf"])
async def test_a_request_that_is_never_complete_is_ended(sent: bytes) -> None:
    async with served(head=0.05, body=0.05) as port:
        assert await answer(port, sent) == b""


async def test_an_answer_that_nobody_reads_is_ended() -> None:
    async with served(stalled=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(ASK.replace(b"GET /", b"GET /big"))
        await asyncio.sleep(0.2)  # it reads nothing meanwhile
        got = 0
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(1_000_000):
                got += len(part)
        writer.close()

    assert got < BIG


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (b"Content-Length: 5\r\n", b"abcde", b"200"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nabcde\r\n0\r\n\r\n", b"411"),
        (b"Content-Length: %d\r\n" % (LARGEST + 1), b"", b"413"),
        (b"Content-Length: 99999999999999999999\r\n", b"", b"413"),
        (b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + bytes(65536) + b"\r\n10000\r\n" + bytes(65536), b"411"),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n" * 5000, b"411"),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"411"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"abcdef", b"400"),
        (b"Content-Length: -1\r\n", b"", b"400"),
        (b"X: a\x00b\r\n", b"", b"400"),
    ],
)
async def test_the_length_of_a_body_is_bounded_and_unambiguous(head: bytes, body: bytes, status: bytes) -> None:
    async with served() as port:
        said = await answer(port, POST + head + b"\r\n" + body)

    assert said.split()[1] == status
    if status != b"200":
        assert b"application/problem+json" in said
        assert b"connection: close" in said.lower()


@pytest.fixture
def files() -> Iterator[Callable[[int], None]]:
    """Sets how many files this process may open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def every_file_left() -> Iterator[int]:
    """File descriptors until there is none left."""
    with contextlib.suppress(OSError):
        while True:
            yield os.dup(0)


def test_polling_keeps_three_quarters_of_the_file_descriptors(files: Callable[[int], None]) -> None:
    files(256)

    assert most_connections(200) == 64


async def test_without_a_file_descriptor_it_waits_and_says_so_once(
    files: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async with served() as port:
        with socket.create_connection(("127.0.0.1", port)) as client:  # the system has accepted it, the server not yet
            before, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            files(client.fileno() + 1)
            taken = list(every_file_left())
            said = ""
            while "http.not_accepting" not in said:
                await asyncio.sleep(0.01)
                said += capsys.readouterr().out
            await asyncio.sleep(1.1)  # it has tried again
            files(before)
            for number in taken:
                os.close(number)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, ASK)
            answered = await asyncio.get_running_loop().sock_recv(client, 4096)
            said += capsys.readouterr().out

    assert answered.startswith(b"HTTP/1.1 200")
    assert said.count("http.not_accepting") == 1
