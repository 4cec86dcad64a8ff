"""A daemon at work for an hour: its memory, files, descriptors and threads, which must not grow.

    python -m tests.proofs.soak [--seconds 3600] [--seed 1] [--draw FILE.svg] [--samples FILE.json]

It polls an API that changes five times a second, delivers to a receiver that fails at random, to one that is dead and
to a file that is rotated, is asked by clients, streams events, and reloads its configuration. What is older than five
minutes is purged every minute. Exit status 1 where something grew, or was not delivered; then its folder is kept, with
the state and the log.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

from state.errors import StateError
from state.open import open_reader
from tests.proofs.crash.world import SIZE, Api, Busy, Receiver, is_poisoned
from tests.proofs.soak.charts import Line, Panel, draw
from tests.proofs.soak.growth import Grown, grown
from tests.support.daemon import Daemon, wait_for

EVERY: Final = 10.0  # seconds between two samples
RELOAD_EVERY: Final = 300.0
RESUME_EVERY: Final = 600.0
STREAM: Final = 30.0  # seconds for which a stream of events is read
PATHS: Final = ("/", "/api/v1/status", "/api/v1/events?limit=50", "/api/v1/plan", "/api/v1/deliveries", "/metrics")
MOST: Final = {"memory": 8.0, "files": 4.0, "descriptors": 4.0, "threads": 2.0}  # MB, MB: what may be added an hour

CONFIG: Final = """
[poller]
listen = "127.0.0.1:0"
retention = "5m"
[budgets.shop]
limits = ["20/s", "900/min"]
share = 1
[sources.shop]
plugin = "rest"
base_url = "{api}"
[sources.shop.endpoints.things]
path = "/things"
pagination = {{ type = "page", size = {size} }}
item_path = "/things/{{id}}"
order = "id"
absent_for = "1s"
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{receiver}/hook"
allow_private = true
start = "beginning"
retry = ["1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s"]
[[subscriptions]]
name = "dead"
plugin = "http"
url = "{dead}/hook"
allow_private = true
retry = ["1s", "10s", "60s", "10m"]
[[subscriptions]]
name = "file"
plugin = "jsonl"
path = "events.jsonl"
rotate = "1MB"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the daemon has of its machine at one moment."""

    at: float  # seconds since the beginning
    memory: float  # MB, resident
    files: float  # MB, the state and its write-ahead log
    descriptors: int
    threads: int
    calls: int


class Dead(Receiver):
    """A receiver that takes nothing."""

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """See Served."""
        return 503, b""


def main() -> int:
    """Let it work, sample, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draw", type=Path, metavar="FILE.svg")
    parser.add_argument("--samples", type=Path, metavar="FILE.json")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    with Api(given.seed) as api, Receiver(given.seed) as receiver, Dead(0) as dead:
        config = folder / "poller.toml"
        text = CONFIG.format(api=api.url, receiver=receiver.url, dead=dead.url, size=SIZE)
        config.write_text(text, encoding="utf-8")
        with _daemon(config) as daemon:
            url = wait_for("its address", daemon.url)
            with _busy(api.change, 0.2), _busy(Clients(url), 1.0), _busy(Operator(daemon, url), 1.0):
                samples = list(_samples(daemon.pid, config, api, receiver, given.seconds))
            faults = _end_well(folder / "poller.db", api, receiver)
            status = httpx.get(f"{url}/api/v1/status", timeout=60.0).text
    if given.samples is not None:
        given.samples.write_text(json.dumps([asdict(one) for one in samples]), encoding="utf-8")
    if given.draw is not None:
        draw_samples(samples, given.draw)
    print(f"{samples[-1].calls} calls, {len(receiver.accepted)} events accepted in {receiver.attempts} attempts")
    found = growths(samples)
    for one in found:
        print(f"  {one}")
    for fault in faults:
        print(f"BROKEN: {fault}")
    if not (faults or any(one.is_too_much for one in found)):
        shutil.rmtree(folder)
        return 0
    print(f"status at the end: {status}")
    print(f"kept: {folder}")
    return 1


def growths(samples: Sequence[Sample]) -> list[Grown]:
    """How each figure grew, after what a daemon takes while it warms up."""
    times = [one.at for one in samples]
    return [
        grown(name, times, [float(getattr(one, name)) for one in samples], most=most) for name, most in MOST.items()
    ]


def draw_samples(samples: Sequence[Sample], path: Path) -> None:
    """A picture of an hour."""
    minutes = [one.at / 60 for one in samples]

    def line(name: str, label: str) -> Line:
        return Line(label, minutes, [float(getattr(one, name)) for one in samples])

    panels = [
        Panel("Resident memory", "MB", [line("memory", "daemon")]),
        Panel("State on disk", "MB", [line("files", "file and write-ahead log")]),
        Panel("Descriptors and threads", "", [line("descriptors", "descriptors"), line("threads", "threads")]),
    ]
    draw(panels, "minutes", path)


