"""Receivers that answer every sink with what no receiver should: nothing ends, little is held, the loop goes on.

Each case is one delivery to a server in another process. It must end as delivered or as a DeliveryError; over all of
them memory stays below 400 MB and the event loop never works for more than 250 ms without a pause (in processor time of
its thread, so that a busy machine does not count).

    python -m tests.proofs.hostile_receivers [NAME]    a line a case (with NAME in its name); exit 1 if one fails
    python -m tests.proofs.hostile_receivers serve     the servers alone
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import repeat
from typing import Any, Final

from plugins.apprise import AppriseOptions, AppriseSink
from plugins.email import EmailOptions, EmailSink
from plugins.http import HttpOptions, HttpSink
from plugins.slack import SlackOptions, SlackSink
from plugins.slack import sink as slack_sink
from poller import Attempt, Receipt, Sink
from poller.sinks.protocol import DeliveryError
from poller.testing import make_event

MEMORY: Final = 400  # MB of this process
STALL: Final = 0.25  # seconds
PATIENCE: Final = 25.0  # seconds of one case
CHUNK: Final = b"x" * 65536
OK: Final = b"HTTP/1.1 200 OK\r\n"

Pieces = Iterator[bytes]


def http_answers() -> dict[str, Callable[[], Pieces]]:
    """What an HTTP receiver says, piece by piece; b"" is a second of silence."""

    def endless(start: bytes, more: bytes = CHUNK) -> Callable[[], Pieces]:
        return lambda: (piece for source in ([start], repeat(more)) for piece in source)

    return {
        "silence": endless(b"", b""),
        "endless status": endless(b"HTTP/1.1 200 "),
        "endless header": endless(OK + b"X: "),
        "endless headers": endless(OK, b"X: y\r\n" * 10_000),
        "endless 100": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
        "endless body": endless(OK + b"\r\n"),
        "endless chunk extension": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n5;x="),
        "endless trailers": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_000),
        "tiny chunks": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 10_000),
        "a byte a second": endless(OK + b"\r\n", b""),
        "gzip that is none": endless(OK + b"Content-Encoding: gzip\r\n\r\n"),
        "utf-7": endless(OK + b"Content-Type: text/plain; charset=utf-7\r\n\r\n", b"+2AA-" * 10_000),
        "redirect": lambda: iter([b"HTTP/1.1 301 M\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"]),
        "latin-1": lambda: iter([b"HTTP/1.1 500 \xfc\r\nX: \xff\xfe\r\nContent-Length: 2\r\n\r\n\xff\x00"]),
        "retry in a century": lambda: iter(
            [b"HTTP/1.1 429 No\r\nRetry-After: 9999999999\r\nContent-Length: 0\r\n\r\n"]
        ),
        "nested": lambda: iter([OK + b"Content-Length: 400000\r\n\r\n" + b"[" * 400_000]),
        "nonsense": lambda: iter([b"\x00\xff" * 1000]),
        "nothing": lambda: iter([]),
    }


def mail_answers() -> dict[str, Callable[[], Pieces]]:
    """What a mail server says at once, whatever it is asked."""

    def after(replies: bytes, more: bytes) -> Callable[[], Pieces]:
        return lambda: (piece for source in ([replies], repeat(more)) for piece in source)

    return {
        "endless greeting": after(b"", CHUNK),
        "endless lines": after(b"", b"220-x\r\n" * 10_000),
        "latin-1": lambda: iter([b"220 \xfc\r\n", b"", b"250 \xff\xfe\x00\r\n" * 8]),
        "codes that are none": lambda: iter([b"-99 x\r\n", b"999 x\r\n", b"\xb2\xb2\xb2 x\r\n"]),
        "TLS nonsense": lambda: iter([b"\x16\x03\x01\xff\xff" * 100]),
        "nothing": lambda: iter([]),
    }


async def serve() -> None:
    """Serve every case on a port of its own; the ports are printed as JSON."""
    ports = {}
    for kind, answers in (("http", http_answers()), ("mail", mail_answers())):
        for name, pieces in answers.items():
            server = await asyncio.start_server(_answering(pieces, reads=kind == "http"), "127.0.0.1", 0)
            ports[f"{kind}/{name}"] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the other side has gone


def _answering(pieces: Callable[[], Pieces], *, reads: bool) -> Callable[[Any, Any], Any]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if reads:
                await reader.readuntil(b"\r\n\r\n")
            for piece in pieces():
                if piece:
                    writer.write(piece)
                    await writer.drain()
                else:
                    await asyncio.sleep(1.0)
        writer.close()

    return answer


def sinks(kind: str, port: int) -> dict[str, Callable[[], AbstractAsyncContextManager[Sink]]]:
    """The sinks that are given the server on this port."""
    url = f"http://127.0.0.1:{port}"
    if kind == "mail":
        keys = {"host": "127.0.0.1", "port": port, "from": "a@maple.example", "to": "b@maple.example"}
        return {"email": lambda: EmailSink("x", EmailOptions.model_validate(keys))}
    free = {"allow_private": True}
    bot = {"token": "t", "channel": f"c{port}", "api_url": f"{url}/"}
    return {
        "http": lambda: HttpSink("x", HttpOptions.model_validate({"url": f"{url}/", "timeout": "3s", **free})),
        "slack": lambda: SlackSink("x", SlackOptions.model_validate({"webhook_url": f"{url}/x", **free})),
        "slack bot": lambda: SlackSink("x", SlackOptions.model_validate({**bot, **free})),
        "apprise": lambda: AppriseSink(
            "x", AppriseOptions.model_validate({"urls": f"json://127.0.0.1:{port}/", **free}), patience=6.0
        ),
    }


async def outcome(open_sink: Callable[[], AbstractAsyncContextManager[Sink]]) -> tuple[bool, str]:
    """Whether the delivery ended as it may, and how."""
    attempt = Attempt(number=1, delivery_id="1")
    try:
        async with asyncio.timeout(PATIENCE), open_sink() as sink:
            receipt: Receipt = await sink.deliver([make_event()], attempt)
        return True, f"delivered {receipt.status}"
    except DeliveryError as error:
        return True, f"{type(error).__name__} {error.receipt.status}: {error.receipt.text[:60]!r}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return isinstance(error, TimeoutError), f"{type(error).__name__}: {error}"


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """How long the loop has worked at a stretch, each time."""
    stalls: list[float] = []

    async def tick() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.01)
            stalls.append(time.thread_time() - before)

    task = asyncio.create_task(tick())
    try:
        yield stalls
    finally:
        task.cancel()


async def run(wanted: str) -> bool:
    """Deliver to every case with `wanted` in its name. Whether all were as they must be."""
    slack_sink.TIMEOUT = 3.0  # of the proof; what a receiver may cost is the same each second
    command = [sys.executable, "-m", "tests.proofs.hostile_receivers", "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as servers:
        assert servers.stdout is not None
        assert servers.stdin is not None
        ports: dict[str, int] = json.loads(servers.stdout.readline())
        good = True
        for place, port in ports.items():
            kind, _, case = place.partition("/")
            if wanted not in case:
                continue
            for name, open_sink in sinks(kind, port).items():
                async with ticking() as stalls:
                    ended, how = await outcome(open_sink)
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                stall = max(stalls, default=0.0)
                fine = ended and memory < MEMORY and stall < STALL
                good = good and fine
                mark = "ok  " if fine else "FAIL"
                print(f"{mark} {name:<10} {case:<24} {stall * 1000:4.0f} ms {memory:4} MB  {how}")
        servers.stdin.close()
        servers.kill()
    return good


if __name__ == "__main__":
    if "serve" in sys.argv[1:]:
        asyncio.run(serve())
    else:
        sys.exit(0 if asyncio.run(run(" ".join(sys.argv[1:]))) else 1)
