"""What a daemon listens on: a reload changes the socket and its guard together, and one socket is for its owner."""

import contextlib
import resource
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from poller.operations.local_socket import listening, socket_path
from poller.web.context import STREAMS
from tests.support.command_line import Shop
from tests.support.daemon import Daemon, running_daemon, wait_for
from tests.support.loopback import free_port

ASK = "/api/v1/status"


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """As many files as this process may have: each connection is one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def configure(shop: Shop, folder: Path, listen: str, token: str | None = None) -> Path:
    path = shop.configure(folder, listen=listen)
    if token is not None:
        path.write_text(path.read_text().replace("[poller]", f'[poller]\ntoken = "{token}"'))
    return path


def reload(daemon: Daemon, word: str = "config.reloaded") -> None:
    before = daemon.log.count(word)
    daemon.signal(signal.SIGHUP)
    wait_for(word, lambda: daemon.log.count(word) > before)


def status(host: str, port: int, **headers: str) -> int | None:
    """The status of an answer; None where nobody listens."""
    try:
        return httpx.get(f"http://{host}:{port}{ASK}", headers={"host": "127.0.0.1", **headers}).status_code
    except httpx.ConnectError:
        return None


def test_a_reload_to_loopback_without_a_token_closes_the_socket_for_everybody(shop: Shop, tmp_path: Path) -> None:
    port = free_port()
    with running_daemon(configure(shop, tmp_path, f"0.0.0.0:{port}", token="secret")) as daemon:
        assert [status(host, port) for host in ("127.0.0.1", "127.0.0.2")] == [401, 401]
        configure(shop, tmp_path, f"127.0.0.1:{port}")
        reload(daemon)

        assert [status(host, port) for host in ("127.0.0.1", "127.0.0.2")] == [200, None]


def test_a_reload_with_another_token_ends_the_connections_of_the_old_one(shop: Shop, tmp_path: Path) -> None:
    with running_daemon(configure(shop, tmp_path, "127.0.0.1:0", token="old")) as daemon:
        url = wait_for("the URL", daemon.url)
        old = {"authorization": "Bearer old"}
        with httpx.stream("GET", f"{url}/api/v1/events/stream", headers=old, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            configure(shop, tmp_path, "127.0.0.1:0", token="new")
            reload(daemon)
            assert "data" not in "".join(lines)  # it ends
        answers = [httpx.get(url + ASK, headers={"authorization": f"Bearer {it}"}).status_code for it in ("old", "new")]

    assert answers == [401, 200]


def test_a_reload_to_an_address_that_cannot_be_had_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        running_daemon(configure(shop, tmp_path, "127.0.0.1:0")) as daemon,
    ):
        url = wait_for("the URL", daemon.url)
        configure(shop, tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
        reload(daemon, "config.refused")

        assert httpx.get(url + ASK).status_code == 200
    assert "cannot listen on" in daemon.log


def test_listening_can_be_switched_off_and_on_by_reloads(shop: Shop, tmp_path: Path) -> None:
    port = free_port()
    with running_daemon(configure(shop, tmp_path, "")) as daemon:
        seen = []
        for listen in (f"127.0.0.1:{port}", "", f"127.0.0.1:{port}"):
            configure(shop, tmp_path, listen)
            reload(daemon)
            seen.append(status("127.0.0.1", port))

    assert seen == [200, None, 200]


# The socket beside the state.


def test_the_socket_is_for_its_owner_and_needs_no_token(shop: Shop, tmp_path: Path) -> None:
    path = socket_path(tmp_path / "poller.db")
    with running_daemon(configure(shop, tmp_path, "127.0.0.1:0", token="secret")):
        mode = stat.S_IMODE(path.stat().st_mode)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://anything") as client:
            answered = client.get(ASK).status_code

    assert (mode, answered) == (0o600, 200)
    assert not path.exists()


def test_where_it_listens_is_in_the_log_before_it_is_ready(shop: Shop, tmp_path: Path) -> None:
    with running_daemon(configure(shop, tmp_path, "127.0.0.1:0")) as daemon:
        first = daemon.url()
        daemon.stop()
        daemon.start()
        assert None not in (first, daemon.url())
        assert daemon.log.index("http.listening") < daemon.log.index("poller.started")


def test_a_stale_socket_is_replaced(shop: Shop, tmp_path: Path) -> None:
    path = socket_path(tmp_path / "poller.db")
    with running_daemon(configure(shop, tmp_path, "")) as daemon:
        daemon.kill()
        assert path.exists()
        daemon.start()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
            assert client.get(ASK).status_code == 200


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = socket_path(tmp_path / "poller.db")
    path.write_text("mine")
    with listening(tmp_path / "poller.db") as found:
        assert found is None

    assert path.read_text() == "mine"
    assert "socket.not_made" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["poller.db", "p" * 200])
def test_a_path_may_be_longer_than_a_sockets_address(tmp_path: Path, name: str) -> None:
    state = tmp_path.joinpath("a" * 100, "b" * 100, name)
    state.parent.mkdir(parents=True)
    with listening(state) as found:
        assert found is not None
        assert stat.S_ISSOCK(socket_path(state).stat().st_mode)
    assert not socket_path(state).exists()


# What one client may take.


def test_a_thousand_idle_connections_stop_neither_polling_nor_the_api(shop: Shop, tmp_path: Path) -> None:
    with running_daemon(configure(shop, tmp_path, "127.0.0.1:0")) as daemon, contextlib.ExitStack() as idle:
        url = httpx.URL(wait_for("the URL", daemon.url))
        for _ in range(1100):
            idle.enter_context(socket.create_connection((url.host, url.port)))
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            asked = client.get(ASK).json()["sources"][0]["last_poll"]
            wait_for("the next poll", lambda: client.get(ASK).json()["sources"][0]["last_poll"] != asked)

    assert "http.not_accepting" not in daemon.log
    assert len(daemon.log) < 100_000


def test_there_is_a_limit_on_streams(shop: Shop, tmp_path: Path) -> None:
    with running_daemon(configure(shop, tmp_path, "127.0.0.1:0")) as daemon, contextlib.ExitStack() as streams:
        url, read = wait_for("the URL", daemon.url), []
        for _ in range(STREAMS):
            answer = streams.enter_context(httpx.stream("GET", f"{url}/api/v1/events/stream", timeout=60))
            read.append(answer.iter_lines())  # httpx closes a stream whose iterator is gone
            next(read[-1])
        with httpx.stream("GET", f"{url}/api/v1/events/stream", timeout=60) as one_more:
            pass
        others = httpx.get(url + ASK, timeout=60)

    assert (one_more.status_code, others.status_code) == (503, 200)
    assert one_more.headers["content-type"] == "application/problem+json"
