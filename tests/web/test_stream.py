"""The event stream of a running daemon: every event once, in order, across reloads and reconnects."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.command_line import Shop
from tests.support.daemon import PATIENCE, Daemon, running_daemon, wait_for

URL = "/api/v1/events/stream"


@pytest.fixture
def daemon(shop: Shop, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that knows the shop's items."""
    with running_daemon(shop.configure(tmp_path, listen="127.0.0.1:0")) as daemon:
        wait_for("the baseline", lambda: baseline_is_there(wait_for("the URL", daemon.url)))
        yield daemon


def baseline_is_there(url: str) -> bool:
    [endpoint] = httpx.get(f"{url}/api/v1/status").json()["endpoints"]
    return endpoint["last_sweep"] is not None


def rename(shop: Shop, name: str) -> None:
    shop.items = [{"id": 1, "name": name}, *shop.items[1:]]


@contextlib.contextmanager
def stream(daemon: Daemon, **headers: str) -> Iterator[Iterator[str]]:
    """The lines of the stream as they come."""
    url = wait_for("the URL", daemon.url)
    with httpx.stream("GET", f"{url}{URL}", headers=headers, timeout=PATIENCE) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield response.iter_lines()


def next_event(lines: Iterator[str]) -> tuple[str, dict[str, Any]]:
    """(id, CloudEvent) of the next message."""
    place = ""
    for line in lines:
        if line.startswith("id:"):
            place = line[3:].strip()
        if line.startswith("data:"):
            return place, orjson.loads(line[5:])
    raise AssertionError("the stream has ended")


def test_it_goes_on_with_what_a_reloaded_configuration_finds(daemon: Daemon, shop: Shop) -> None:
    with stream(daemon) as lines:
        next(lines)
        rename(shop, "Quince")
        _, first = next_event(lines)
        daemon.signal(signal.SIGHUP)
        wait_for("the reload", lambda: "config.reloaded" in daemon.log)
        rename(shop, "Medlar")
        _, second = next_event(lines)

    assert [event["data"]["object"]["name"] for event in (first, second)] == ["Quince", "Medlar"]


def test_a_reconnect_continues_behind_the_last_event_id(daemon: Daemon, shop: Shop) -> None:
    with stream(daemon) as lines:
        next(lines)
        rename(shop, "Quince")
        place, _ = next_event(lines)
    rename(shop, "Medlar")

    with stream(daemon, **{"Last-Event-ID": place}) as lines:
        _, missed = next_event(lines)

    assert missed["data"]["changes"] == [{"path": "/name", "before": "Quince", "after": "Medlar"}]


def test_the_daemon_ends_though_a_stream_is_open(daemon: Daemon) -> None:
    with stream(daemon) as lines:
        next(lines)
        assert daemon.stop() == 0