@contextlib.contextmanager
def _daemon(config: Path) -> Iterator[Daemon]:
    daemon = Daemon(config, module="tests.proofs.soak.daemon").start()
    try:
        yield daemon
    finally:
        daemon.stop()


@contextlib.contextmanager
def _busy(work: Callable[[], None], seconds: float) -> Iterator[None]:
    busy = Busy(work, seconds)
    busy.start()
    try:
        yield
    finally:
        busy.end()


def _samples(pid: int, config: Path, api: Api, receiver: Receiver, seconds: float) -> Iterator[Sample]:
    began, state = time.monotonic(), config.parent / "poller.db"
    for number in itertools.count():
        time.sleep(max(0.0, began + number * EVERY - time.monotonic()))
        at = time.monotonic() - began
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        facts = dict(line.split(":", 1) for line in status.splitlines())
        yield Sample(
            at=at,
            memory=int(facts["VmRSS"].split()[0]) / 1024,
            files=sum(path.stat().st_size for path in (state, Path(f"{state}-wal"))) / 1e6,
            descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(facts["Threads"]),
            calls=len(api.arrivals),
        )
        if number % 30 == 0:
            print(f"{at:6.0f} s, {len(api.arrivals):7} calls, {len(receiver.accepted):7} events accepted", flush=True)
        if at >= seconds:
            return


class Clients:
    """People and programs that ask it: pages, the API, metrics, a stream that is read for a while."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60.0)
        self._paths = itertools.cycle(PATHS)
        self._stream: threading.Thread | None = None

    def __call__(self) -> None:
        """Ask once."""
        with contextlib.suppress(httpx.HTTPError):  # a reload may close a connection
            self._client.get(next(self._paths))
        if self._stream is None or not self._stream.is_alive():
            self._stream = threading.Thread(target=self._read, daemon=True)
            self._stream.start()

    def _read(self) -> None:
        until = time.monotonic() + STREAM
        with contextlib.suppress(httpx.HTTPError), self._client.stream("GET", "/api/v1/events/stream") as answer:
            for _ in answer.iter_raw():
                if time.monotonic() > until:
                    return


class Operator:
    """Who reloads the configuration, and resumes what was disabled."""

    def __init__(self, daemon: Daemon, url: str) -> None:
        self._daemon = daemon
        self._client = httpx.Client(base_url=url, timeout=60.0)
        self._reloaded = self._resumed = time.monotonic()

    def __call__(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now - self._reloaded >= RELOAD_EVERY:
            self._reloaded = now
            self._daemon.signal(signal.SIGHUP)
        if now - self._resumed >= RESUME_EVERY:
            self._resumed = now
            with contextlib.suppress(httpx.HTTPError):
                self._client.post("/api/v1/subscriptions/dead/resume")


def _end_well(state: Path, api: Api, receiver: Receiver) -> list[str]:
    """Let it deliver what is left, and compare what was accepted with what is."""
    receiver.is_kind = True

    def is_done() -> bool:
        with contextlib.suppress(StateError), open_reader(state) as reader:
            hook = next(one for one in reader.deliveries.subscriptions() if one.name == "hook")
            return hook.pending + hook.lag == 0 and not _differing(api, receiver)
        return False

    with contextlib.suppress(AssertionError):
        wait_for("all to be delivered", is_done)
    return [*_differing(api, receiver), *_gaps(receiver)]


def _differing(api: Api, receiver: Receiver) -> list[str]:
    """Where the receiver's last word on an object is not what the object is. What never changed was never told."""
    known = {event["subject"]: event for event in receiver.accepted}
    found = []
    for subject, event in known.items():
        is_deleted, number = event["type"].endswith(".deleted"), int(subject.split("/")[1])
        thing = api.things.get(number)
        if (thing is None) != is_deleted or (thing is not None and event["data"]["object"] != thing):
            found.append(f"{subject} is {thing} and was told as {event['type']} {event['data']['object']}")
    return found


def _gaps(receiver: Receiver) -> Iterator[str]:
    """Where versions were not delivered one after the other."""
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for event in receiver.accepted:
        if event["data"]["version"] not in versions[event["subject"]][-3:]:  # taken, and the answer was lost: again
            versions[event["subject"]].append(event["data"]["version"])
    for subject, given in versions.items():
        if not is_poisoned(subject) and given != list(range(given[0], given[0] + len(given))):
            yield f"{subject} was delivered in versions {given[:20]}"


if __name__ == "__main__":
    sys.exit(main())
