"""A daemon that is killed again and again, at random moments and at every named point, and judged from outside.

    python -m tests.proofs.crash [--kills 500] [--each 10] [--seconds 2400] [--longest 8] [--quiet 600] [--seed 1]

`--seconds`, `--longest` and `--quiet` say how long the proof waits: a machine that others use as well needs more.
Exit status 1 where a promise was broken, a point was reached too rarely, or there was too little time for all kills.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from state.errors import StateError
from state.open import open_commands, open_reader
from tests.proofs.crash.judge import faults
from tests.proofs.crash.points import AT_A_DELETION, AT_THE_END, AT_THE_START, POINTS
from tests.proofs.crash.world import LIMITS, SIZE, Api, Busy, Receiver

RANDOM: Final = "a random moment"
SIGNALS: Final = (-signal.SIGHUP, -signal.SIGTERM)  # of what these kill: it was not ready to hear them

RESUME_EVERY: Final = 5.0

CONFIG: Final = """
[poller]
listen = ""
log_level = "error"
[budgets.shop]
limits = [{limits}]
share = 1
[sources.shop]
plugin = "rest"
base_url = "{api}"
[sources.shop.endpoints.things]
path = "/things"
pagination = {{ type = "page", size = {size} }}
item_path = "/things/{{id}}"
order = "id"
baseline = "emit"
absent_for = "200ms"
[[subscriptions]]
name = "hook"
plugin = "http"
url = "{receiver}/hook"
allow_private = true
start = "beginning"
retry = [{retry}]
"""


class Daemons:
    """Daemons, one after the other, from a process that has imported the program."""

    def __init__(self, config: Path) -> None:
        self._log = config.parent / "log"
        command = [sys.executable, "-m", "tests.proofs.crash.points", str(config), str(self._log)]
        self._zygote = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, point: str = "", times: int = 0) -> int:
        """Start one that dies at a point; its process's number."""
        print(point, times, file=self._in, flush=True)
        return int(self._out.readline())

    def ended(self) -> int:
        """Wait for its end, and return its exit status."""
        return int(self._out.readline())

    def log(self) -> str:
        """The end of what they have written."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def close(self) -> None:
        """Start no more."""
        self._in.close()
        self._zygote.wait(10)

    @property
    def _in(self) -> IO[str]:
        assert self._zygote.stdin is not None
        return self._zygote.stdin

    @property
    def _out(self) -> IO[str]:
        assert self._zygote.stdout is not None
        return self._zygote.stdout


def main() -> int:
    """Kill, let it end well, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--each", type=int, default=10, help="kills at each point")
    parser.add_argument("--seconds", type=float, default=2400.0)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds that a daemon lives at most")
    parser.add_argument("--quiet", type=float, default=600.0, help="seconds in which all must be delivered in the end")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Api(given.seed) as api, Receiver(given.seed) as receiver:
        path = Path(folder) / "poller.toml"
        limits = ", ".join(f'"{calls}/{seconds:g}s"' for calls, seconds in LIMITS)
        retry = ", ".join(['"100ms"'] * 200)
        path.write_text(
            CONFIG.format(limits=limits, api=api.url, receiver=receiver.url, size=SIZE, retry=retry), encoding="utf-8"
        )
        with _daemons(path) as daemons:
            counts = _kill(daemons, api, given, random.Random(given.seed))
            _end_well(daemons, path.parent / "poller.db", receiver, given.quiet)
        found = faults(path.parent / "poller.db", api, receiver)
        _print_result(counts, api, receiver)
    for fault in found[:20]:
        print(f"BROKEN: {fault}")
    rare = [point for point in POINTS if counts[point] < given.each]
    print(f"{counts.total()} kills of {given.kills}, {len(found)} promises broken")
    if rare:
        print(f"too rarely at: {', '.join(rare)}")
    return 1 if found or rare or counts.total() < given.kills else 0


@contextmanager
def _daemons(config: Path) -> Iterator[Daemons]:
    daemons = Daemons(config)
    try:
        yield daemons
    finally:
        daemons.close()


def _kill(daemons: Daemons, api: Api, given: argparse.Namespace, chance: random.Random) -> Counter[str]:
    """Kill as often as asked for; how often at each point."""
    busy = Busy(api.change, 0.2)
    busy.start()
    counts: Counter[str] = Counter()
    began = time.monotonic()
    while (point := _next_point(counts, given, chance)) and time.monotonic() - began < given.seconds:
        if point.endswith(AT_A_DELETION):
            api.delete()
        died_at = _one_life(daemons, point, given.longest, chance)
        if died_at is not None:
            counts[died_at] += 1
            if counts.total() % 25 == 0:
                spent = time.monotonic() - began
                print(f"{counts.total():5} kills, {len(api.arrivals):7} calls, {spent:5.0f} s", flush=True)
    busy.end()
    return counts


