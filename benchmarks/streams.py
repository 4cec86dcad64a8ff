"""What streams of events cost a daemon: CPU time of each event with none, with unread, and with read ones, in one run.

Exit status 1 where 60 streams that nobody reads make an event cost more than half as much again, or keep polls from
being made.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support.command_line import open_shop
from tests.support.daemon import running_daemon, wait_for

STREAMS = 60
SECONDS = 8.0
ITEMS = 40
ASK = b"GET /api/v1/events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LIMIT = 1.5  # times the cost without streams
LIMITS = ('limits = ["1000/s"]', 'limits = ["10/s"]')


@contextlib.contextmanager
def streams(url: str, count: int, *, read: bool) -> Iterator[None]:
    """Open streams; read them, or leave them alone."""
    at, over = urlsplit(url), threading.Event()
    found = [socket.create_connection((at.hostname, at.port)) for _ in range(count)]

    def drain() -> None:
        while not over.wait(0.02):
            for one in found:
                with contextlib.suppress(BlockingIOError):
                    one.recv(1 << 20, socket.MSG_DONTWAIT)

    reader = threading.Thread(target=drain)
    try:
        for one in found:
            one.sendall(ASK)
        if read:
            reader.start()
        yield
    finally:
        over.set()
        if read:
            reader.join()
        for one in found:
            one.close()


def figures(url: str) -> tuple[float, float, float]:
    """CPU seconds of the daemon, events and polls so far."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    names = ("process_cpu_seconds_total", "poller_events_total", r'poller_polls_total\{budget="shop"\}')
    cpu, events, polls = (float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0]) for name in names)
    return cpu, events, polls


def measured(url: str) -> tuple[float, float]:
    """Milliseconds of CPU for each event, and polls a second, over a while."""
    before, began = figures(url), time.monotonic()
    time.sleep(SECONDS)
    after, took = figures(url), time.monotonic() - began
    cpu, events, polls = (b - a for a, b in zip(before, after, strict=True))
    return 1000 * cpu / max(1.0, events), polls / took


def main() -> int:
    """Exit status 0 when unread streams cost little."""
    counter = itertools.count()
    with tempfile.TemporaryDirectory() as name, open_shop() as shop:
        config = shop.configure(Path(name), listen="127.0.0.1:0")
        config.write_text(config.read_text().replace(*LIMITS))
        over = threading.Event()

        def change() -> None:
            while not over.wait(0.05):
                shop.items = [{"id": at, "name": f"{next(counter)}", "text": "x" * 200} for at in range(ITEMS)]

        changing = threading.Thread(target=change)
        changing.start()
        try:
            with running_daemon(config) as daemon:
                url = wait_for("the URL", daemon.url)
                wait_for("events", lambda: figures(url)[1] > ITEMS)
                cases = {"no stream": (0, False), "unread": (STREAMS, False), "read": (STREAMS, True)}
                found = {}
                for case, (count, read) in cases.items():
                    with streams(url, count, read=read):
                        time.sleep(3.0)  # until what nobody reads is full
                        found[case] = measured(url)
                    cost, polls = found[case]
                    print(f"{case:>10}: {cost:6.2f} ms of CPU an event, {polls:5.1f} polls/s", flush=True)
        finally:
            over.set()
            changing.join()
    ratio = found["unread"][0] / found["no stream"][0]
    print(f"{STREAMS} streams that nobody reads: {ratio:.2f} times the cost of an event (at most {LIMIT:g})")
    return 0 if ratio <= LIMIT and found["unread"][1] > 0.8 * found["no stream"][1] else 1


if __name__ == "__main__":
    sys.exit(main())
