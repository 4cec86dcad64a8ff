"""Keys of `poller.toml` do what docs/configuration.md says, seen from outside."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poller.app import open_app, sweep_once
from poller.config.load import load
from poller.daemon.heartbeat import beat
from poller.hooks.loading import load_plugins
from tests.support.command_line import Ran, Run, Shop
from tests.support.loopback import Handler, serving_handler


class Server:
    """Answers each GET with an empty list, and keeps what was asked for."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.address = ""
        self._tls = tls
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Server":
        asked = self.asked

        class Empty(Handler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.answer(200, b"[]")

        self.address = self._open.enter_context(serving_handler(Empty, tls=self._tls))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made certificate for 127.0.0.1, with its key in the same file."""
    file = tmp_path_factory.mktemp("certificate") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    ran = subprocess.run([*command.split(), "-keyout", "-", "-out", "-"], check=True, capture_output=True)
    file.write_bytes(ran.stdout)
    return file


@pytest.fixture
def secure(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Server(context) as server:
        yield server


def checked(poller: Run, folder: Path, base_url: str, *keys: str) -> Ran:
    """What `check --online` says of a source with these keys."""
    lines = ["[poller]", 'listen = ""', "[sources.shop]", 'plugin = "rest"', f'base_url = "{base_url}"', *keys]
    (folder / "poller.toml").write_text("\n".join([*lines, "[sources.shop.endpoints.items]", 'path = "/items"']))
    return poller("check", "--online")


def test_a_certificate_that_nobody_knows_is_not_believed(poller: Run, tmp_path: Path, secure: Server) -> None:
    ran = checked(poller, tmp_path, f"https://{secure.address}")

    assert ran.status == 1
    assert "certificate" in ran.err.lower()
    assert secure.asked == []


def test_it_is_believed_by_ca_file(poller: Run, tmp_path: Path, secure: Server, certificate: Path) -> None:
    assert checked(poller, tmp_path, f"https://{secure.address}", f'ca_file = "{certificate}"').status == 0


def test_it_is_believed_unseen_without_verify(poller: Run, tmp_path: Path, secure: Server) -> None:
    assert checked(poller, tmp_path, f"https://{secure.address}", "verify = false").status == 0


def test_calls_go_through_the_proxy_and_never_through_one_of_the_environment(
    poller: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as proxy, Server() as other:
        monkeypatch.setenv("HTTP_PROXY", f"http://{other.address}")
        ran = checked(poller, tmp_path, "http://shop.example", f'proxy = "http://{proxy.address}"')

    assert ran.status == 0
    assert proxy.asked == ["http://shop.example/items"]
    assert other.asked == []


@pytest.mark.parametrize(
    ("key", "answer", "said"),
    [
        ('max_answer = "1kB"', b"[" + b" " * 2000 + b"]", "max_answer"),
        ("max_depth = 3", b'[{"id": 1, "a": {"b": {"c": {"d": 1}}}}]', "none of its objects can be used"),
    ],
)
def test_an_answer_beyond_its_limits_is_refused(
    poller: Run, shop: Shop, tmp_path: Path, key: str, answer: bytes, said: str
) -> None:
    shop.answer = (200, answer, "application/json")
    ran = checked(poller, tmp_path, shop.url, key)

    assert ran.status == 1
    assert said in ran.err


def test_times_are_shown_in_the_time_zone(poller: Run, shop: Shop, tmp_path: Path) -> None:
    config = shop.configure(tmp_path)
    poller("once")
    shown = {}
    for zone in ("UTC", "Asia/Kolkata"):
        config.write_text(config.read_text().replace("[poller]", f'[poller]\ntimezone = "{zone}"', 1))
        shown[zone] = poller("show", "items", "1").out.splitlines()[0]
        config.write_text(config.read_text().replace(f'timezone = "{zone}"\n', "", 1))

    assert shown["UTC"].endswith(" UTC")
    assert shown["Asia/Kolkata"].endswith(" IST")
    assert shown["UTC"].split()[-2][3:] != shown["Asia/Kolkata"].split()[-2][3:]  # half an hour apart


@pytest.mark.parametrize(
    ("style", "environment", "begins"),
    [
        ("auto", {}, "{"),
        ("json", {}, "{"),
        ("journal", {}, "<4>poll.failed "),
        ("auto", {"JOURNAL_STREAM": "1:2"}, "<4>"),
    ],
)
def test_the_log_is_written_in_its_format(
    shop: Shop, tmp_path: Path, style: str, environment: dict[str, str], begins: str
) -> None:
    shop.answer = (403, b"", "text/plain")
    config = shop.configure(tmp_path)
    config.write_text(config.read_text().replace("[poller]", f'[poller]\nlog_format = "{style}"'))
    ran = subprocess.run(
        [sys.executable, "-m", "poller.cli", "once", "--config", str(config)],
        env={**{k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    line = next(line for line in ran.stderr.splitlines() if "poll.failed" in line)

    assert line.startswith(begins)
    assert begins != "{" or json.loads(line)["event"] == "poll.failed"


async def test_the_heartbeat_is_called_while_all_is_well_and_not_else(shop: Shop, tmp_path: Path) -> None:
    config = shop.configure(tmp_path)
    with Server() as hears:
        url = f"http://{hears.address}/beat?key=secret"
        config.write_text(config.read_text().replace("[poller]", f'[poller]\nheartbeat = "{url}"'))
        plugins = load_plugins()
        async with open_app(load(config, plugins), plugins) as app:
            await sweep_once(app)
            await beat(app)
            shop.answer = (401, b"", "text/plain")
            await sweep_once(app)
            await beat(app)

    assert hears.asked == ["/beat?key=secret"]


async def test_a_heartbeat_that_fails_is_logged_without_its_url(
    shop: Shop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = shop.configure(tmp_path)
    config.write_text(config.read_text().replace("[poller]", '[poller]\nheartbeat = "http://127.0.0.1:9/?key=secret"'))
    plugins = load_plugins()
    async with open_app(load(config, plugins), plugins) as app:
        await sweep_once(app)
        await beat(app)
    out, err = capfd.readouterr()

    assert "heartbeat.failed" in out + err
    assert "secret" not in out + err
