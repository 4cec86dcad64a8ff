"""The budget in real time, against the sandbox's own count: used, never exceeded, also over 50 restarts by SIGKILL.

    python -m tests.proofs.budget [--seconds 360] [--kills 50]

The sandbox counts strictly (refused calls count, windows slide); `share = 1` leaves no margin. Exit status 1 when a
window was exceeded or less than 95 % of what can be used was used.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track

from plugins.nutcache.sandbox.admission import ACCESS_TOKEN
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.server import Server, running
from poller import Limit
from tests.support.daemon import Daemon

LIMITS = (Limit(10, 1.0), Limit(300, 60.0))
LATENCY = 0.02  # seconds that a call takes here, at most
COUNTED = 2  # minutes; a single one may begin just after the calls with which each minute begins

CONFIG = """
[poller]
listen = ""
log_level = "error"
[budgets.acme]
limits = ["10/s", "300/min"]
share = 1
[sources.acme]
plugin = "nutcache"
server = "{server}"
access_token = "{token}"
"""


def main() -> int:
    """Run both proofs and print what the sandbox counted."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=360.0, help="of steady running before the restarts")
    arguments.add_argument("--kills", type=int, default=50)
    given = arguments.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder, running(Settings(limits=LIMITS, size=Size()), pace=2.0) as server:
        config = Path(folder) / "poller.toml"
        config.write_text(CONFIG.format(server=server.url, token=ACCESS_TOKEN), encoding="utf-8")
        used = _steady(config, server, given.seconds, console)
        _killed(config, given.kills)
        counted = server.sandbox.calls()
    usable = 60.0 / (60.0 + LATENCY)
    share = used / (COUNTED * LIMITS[1].calls * usable)
    console.print(f"used in the last {COUNTED} minutes: {used} at {LIMITS[1]}, {share:.1%} of what can be used")
    for window in counted["windows"]:
        console.print(f"worst use of any {window['seconds']:g} s: {window['worst']} of {window['calls']}")
    console.print(f"{counted['calls']} calls, {counted['refused']} refused, over {given.kills} restarts by SIGKILL")
    return 0 if counted["refused"] == 0 and share >= 0.95 else 1


def _steady(config: Path, server: Server, seconds: float, console: Console) -> int:
    """Run the daemon; calls in the last minutes. The first sweep takes two."""
    daemon = Daemon(config).start()
    for _ in track(range(int(seconds) - COUNTED * 60), "running", console=console):
        time.sleep(1)
    before = server.sandbox.calls()["calls"]
    for _ in track(range(COUNTED * 60), "counting", console=console):
        time.sleep(1)
    used = server.sandbox.calls()["calls"] - before
    daemon.kill()
    return int(used)


def _killed(config: Path, kills: int) -> None:
    chance = random.Random(7)
    for _ in track(range(kills), "kill -9"):
        daemon = Daemon(config).start()
        time.sleep(chance.uniform(0.05, 1.5))
        daemon.kill()


if __name__ == "__main__":
    raise SystemExit(main())
