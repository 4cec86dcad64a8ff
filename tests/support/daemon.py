"""The real daemon as a process of its own, and a callback that hears from it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

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

    def start(self) -> "Daemon":
        """Start it and wait until it says that it is ready."""
        path = self.config.parent / "notify.sock"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(PATIENCE)
            log = (self.config.parent / "daemon.log").open("ab")
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
        found = re.findall(r'"url": "(http://[^"]+)"', self.log)
        return found[-1] if found else None

    @property
    def log(self) -> str:
        return (self.config.parent / "daemon.log").read_text()


class Callback:
    """An HTTP receiver that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.interrupt: Callable[[], None] | None = None  # called once, before the next event is answered
        callback = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                callback.events.append(event)
                interrupt, callback.interrupt = callback.interrupt, None
                if interrupt is not None:
                    interrupt()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(204)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "Callback":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def running_daemon(config: Path) -> Iterator[Daemon]:
    """A daemon that is stopped at the end, however the test ends."""
    daemon = Daemon(config).start()
    try:
        yield daemon
    finally:
        daemon.stop()
