"""Three workers on one PostgreSQL, killed and stopped at random: nothing lost, invented, out of order or over a limit.

Each round ends a worker by SIGKILL, and starts another one, or stops one by SIGSTOP for longer than its leases last and
wakes it. Meanwhile objects change behind a strict API of many keys, and receivers fail one time in ten. At the end
every subscription must know every object as it is, every version once and in order of first receipt, and no window of
any key may have been exceeded by the API's own count. How soon others take over is measured for each round. A window
that is full when a lease runs out allows nobody a call: then it is measured how soon one follows once it does.

`--without spend|record|settle` takes the check of the epoch out of that step, and the lease's end out of the workers'
own sight: then the proof must fail.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import psycopg

from poller.daemon.workers import TTL
from state.errors import StateError
from state.open import open_reader
from state.place import DatabaseUrl
from tests.support.cluster import LIMITS, Api, Receiver, WorkerProcess, configured, serving, workers
from tests.support.cluster_judge import Faults, judge
from tests.support.postgres import Server, running_server

KEYS, SUBSCRIPTIONS, WORKERS = 12, 6, 3
SETTINGS = ("fsync=off", "shared_buffers=64MB", "max_connections=200", "io_method=sync", "jit=off")
SOURCES_WITHIN, SUBSCRIPTIONS_WITHIN = 3.0, 5.0  # seconds
FULL_WITHIN = SOURCES_WITHIN - TTL  # seconds once the windows of a key allow a call, if they do so after its lease
GONE = 20.0  # seconds after which nobody is expected to take over any more
MUTANT = """
import state.postgres.{module} as module
module.check = lambda *_: None
from poller.budget.limiter import RateLimiter
RateLimiter.refuse_if_late = lambda self: None
from poller.daemon.holdings import Holdings
async def keep(self, *_): pass
Holdings.drop_lost = keep
"""
STEPS = {"spend": "calls", "record": "polls", "settle": "dispatch"}


class Proof:
    """One run."""

    def __init__(self, server: Server, folder: Path, *, seed: int, code: str) -> None:
        self.api, self.receiver = Api(KEYS), Receiver()
        self.names = [f"sub{number}" for number in range(SUBSCRIPTIONS)]
        self.random = Random(seed)
        self.url = server.database()
        self.folder = folder
        self.code = code
        self.sources: list[float] = []  # seconds until another worker asked for a key
        self.full: list[float] = []  # the same of keys whose windows were full, from when they allowed a call
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
        is_even = len(parts) == WORKERS and sum(parts.values()) == KEYS + SUBSCRIPTIONS
        return is_even and len(shares.workers) == WORKERS and all(map(self.is_asked, range(KEYS)))

    def is_asked(self, key: int) -> bool:
        """Whether its baseline is complete."""
        return len(self.api.arrivals[f"key{key}"]) > 1

    def change(self) -> None:
        """Change objects until the end."""
        random = Random(1)
        while not self._stop.wait(0.1):
            self.api.change(random)

    def run(self, rounds: int) -> Faults:
        """What is wrong at the end."""
        with serving(self.api, self.receiver):
            config = configured(self.folder, self.url, self.api, self.receiver, subscriptions=SUBSCRIPTIONS)
            with workers(config, WORKERS, code=self.code) as found:
                _until(self.is_shared_out, 240.0)
                changing = threading.Thread(target=self.change)
                changing.start()
                for number in range(rounds):
                    self.round(number, found, config)
                self._stop.set()
                changing.join()
                _until(self.is_told, 120.0)
                with open_reader(DatabaseUrl(self.url)) as reader:
                    books = [one.subscription for one in reader.deliveries.ledger() if not one.balanced]
                return judge(self.api, self.receiver, self.names, unbalanced=books)

    def round(self, number: int, found: list[WorkerProcess], config: Path) -> None:
        """End or stop one worker, and see who goes on."""
        victim = self.random.choice(found)
        leases, is_kill = self.owned(victim.pid), self.random.random() < 0.5
        victim.send(signal.SIGKILL if is_kill else signal.SIGSTOP)
        at = time.monotonic()
        took = self.taken_over(leases, victim.name, at)
        if is_kill:
            victim.kill()
            found[found.index(victim)] = WorkerProcess(config, 100 + number, code=self.code).start()
        else:
            victim.send(signal.SIGCONT)
        is_even = _until(self.is_shared_out, 240.0)
        budgets = {name.partition("/")[2]: seconds for name, seconds in took.items() if name.startswith("budget/")}
        free = {key: self.api.free_at(key, at) - at for key in budgets}
        sources = [seconds for key, seconds in budgets.items() if free[key] <= TTL]
        full = [seconds - free[key] for key, seconds in budgets.items() if free[key] > TTL]
        subscriptions = [seconds for name, seconds in took.items() if name.startswith("subscription/")]
        self.sources += sources
        self.full += full
        self.subscriptions += subscriptions
        asked, given = (max(seconds, default=0.0) for seconds in (budgets.values(), subscriptions))
        print(
            f"round {number}: {'killed' if is_kill else 'stopped'} with {len(took)} leases; its sources asked after "
            f"{asked:.1f} s, subscriptions given after {given:.1f} s; "
            f"load {os.getloadavg()[0]:.1f}{'' if is_even else '; NOT SHARED OUT'}",
            flush=True,
        )

    def taken_over(self, leases: list[str], victim: str, at: float) -> dict[str, float]:
        """Wait until another worker has asked or delivered for each lease of the victim; how long that took."""
        took: dict[str, float] = {}
        while len(took) < len(leases) and time.monotonic() < at + GONE:
            time.sleep(0.02)
            for name in leases:
                kind, _, subject = name.partition("/")
                latest = self.api.latest if kind == "budget" else self.receiver.latest
                others = [one for (of, by), one in latest.copy().items() if of == subject and by != victim and one > at]
                if others and name not in took:
                    took[name] = min(others) - at
        return {name: took.get(name, GONE) for name in leases}

    def is_told(self) -> bool:
        """Whether every subscription knows every object as it is."""
        expected = {place: n for place, n in self.api.states.items() if n}
        return all(self.receiver.states(name) == expected for name in self.names)


def _until(is_so: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _report(name: str, seconds: list[float], most: float) -> bool:
    if not seconds:
        return True
    late = sum(one > most for one in seconds)
    print(
        f"{name}: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s (target {most:g} s), "
        f"{late} of {len(seconds)} later"
    )
    return not late


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
        faults = proof.run(given.rounds)
        calls = sum(len(arrived) for arrived in proof.api.arrivals.values())
        events = sum(len(one) for one in proof.receiver.events.values())
        print(f"{calls} calls of {KEYS} keys, {events} events to {SUBSCRIPTIONS}, {proof.receiver.twice} twice")
        windows = [f"{proof.api.fullest[seconds]} of {most} in {seconds:g} s" for most, seconds in LIMITS]
        print(f"fullest windows by the API's count: {', '.join(windows)}")
        in_time = _report("sources", proof.sources, SOURCES_WITHIN)
        in_time &= _report("sources with a full window, once it allowed a call", proof.full, FULL_WITHIN)
        in_time &= _report("subscriptions", proof.subscriptions, SUBSCRIPTIONS_WITHIN)
        print(*faults.all[:20], sep="\n")
        print(faults)
        if faults.all or not in_time:
            _show_logs(Path(folder))
        return int(bool(faults.all) or not in_time)


def _show_logs(folder: Path) -> None:
    for log in folder.glob("*.log"):
        lines = [line for line in log.read_text().splitlines() if '"level": "error"' in line or "Trace" in line]
        print(log.name, *lines[-5:], sep="\n  ")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except psycopg.Error as error:
        sys.exit(str(error))
