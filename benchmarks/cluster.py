"""Three workers on one PostgreSQL, killed and stopped at random: nothing lost, invented, out of order or over a limit.

Each round ends a worker by SIGKILL, and starts another one, or stops one by SIGSTOP for longer than its leases last and
wakes it. Meanwhile objects change behind a strict API of many keys, and receivers fail one time in ten. At the end
every subscription must know every object as it is, every version once and in order of first receipt, and no window of
any key may have been exceeded by the API's own count. How soon others take over is measured for each round.

`--without spend|record|settle` takes the check of the epoch out of that step, and the lease's end out of the workers'
own sight: then the proof must fail.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

import psycopg

from state.errors import StateError
from state.open import open_reader
from state.place import DatabaseUrl
from tests.support.cluster import Api, Receiver, WorkerProcess, configured, serving, workers
from tests.support.postgres import Server, running_server

KEYS, SUBSCRIPTIONS, WORKERS = 12, 6, 3
SETTINGS = ("fsync=off", "shared_buffers=64MB", "max_connections=200", "io_method=sync", "jit=off")
SOURCES_WITHIN, SUBSCRIPTIONS_WITHIN = 3.0, 5.0  # seconds
MUTANT = """
from poller.sources import transport
from poller.delivery import consumer
import state.postgres.{module} as module
module.check = lambda *_: None
transport.Gate.refuse_if_late = lambda self: None
from poller.daemon.workers import Workers
async def keep(self, renewed): pass
Workers._drop_lost = keep
"""
STEPS = {"spend": "calls", "record": "polls", "settle": "dispatch"}


class Proof:
    """One run."""

    def __init__(self, server: Server, folder: Path, *, seed: int, code: str) -> None:
        self.api, self.receiver = Api(KEYS), Receiver()
        self.random = Random(seed)
        self.url = server.database()
        self.folder = folder
        self.code = code
        self.sources: list[float] = []  # seconds until another worker asked for a key
        self.subscriptions: list[float] = []
        self._stop = threading.Event()

    def owned(self, pid: int) -> list[str]:
        """The leases of a worker, by the process id in its name."""
        with open_reader(DatabaseUrl(self.url)) as reader:
            owners = reader.leases.shares().owners
        return [name for name, lease in owners.items() if lease.worker.rsplit("-", 2)[1] == str(pid)]

    def is_shared_out(self) -> bool:
        """Whether every worker is alive and owns its part, and every key was asked for."""
        try:
            with open_reader(DatabaseUrl(self.url)) as reader:
                shares = reader.leases.shares()
        except StateError:
            return False
        parts = Counter(lease.worker for lease in shares.owners.values())
        is_even = len(parts) == WORKERS and max(parts.values()) <= (KEYS + SUBSCRIPTIONS) // WORKERS
        return is_even and len(shares.workers) == WORKERS and all(map(self.is_asked, range(KEYS)))

    def is_asked(self, key: int) -> bool:
        """Whether its baseline is complete."""
        return len(self.api.arrivals[f"key{key}"]) > 1

    def change(self) -> None:
        """Change objects until the end."""
        random = Random(1)
        while not self._stop.wait(0.1):
            self.api.change(random)

    def run(self, rounds: int) -> list[str]:
        """What is wrong at the end."""
        with serving(self.api, self.receiver):
            config = configured(self.folder, self.url, self.api, self.receiver, subscriptions=SUBSCRIPTIONS)
            with workers(config, WORKERS, code=self.code) as found:
                _until(self.is_shared_out, 120.0)
                changing = threading.Thread(target=self.change)
                changing.start()
                for number in range(rounds):
                    self.round(number, found, config)
                self._stop.set()
                changing.join()
                _until(self.is_told, 60.0)
                return self.wrong()

    def round(self, number: int, found: list[WorkerProcess], config: Path) -> None:
        """End or stop one worker, and see who goes on."""
        victim = self.random.choice(found)
        leases, is_kill = self.owned(victim.pid), self.random.random() < 0.5
        victim.send(signal.SIGKILL if is_kill else signal.SIGSTOP)
        at = time.monotonic()
        time.sleep(0.05)  # what had left is in by then
        since = time.monotonic()
        late = self.see_taken_over(leases, at, since)
        if is_kill:
            victim.kill()
            found[found.index(victim)] = WorkerProcess(config, 100 + number, code=self.code).start()
        else:
            victim.send(signal.SIGCONT)
        _until(self.is_shared_out, 90.0)
        print(f"round {number}: {'killed' if is_kill else 'stopped'}, {len(leases)} leases, {late}", flush=True)

    def see_taken_over(self, leases: list[str], at: float, since: float) -> str:
        """Wait until each lease of the victim shows that another worker has it; how long that took."""
        missing = dict.fromkeys(leases, 0.0)
        while any(not seconds for seconds in missing.values()) and time.monotonic() < at + 20.0:
            time.sleep(0.02)
            for name in missing:
                kind, _, subject = name.partition("/")
                latest = self.api.latest(subject) if kind == "budget" else self.receiver.latest.get(subject, 0.0)
                if not missing[name] and latest > since:
                    missing[name] = latest - at
        took = {name: seconds or 20.0 for name, seconds in missing.items()}
        self.sources += [seconds for name, seconds in took.items() if name.startswith("budget/")]
        self.subscriptions += [seconds for name, seconds in took.items() if name.startswith("subscription/")]
        return f"all go on after {max(took.values(), default=0.0):.1f} s"

    def is_told(self) -> bool:
        """Whether every subscription knows every object as it is."""
        expected = {place: n for place, n in self.api.states.items() if n}
        return all(self.receiver.states(f"sub{number}") == expected for number in range(SUBSCRIPTIONS))

    def wrong(self) -> list[str]:
        """Everything that must not be."""
        found = [f"over a limit: {one}" for one in self.api.exceeded]
        found += [f"out of order or left out: {one}" for one in self.receiver.out_of_order()]
        expected = {place: n for place, n in self.api.states.items() if n}
        for number in range(SUBSCRIPTIONS):
            told = self.receiver.states(f"sub{number}")
            found += [
                f"lost or invented: sub{number} {place}: {told.get(place)} and not {expected.get(place)}"
                for place in expected.keys() | told.keys()
                if told.get(place) != expected.get(place)
            ]
        with open_reader(DatabaseUrl(self.url)) as reader:
            found += [f"books of {one.subscription}" for one in reader.deliveries.ledger() if not one.balanced]
        return found


def _until(is_so: object, seconds: float) -> None:
    assert callable(is_so)
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.05)


def _report(name: str, seconds: list[float], most: float) -> bool:
    if not seconds:
        return True
    print(f"{name}: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s (target {most:g} s)")
    return max(seconds) <= most


def main() -> int:
    """Run the proof; exit status 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", choices=STEPS)
    given = parser.parse_args()
    code = MUTANT.format(module=STEPS[given.without]) if given.without else ""
    with running_server(settings=SETTINGS) as server, tempfile.TemporaryDirectory(prefix="cluster") as folder:
        proof = Proof(server, Path(folder), seed=given.seed, code=code)
        wrong = proof.run(given.rounds)
        calls = sum(len(arrived) for arrived in proof.api.arrivals.values())
        events = sum(len(one) for one in proof.receiver.events.values())
        print(f"{calls} calls of {KEYS} keys, {events} events to {SUBSCRIPTIONS}, {proof.receiver.twice} twice")
        in_time = _report("sources", proof.sources, SOURCES_WITHIN)
        in_time &= _report("subscriptions", proof.subscriptions, SUBSCRIPTIONS_WITHIN)
        for one in wrong[:20]:
            print(one)
        print("nothing lost, invented, out of order or over a limit" if not wrong else f"{len(wrong)} faults")
        if wrong:
            for log in Path(folder).glob("*.log"):
                lines = [line for line in log.read_text().splitlines() if '"level": "error"' in line or "Trace" in line]
                print(log.name, *lines[-5:], sep="\n  ")
        return int(bool(wrong) or not in_time)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except psycopg.Error as error:
        sys.exit(str(error))
