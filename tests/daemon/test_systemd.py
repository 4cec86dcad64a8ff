from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poller.daemon.systemd import Notifier

UNIT = Path(__file__).parents[2] / "systemd" / "poller.service"


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> dict[str, str]:
        lines = self.socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def heard_nothing(self) -> bool:
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


@pytest.fixture
def notifier(manager: Manager) -> Callable[..., Notifier]:
    return lambda **more: Notifier({"NOTIFY_SOCKET": manager.socket.getsockname(), **more})


def test_readiness_is_told_with_a_line_of_status(manager, notifier):
    notifier().ready(status="watching 3 endpoints")

    assert manager.heard() == {"READY": "1", "STATUS": "watching 3 endpoints"}


def test_a_name_of_the_abstract_namespace_is_reached():
    name = f"poller-test-{os.getpid()}"
    manager = Manager(f"\0{name}")

    Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()

    assert manager.heard() == {"READY": "1"}
    manager.socket.close()


def test_a_reload_carries_the_monotonic_time_in_microseconds(manager, notifier):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier().reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    heard = manager.heard()
    assert heard["RELOADING"] == "1"
    assert before <= int(heard["MONOTONIC_USEC"]) <= after


def test_the_end_is_told(manager, notifier):
    notifier().stopping()

    assert manager.heard()["STOPPING"] == "1"


def test_the_watchdog_is_fed_twice_as_often_as_it_wants(manager, notifier):
    fed = notifier(WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid()))
    fed.alive(status="12 calls")

    assert fed.watchdog_interval == 30.0
    assert manager.heard() == {"WATCHDOG": "1", "STATUS": "12 calls"}


def test_a_watchdog_of_another_process_is_left_alone(manager, notifier):
    other = notifier(WATCHDOG_USEC="60000000", WATCHDOG_PID="1")
    other.alive(status="12 calls")

    assert other.watchdog_interval is None
    assert manager.heard() == {"STATUS": "12 calls"}


@pytest.mark.parametrize("microseconds", ["", "0", "soon", "-5"])
def test_without_a_usable_watchdog_there_is_no_interval(notifier, microseconds):
    assert notifier(WATCHDOG_USEC=microseconds).watchdog_interval is None


def test_a_status_cannot_smuggle_another_line(manager, notifier):
    notifier().ready(status="fine\nSTOPPING=1")

    assert manager.heard() == {"READY": "1", "STATUS": "fine STOPPING=1"}


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nowhere/at/all"])
def test_where_nobody_listens_nothing_happens(address):
    notifier = Notifier({"NOTIFY_SOCKET": address})

    notifier.ready(status="fine")
    notifier.alive()


def test_nothing_to_say_is_not_said(manager, notifier):
    notifier().alive()

    assert manager.heard_nothing()


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "WatchdogSec=60",
        "Restart=always",
        "RestartSec=15",
        "StartLimitIntervalSec=0",
        "StateDirectory=poller",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "SystemCallFilter=@system-service",
    ],
)
def test_the_unit_is_watched_restarted_and_locked_in(line):
    assert line in UNIT.read_text(encoding="utf-8").splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_with_the_unit(tmp_path):
    # The command it starts need not be installed where it says on this machine.
    text = UNIT.read_text(encoding="utf-8").replace("/usr/local/bin/poller", "/bin/true")
    copy = tmp_path / "poller.service"
    copy.write_text(text, encoding="utf-8")

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )

    told = [line for line in checked.stderr.splitlines() if "poller.service" in line]
    assert told == []
