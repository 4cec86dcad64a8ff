"""A million undelivered events for a dead subscriber, beside a healthy one: its delay and the memory are as without.

    python -m tests.proofs.backlog [--events 1000000]

Each measurement is a process of its own on a prepared state: once with nothing behind the dead subscriber, once with
everything. Exit status 1 if the healthy one waits noticeably longer, or the process grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.delivery import route_to, waits
from benchmarks.receiver import receiving
from state.sqlite.store import Store

ROUNDS = 2
SLOWER, GROWN = 0.010, 32.0  # seconds, MB: what the backlog may cost at most


def prepare(path: Path, url: str, events: int) -> None:
    """A state in which the dead subscription has so many events to come, and the healthy one none."""
    store = Store.open(path, now=time.time())
    store.deliveries.register([route_to("dead", url).registration(time.time())], now=time.time())
    store.db.execute(
        """
        INSERT INTO events (id, source, type, subject, time, data)
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT ?)
        SELECT printf('event%021d', n), '/sources/acme', 'nutcache.projects.updated', 'projects/' || (n % 50000), ?,
               CAST(printf('{"object":{"id":%d,"note":"%s"},"version":1}', n, hex(zeroblob(100))) AS BLOB)
        FROM numbers WHERE n <= ?
        """,
        [max(events, 1), time.time(), events],
    )
    store.deliveries.register(
        [route_to(name, url, start="now").registration(time.time()) for name in ("healthy", "dead")], now=time.time()
    )
    store.close()


def measure(path: Path, url: str) -> dict[str, float]:
    """The healthy one's delays and this process's memory, with the dead one beside it."""
    routes = [route_to("healthy", url, start="now"), route_to("dead", url)]
    delays = asyncio.run(waits(path, routes, 100))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    store = Store.open(path, now=time.time())
    dead = next(one for one in store.delivery_reader.subscriptions() if one.name == "dead")
    store.close()
    return {
        "median": statistics.median(delays),
        "p95": delays[int(0.95 * len(delays))],
        "memory": pages * 4096 / 1e6,
        "pending": dead.pending,
        "lag": dead.lag,
    }


def measured(path: Path, url: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.proofs.backlog", "--measure", str(path), url]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return found


def compare(events: int, console: Console) -> bool:
    """Measure without and with the backlog in turn, print both, and say whether they are alike."""
    rows: dict[str, list[dict[str, Any]]] = {"nothing": [], f"{events:,} events": []}
    with tempfile.TemporaryDirectory() as folder, receiving() as url:
        for number, count in enumerate((0, events)):
            prepare(Path(folder) / f"{number}.db", url, count)
        for _ in range(ROUNDS):
            for number, found in enumerate(rows.values()):
                found.append(measured(Path(folder) / f"{number}.db", url))
    table = Table("behind the dead one", "of these pending rows", "median delay", "95 %", "memory")
    for name, found in rows.items():
        best = min(found, key=lambda one: float(one["median"]))
        delay, late = f"{best['median'] * 1000:.1f} ms", f"{best['p95'] * 1000:.1f} ms"
        table.add_row(name, f"{best['pending']:,.0f}", delay, late, f"{best['memory']:.0f} MB")
    console.print(table)
    without, with_ = ({key: min(one[key] for one in found) for key in found[0]} for found in rows.values())
    return bool(
        with_["lag"] >= events
        and with_["median"] <= without["median"] + SLOWER
        and with_["memory"] <= without["memory"] + GROWN
    )


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("--measure", nargs=2, metavar=("STATE", "URL"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), given.measure[1])))
        return 0
    return 0 if compare(given.events, Console()) else 1


if __name__ == "__main__":
    sys.exit(main())
