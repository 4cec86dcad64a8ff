"""Workers that share one PostgreSQL database, a strict API of many keys, and receivers that keep what they get."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

from tests.support.loopback import Handler, serving_handler

LIMITS: Final = ((4, 1.0), (25, 10.0))  # (calls, seconds) that the API takes of each key


@dataclass(slots=True)
class Api:
    """An API of `keys` keys, each with a list of its own. It counts every arrival, and says what exceeds a window."""

    keys: int
    objects: int = 3
    url: str = ""
    arrivals: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    exceeded: list[str] = field(default_factory=list)
    fullest: dict[float, int] = field(default_factory=lambda: defaultdict(int))  # calls in a window, by its seconds
    states: dict[tuple[str, int], int] = field(default_factory=dict)
    latest: dict[tuple[str, str], float] = field(default_factory=dict)  # by key and worker: the latest call
    lock: threading.Lock = field(default_factory=threading.Lock)
    clock: Callable[[], float] = time.monotonic
    held: dict[str, threading.Event] = field(default_factory=dict)  # by worker: its answers leave once this is set

    def answer(self, key: str, worker: str = "") -> bytes:
        """The list of a key."""
        now = self.clock()
        with self.lock:
            arrived = self.arrivals[key]
            arrived.append(now)
            self.latest[key, worker] = now
            for calls, seconds in LIMITS:
                count = len(arrived) - bisect_right(arrived, now - seconds)
                self.fullest[seconds] = max(count, self.fullest[seconds])
                if count > calls:
                    self.exceeded.append(f"{key}: {count} calls within {seconds:g} s")
            listed = [{"id": one, "n": self.states.get((key, one), 0)} for one in range(self.objects)]
        return orjson.dumps(listed)

    def free_at(self, key: str, at: float) -> float:
        """When the windows of a key allow another call, by the calls that arrived until `at`."""
        with self.lock:
            arrived = self.arrivals[key][: bisect_right(self.arrivals[key], at)]
        return max([at, *(arrived[-calls] + seconds for calls, seconds in LIMITS if len(arrived) >= calls)])

    def change(self, random: Random) -> None:
        """Change an object of some key."""
        place = f"key{random.randrange(self.keys)}", random.randrange(self.objects)
        with self.lock:
            self.states[place] = self.states.get(place, 0) + 1


@dataclass(slots=True)
class Receiver:
    """What subscriptions were given, by name, in the order of first receipt. Every so many answers are failures."""

    fails: float = 0.1
    url: str = ""
    events: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    latest: dict[tuple[str, str], float] = field(default_factory=dict)  # by subscription and worker
    seen: set[tuple[str, str]] = field(default_factory=set)
    twice: int = 0
    random: Random = field(default_factory=lambda: Random(7))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, name: str, event: dict[str, Any], worker: str = "") -> int:
        """The status of an answer."""
        with self.lock:
            if self.random.random() < self.fails:
                return 503
            self.latest[name, worker] = time.monotonic()
            if (name, event["id"]) in self.seen:
                self.twice += 1
                return 204
            self.seen.add((name, event["id"]))
            self.events[name].append(event)
            return 204

    def states(self, name: str) -> dict[tuple[str, int], int]:
        """The latest state of every object that a subscription was told of."""
        return {
            (event["source"].removeprefix("/sources/"), event["data"]["object"]["id"]): event["data"]["object"]["n"]
            for event in self.events[name]
        }


@contextlib.contextmanager
def serving(api: Api, receiver: Receiver) -> Iterator[None]:
    """Both answer on a port of loopback."""

    class Both(Handler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            worker = self.headers["x-worker"]
            body = api.answer(self.path.split("/")[1], worker)
            if worker in api.held:
                api.held[worker].wait(30)
            self.answer(200, body)

        def do_POST(self) -> None:
            event = orjson.loads(self.body())
            self.answer(receiver.take(self.path.rpartition("/")[2], event, self.headers["x-worker"]))

    with serving_handler(Both) as address:
        api.url = receiver.url = f"http://{address}"
        yield


def configured(folder: Path, url: str, api: Api, receiver: Receiver, *, subscriptions: int) -> Path:
    """A configuration of all keys and some subscriptions to everything."""
    limits = ", ".join(f'"{calls}/{seconds:g}s"' for calls, seconds in LIMITS)
    head = f'[poller]\nstate = "{url}"\nlisten = ""\nlog_format = "json"\n'
    sources = [
        f"[budgets.key{number}]\nlimits = [{limits}]\nshare = 1.0\n"
        f'[sources.key{number}]\nplugin = "rest"\nbudget = "key{number}"\nbase_url = "{api.url}/key{number}"\n'
        'headers = { X-Worker = { env = "WORKER" } }\n'
        f'namespace = "shop"\n[sources.key{number}.endpoints.items]\npath = "/items"\nid = "id"\n'
        'pagination = { type = "none" }\n'
        for number in range(api.keys)
    ]
    sinks = [
        f'[[subscriptions]]\nname = "sub{number}"\nplugin = "http"\nurl = "{receiver.url}/sub{number}"\n'
        'headers = { X-Worker = { env = "WORKER" } }\nallow_private = true\n'
        'retry = ["200ms", "200ms", "500ms", "1s", "1s", "1s", "1s", "1s", "1s", "1s"]\n'
        'types = ["shop.*"]\n'
        for number in range(subscriptions)
    ]
    path = folder / "poller.toml"
    path.write_text("\n".join([head, *sources, *sinks]))
    return path


class WorkerProcess:
    """`poller run` on a configuration, beside others on the same one."""

    def __init__(self, config: Path, number: int, *, code: str = "") -> None:
        self.name = f"worker{number}"  # that it gives itself in its requests
        self.log = config.parent / f"{self.name}.log"
        self._config = config
        self._code = code
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> WorkerProcess:
        """Start it; it says by its leases when it runs."""
        code = f"{self._code}\nimport sys\nfrom poller.cli import main\nsys.argv[0] = 'poller'\nmain()"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "--config", str(self._config), "run", "--listen", ""],
                stdout=log,
                stderr=log,
                env={**os.environ, "WORKER": self.name},
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def workers(config: Path, number: int, *, code: str = "") -> Iterator[list[WorkerProcess]]:
    """So many workers, stopped at the end."""
    found = [WorkerProcess(config, one, code=code).start() for one in range(number)]
    try:
        yield found
    finally:
        for one in found:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.stop()
