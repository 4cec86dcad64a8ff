"""The real daemon as a process of its own, and a callback that hears from it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from tests.support.loopback import Handler, serving_handler

PATIENCE = 60.0  # seconds before a test gives up waiting for what must come


def wait_for(what: str, is_so: Callable[[], Any]) -> Any:
    """Return what `is_so` answers once it is true."""
    until = time.monotonic() + PATIENCE
    while not (found := is_so()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {PATIENCE:g} s in vain: {what}")
        time.sleep(0.01)
    return found


class Daemon:
    """`poller run` on one configuration; READY is heard over systemd's protocol."""

    def __init__(self, config: Path, *, module: str = "poller.cli") -> None:
        self.config = config
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0  # where its latest start begins in the log

    def start(self) -> "Daemon":
        """Start it and wait until it says that it is ready."""
        path = self.config.parent / "notify.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(PATIENCE)
            log = (self.config.parent / "daemon.log").open("ab")
            self._began = len(self.log)
            with log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", self._module, "run", "--config", str(self.config)],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "NOTIFY_SOCKET": str(path)},
                )
            while b"READY=1" not in notify.recv(4096):
                pass
        return self

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9: nothing is finished, nothing is said."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait(PATIENCE)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def url(self) -> str | None:
        """Where it listens since its latest start; None before it has said so."""
        found = re.findall(r'"url": "(http://[^"]+)"', self.log[self._began :])
        return found[-1] if found else None

    @property
    def log(self) -> str:
        return (self.config.parent / "daemon.log").read_text()


class Callback:
    """An HTTP receiver that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.interrupt: Callable[[], None] | None = None  # called once, before the next event is answered
        self.url = ""
        self._open = contextlib.ExitStack()

    def take(self, event: dict[str, Any]) -> None:
        """Keep an event."""
        self.events.append(event)
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()

    def __enter__(self) -> "Callback":
        callback = self

        class Hook(Handler):
            def do_POST(self) -> None:
                callback.take(orjson.loads(self.body()))
                self.answer(204)

        self.url = f"http://{self._open.enter_context(serving_handler(Hook))}/hook"
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@contextlib.contextmanager
def running_daemon(config: Path) -> Iterator[Daemon]:
    """A daemon that is stopped at the end, however the test ends."""
    daemon = Daemon(config).start()
    try:
        yield daemon
    finally:
        daemon.stop()
