"""`make prove-servers`: a daemon polls servers that others wrote, while their own APIs change them at random.

Each server is changed for 25 seconds, and then polled until everything is told, at most 150 seconds. Each run ends with
what the log tells that never was (false) and what it leaves out (missing).
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from tests.proofs.servers.kinds import KINDS, DjangoRest, Kind, Place, environment, node_packages_of, python_of
from tests.proofs.servers.truth import Truth, Verdict, judge
from tests.support.daemon import running_daemon

CHANGING: Final = 25.0  # seconds
QUIET: Final = (
    150.0  # seconds at most until the rest is told; a deletion without an own URL takes `absent_for`, a minute
)
STARTING: Final = 60.0
CONFIG: Final = """
[poller]
listen = "127.0.0.1:0"
[budgets.it]
limits = ["40/s"]
[sources.it]
plugin = "rest"
budget = "it"
base_url = "URL"
"""
SINK: Final = """
[[subscriptions]]
name = "log"
plugin = "jsonl"
path = "events.jsonl"
start = "beginning"
"""


def main() -> int:
    """Prove one server after the other; 1 where a log is not true."""
    cache = Path(__file__).parents[3] / "build" / "servers"
    cache.mkdir(parents=True, exist_ok=True)
    python, node = python_of(cache / "venv"), node_packages_of(cache / "npm")
    failed = False
    for make in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            changes, events, verdicts = proved(make(Place(Path(folder), python, node)), Path(folder))
        for endpoint, verdict in verdicts.items():
            failed |= bool(verdict.false or verdict.missing)
            print(
                f"{make.name:22} {endpoint:9} {changes:4} changes {events[endpoint]:4} events  "
                f"false {len(verdict.false)}  missing {len(verdict.missing)}",
                flush=True,
            )
            for line in (*verdict.false[:5], *verdict.missing[:5]):
                print(f"    {line}")
    return int(failed)


def proved(kind: Kind, folder: Path) -> tuple[int, dict[str, int], dict[str, Verdict]]:
    """Start a server and a daemon, change and poll, and judge."""
    place: Place = kind.place  # type: ignore[attr-defined]
    place.port = _free_port()
    command = kind.command(place.port)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
    try:
        truth = Truth(_started(kind, server, folder))
        config = folder / "poller.toml"
        config.write_text((CONFIG + kind.config).replace("URL", place.url) + _token(kind) + SINK)
        endpoints = [line.rpartition(".")[2].strip("]") for line in kind.config.splitlines() if ".endpoints." in line]
        with running_daemon(config) as daemon:
            _wait_for_baselines(daemon.url, endpoints)
            _change(kind, truth, random.Random(1))
            return truth.changes, *_judged(kind, truth, folder, endpoints)
    finally:
        server.terminate()
        server.wait(10)


def _token(kind: Kind) -> str:
    if isinstance(kind, DjangoRest) or "authorization" not in kind.http.headers:  # type: ignore[attr-defined]
        return ""
    token = kind.http.headers["authorization"].removeprefix("Bearer ")  # type: ignore[attr-defined]
    return f'[sources.it.auth]\ntype = "bearer"\ntoken = "{token}"\n'


def _started(kind: Kind, server: subprocess.Popen[bytes], folder: Path) -> dict[str, dict[str, Any]]:
    until = time.monotonic() + STARTING
    while True:
        try:
            return kind.ready()
        except httpx.HTTPError as error:
            if server.poll() is not None or time.monotonic() > until:
                said = (folder / "server.log").read_text()[-2000:]
                raise SystemExit(f"{kind.name} does not answer: {error}\n{said}") from error
            time.sleep(0.2)


def _wait_for_baselines(url: Any, endpoints: list[str]) -> None:
    until = time.monotonic() + STARTING
    while time.monotonic() < until:
        status = httpx.get(f"{url()}/api/v1/status", trust_env=False).json()
        if all(one["last_sweep"] for one in status["endpoints"]) and len(status["endpoints"]) == len(endpoints):
            return
        time.sleep(0.2)
    raise SystemExit(f"no first sweep within {STARTING:g} s: {status['endpoints']}")


def _change(kind: Kind, truth: Truth, chance: random.Random) -> None:
    there = sorted(truth.baseline)
    until = time.monotonic() + CHANGING
    number = 0
    while time.monotonic() < until:
        number += 1
        row = {"name": f"changed {number}", "amount": number}
        what = chance.choices(("update", "create", "delete"), (6, 2, 2))[0]
        if what == "create":
            name, made = kind.create(row)
            there.append(name)
            truth.note(name, made)
        elif what == "update":
            name = chance.choice(there)
            truth.note(name, kind.update(name, row))
        elif len(there) > 60:
            name = there.pop(chance.randrange(len(there)))
            kind.delete(name)
            truth.note(name, None)
        time.sleep(chance.uniform(0.0, 0.3))


def _judged(kind: Kind, truth: Truth, folder: Path, endpoints: list[str]) -> tuple[dict[str, int], dict[str, Verdict]]:
    until = time.monotonic() + QUIET
    while True:
        file = folder / "events.jsonl"
        events = [orjson.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []
        mine = {name: [one for one in events if one["subject"].startswith(f"{name}/")] for name in endpoints}
        verdicts = {name: judge(truth, found, kind.fields) for name, found in mine.items()}
        if time.monotonic() > until or not any(verdict.missing for verdict in verdicts.values()):
            return {name: len(found) for name, found in mine.items()}, verdicts
        time.sleep(1.0)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
