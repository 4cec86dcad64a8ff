"""What a network can do to a source: its own poll fails with a reason that an operator understands, others go on."""

import asyncio
import gc
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from poller.app import open_app, sweep_once
from poller.config.load import load
from poller.hooks.loading import load_plugins
from tests.polling.test_hostile_answers import CONFIG, GOOD, SOURCE, look
from tests.support.raw_server import answering

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
LONG = OK + b"Content-Length: 99\r\n\r\n"


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER: RST, no FIN
    writer.transport.abort()


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def saying(*pieces: bytes, every: float = 0.0, then_wait: bool = False) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every)
        if then_wait:
            await reader.read()

    return serve


FAULTS: dict[str, tuple[Serve, str]] = {
    "reset": (reset, "no answer"),
    "closed without a word": (closed, "no answer"),
    "silence": (silent, "no answer within 0.5 s"),
    "a head a byte at a time": (saying(*[b"H"] * 40, every=0.1), "no answer within 0.5 s"),
    "a body a byte at a time": (saying(LONG, *[b" "] * 40, every=0.1), "not complete within 0.5 s"),
    "half an answer": (saying(LONG + b"["), "no whole answer"),
    "an answer that stops": (saying(LONG + b"[", then_wait=True), "not complete within 0.5 s"),
    "a length that is too short": (saying(OK + b"Content-Length: 3\r\n\r\n[{\"id\": 1}]"), "JSON"),
    "a negative length": (saying(OK + b"Content-Length: -1\r\n\r\n[]"), "no answer"),
    "a length of a hundred digits": (saying(OK + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n[]"), "no "),
    "chunks that break off": (saying(OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n[{"), "no whole answer"),
    "chunks of no number": (saying(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n[]"), "no whole answer"),
    "100 Continue without end": (saying(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 30, every=0.1), "no answer within 0.5 s"),
    "TLS where there should be HTTP": (saying(b"\x15\x03\x01\x00\x02\x02\x50"), "what came is not HTTP/1.1"),
}  # fmt: skip


@asynccontextmanager
async def served(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            try:
                await serve(reader, writer)
            finally:
                writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(
        lambda reader, writer: tasks.add(asyncio.ensure_future(guarded(reader, writer))), "127.0.0.1", 0, ssl=tls
    )
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """httpcore leaves the connection of a failed handshake to the collector: not to that of the next test."""
    yield
    gc.collect()


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


async def error_of(folder: Path, url: str, more: str = "") -> str:
    """The error of one poll of a source at that URL; a good source beside it is swept all the same."""
    async with answering(lambda _: GOOD) as good:
        text = CONFIG + SOURCE.format(name="bad", url=url, more="").replace('"2s"', f'"500ms"\n{more}')
        (folder / "poller.toml").write_text(text + SOURCE.format(name="good", url=good, more=""))
        plugins = load_plugins(lazily=True)
        async with open_app(load(folder / "poller.toml", plugins), plugins) as app:
            error = await look(app)
            assert await sweep_once(app, [("good", "things")]) == []
            assert error is not None
            return error


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_network_fails_its_own_poll_with_its_reason(name: str, tmp_path: Path):
    serve, reason = FAULTS[name]
    async with served(serve) as url:
        assert reason in await error_of(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://127.0.0.1:1", "no answer (ConnectError"), ("http://nobody.invalid", "no answer (ConnectError")],
)
async def test_a_host_that_is_not_there_fails_its_own_poll(url: str, reason: str, tmp_path: Path):
    assert reason in await error_of(tmp_path, url)


@pytest.fixture
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A certificate that nobody has signed, with its key; for 127.0.0.1, or another address."""
    file, address = tmp_path / "own.pem", getattr(request, "param", "127.0.0.1")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={address}"]
    words += ["-addext", f"subjectAltName=IP:{address}", "-keyout", str(file), "-out", f"{file}.crt"]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no openssl here")
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


async def test_a_certificate_that_nobody_signed_is_refused_unless_it_is_named(certificate: Path, tmp_path: Path):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with served(saying(GOOD), tls) as url:
        assert "its certificate is not accepted: self-signed certificate" in await error_of(tmp_path, url)
        with pytest.raises(AssertionError):
            await error_of(tmp_path, url, more=f'ca_file = "{certificate}.crt"')


@pytest.mark.parametrize("certificate", ["127.0.0.2"], indirect=True)
async def test_a_certificate_of_another_host_is_refused_whoever_signed_it(certificate: Path, tmp_path: Path):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with served(saying(GOOD), tls) as url:
        assert "IP address mismatch" in await error_of(tmp_path, url, more=f'ca_file = "{certificate}.crt"')


async def test_an_answer_in_plain_text_amid_tls_is_no_answer(certificate: Path, tmp_path: Path):
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        os.write(writer.get_extra_info("socket").fileno(), GOOD)

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with served(plain, tls) as url:
        assert "no answer (SSLError" in await error_of(tmp_path, url, more=f'ca_file = "{certificate}.crt"')


async def test_a_server_without_tls_is_refused_by_a_source_that_wants_it(tmp_path: Path):
    async with served(saying(GOOD)) as url:
        assert "no answer" in await error_of(tmp_path, url.replace("http://", "https://"))
