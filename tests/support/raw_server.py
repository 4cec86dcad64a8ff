"""A server on loopback that answers with bytes as they are: what no framework would send."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

Piece = bytes | float  # what is written, or seconds of waiting
Answer = bytes | Iterable[Piece]  # an iterable may be without end
Answers = Callable[[bytes], Answer]  # the request's head and body -> the answer


@asynccontextmanager
async def answering(answers: Answers, *, closes_late: bool = False) -> AsyncIterator[str]:
    """Each connection gets one answer and is closed: at once, or when the next request begins. Gives the base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            answer = answers(await _request(reader))
            for piece in (answer,) if isinstance(answer, bytes) else answer:
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                else:
                    writer.write(piece)
                    await writer.drain()
            if closes_late:
                await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(length)


def answer(body: bytes = b"[]", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """One whole answer; headers as `b"ETag: x"`."""
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), b"Connection: close", *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body