def _next_point(counts: Counter[str], given: argparse.Namespace, chance: random.Random) -> str | None:
    """A point that was reached too rarely so far, the likelier the more it is in need, or a random moment."""
    needs = {point: max(0, given.each - counts[point]) for point in POINTS}
    spare = max(0, given.kills - counts.total() - sum(needs.values()))
    if not (spare or any(needs.values())):
        return None
    return chance.choices([*needs, RANDOM], [*needs.values(), spare])[0]


def _one_life(daemons: Daemons, point: str, longest: float, chance: random.Random) -> str | None:
    """Start a daemon, reload or stop it now and then, and see it die; where it died. None: it ended well before."""
    name = point.partition(" ")[2]
    is_sought = point != RANDOM
    times = 1 if name in (*AT_THE_END, AT_A_DELETION) else chance.randint(1, 2 if name in AT_THE_START else 5)
    pid = daemons.start(point if is_sought else "", times)
    lasts = longest if is_sought else chance.uniform(0.02, longest / 2)
    timers = [_signal_later(pid, signal.SIGKILL, lasts)]
    if name in AT_THE_END:
        timers.append(_signal_later(pid, signal.SIGTERM, chance.uniform(1.5, longest / 2)))
    elif times == 2 or chance.random() < 0.2:
        timers.append(_signal_later(pid, signal.SIGHUP, chance.uniform(1.5, longest / 2)))
    status = daemons.ended()
    is_late = not timers[0].is_alive()
    for timer in timers:
        timer.cancel()
    if status == 0 and name in AT_THE_END:
        return None
    if status in SIGNALS:
        return RANDOM
    if status != -signal.SIGKILL:
        raise SystemExit(f"a daemon ended by itself with {status}, and was to die at {point}: {daemons.log()}")
    return RANDOM if is_late else point


def _signal_later(pid: int, number: int, seconds: float) -> threading.Timer:
    def send() -> None:
        with suppress(ProcessLookupError):  # it has died before
            os.kill(pid, number)

    timer = threading.Timer(seconds, send)
    timer.start()
    return timer


def _end_well(daemons: Daemons, state: Path, receiver: Receiver, seconds: float) -> None:
    """Let a last daemon see and deliver everything."""
    receiver.is_kind = True
    pid = daemons.start()
    until, quiet_since, before = time.monotonic() + seconds, time.monotonic(), (0, 0)
    resumed = quiet_since
    while time.monotonic() < until and time.monotonic() - quiet_since < 12.0:
        time.sleep(0.5)
        if time.monotonic() - resumed > RESUME_EVERY:
            resumed = time.monotonic()
            _resume(state)
        if (now := _progress(state)) != before or now[1]:
            before, quiet_since = now, time.monotonic()
    os.kill(pid, signal.SIGTERM)
    if daemons.ended() != 0:
        print("BROKEN: the last daemon did not end well")


def _resume(state: Path) -> None:
    """Resume the subscription, as an operator does: where only events are left that are refused, its breaker waits."""
    with suppress(StateError), open_commands(state) as commands:
        commands.post("resume", {"subscription": "hook"}, now=time.time())


def _progress(state: Path) -> tuple[int, int]:
    """(latest number in the log, deliveries that wait)."""
    try:
        with open_reader(state) as reader:
            hook = reader.deliveries.subscriptions()[0]
            return reader.log.last_seq(), hook.pending + hook.lag
    except (StateError, IndexError):
        return -1, 1


def _print_result(counts: Counter[str], api: Api, receiver: Receiver) -> None:
    for point in (*POINTS, RANDOM):
        print(f"  {counts[point]:4}  {point}")
    accepted, distinct = len(receiver.accepted), len({event["id"] for event in receiver.accepted})
    print(f"{distinct} events accepted in {receiver.attempts} attempts, {accepted - distinct} of them again")
    print(f"{len(api.arrivals)} calls, {api.refused} refused")
    for most, calls, seconds in api.worst():
        print(f"at most {most} of {calls} calls in any {seconds:g} s")


if __name__ == "__main__":
    sys.exit(main())
