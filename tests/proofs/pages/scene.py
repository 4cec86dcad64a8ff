"""What the pages show while they are proven: a living office, a held list, an API that refuses, and receivers."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.support.daemon import Daemon, running_daemon, wait_for
from tests.support.loopback import Handler, serving_handler

DAY = 86400.0
CONFIG = """
[poller]
state = "poller.db"
listen = "127.0.0.1:0"

[budgets.office]
limits = ["10/s", "450/min"]

[sources.acme]
plugin = "nutcache"
budget = "office"
server = "{server}"
access_token = "{token}"
[sources.acme.endpoints.projects]
[sources.acme.endpoints.time_entries]
max_staleness = "30s"
weight = 5
[sources.acme.endpoints.invoices]
[sources.acme.endpoints.customers]

[sources.shop]
plugin = "rest"
base_url = "{here}"
[sources.shop.endpoints.products]
path = "/products"
[sources.shop.endpoints.orders]
path = "/orders"

[sources.legacy]
plugin = "rest"
base_url = "{here}"
[sources.legacy.endpoints.contacts]
path = "/legacy/contacts"
[sources.legacy.endpoints.contracts]
path = "/legacy/contracts"
[sources.legacy.endpoints.tickets]
path = "/legacy/tickets"

[[subscriptions]]
name = "crm"
plugin = "http"
url = "{here}/hooks/crm"
allow_private = true
types = ["nutcache.*", "shop.*"]

[[subscriptions]]
name = "billing"
plugin = "http"
url = "{here}/hooks/billing"
allow_private = true
types = ["nutcache.invoices.*"]
retry = ["1s", "1s"]

[[subscriptions]]
name = "audit"
plugin = "jsonl"
path = "audit.jsonl"

[[subscriptions]]
name = "newsletter"
plugin = "jsonl"
path = "newsletter.jsonl"
types = ["shop.orders.*"]
"""


@dataclass(slots=True)
class Town:
    """The small APIs and receivers beside the office."""

    products: list[dict[str, Any]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def got(self, path: str) -> tuple[int, Any]:
        """The answer to a GET."""
        if path.startswith("/legacy"):
            return 401, {"error": "the API key has expired"}
        return 200, self.products if path == "/products" else self.orders

    def posted(self, path: str, body: bytes) -> tuple[int, Any]:
        """The answer of a receiver: billing refuses what is paid already."""
        if path == "/hooks/billing" and orjson.loads(body)["type"].endswith("updated"):
            return 422, {"error": "invoice is locked", "code": "period_closed"}
        return 200, {"received": True}


@contextlib.contextmanager
def open_town() -> Iterator[Town]:
    """The town, on a port of loopback."""
    town = Town(
        products=[{"id": at, "name": f"Product {at}", "price": 10 + at} for at in range(1, 81)],
        orders=[{"id": at, "number": f"A-{1000 + at}", "status": "open", "total": 25.0 * at} for at in range(1, 25)],
    )

    class Street(Handler):
        def do_GET(self) -> None:
            self.say(*town.got(self.path))

        def do_POST(self) -> None:
            self.say(*town.posted(self.path, self.body()))

        def say(self, status: int, value: Any) -> None:
            self.answer(status, orjson.dumps(value))

    with serving_handler(Street) as address:
        town.url = f"http://{address}"
        yield town


@contextlib.contextmanager
def open_office() -> Iterator[tuple[str, str]]:
    """The sandbox: its address and its token."""
    command = [sys.executable, "-m", "poller.cli", "sandbox", "--port", "0", "--pace", "6", "--limits", "10/s,450/min"]
    for size in ("customers=30", "projects=12", "time_entries=900", "invoices=40", "expenses=5"):
        command += ["--size", size]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found: dict[str, str] = {}
    try:
        for line in process.stdout or ():
            name, _, value = line.strip().partition(" ")
            found[name] = value.strip()
            if name == "calls":
                break
        yield found["server"], found["access_token"]
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything at work."""

    url: str
    town: Town
    daemon: Daemon

    def asked(self, path: str) -> Any:
        """The API's answer."""
        return httpx.get(f"{self.url}{path}", timeout=30).json()


@contextlib.contextmanager
def open_scene(folder: Path, *, events: int = 150) -> Iterator[Scene]:
    """A daemon with a day of history, a held list, a dead source, dead letters and a paused subscription."""
    with open_office() as (server, token), open_town() as town:
        config = folder / "poller.toml"
        config.write_text(CONFIG.format(server=server, token=token, here=town.url))
        with running_daemon(config) as daemon:
            url = wait_for("the URL", daemon.url)
            wait_for("a day's work", lambda: _made(url) >= events)
            _sell(town, random.Random(1))
            wait_for("the orders", lambda: httpx.get(f"{url}/api/v1/events?source=shop").json()["events"])
        _spread(folder / "poller.db")
        with running_daemon(config) as daemon:
            url = wait_for("the URL", daemon.url)
            town.products = []
            wait_for("the hold", lambda: any(one["held"] for one in _status(url)["endpoints"]))
            httpx.post(f"{url}/api/v1/subscriptions/newsletter/pause")
            begun = _made(url)
            wait_for("more work", lambda: _made(url) >= begun + 30)
            wait_for("a dead letter", lambda: any(one["dead"] for one in _status(url)["subscriptions"]))
            yield Scene(url=url, town=town, daemon=daemon)


def _status(url: str) -> Any:
    return httpx.get(f"{url}/api/v1/status", timeout=30).json()


def _made(url: str) -> int:
    made: int = _status(url)["last_seq"]
    return made


def _sell(town: Town, chance: random.Random) -> None:
    for order in chance.sample(town.orders, 12):
        order["status"] = chance.choice(["paid", "sent", "returned"])
    town.products[3]["price"] = 99


def _spread(state: Path) -> None:
    """Move the events of one minute over the day before, so that the charts have something to show."""
    now, chance = time.time(), random.Random(2)
    with contextlib.closing(sqlite3.connect(state)) as db, db:
        rows = db.execute("SELECT seq, time, observed_after FROM events ORDER BY seq").fetchall()
        times = sorted(now - _ago(chance) for _ in rows)
        for (seq, at, after), moved in zip(rows, times, strict=True):
            db.execute(
                "UPDATE events SET time = ?, observed_after = ? WHERE seq = ?",
                [moved, None if after is None else moved - (at - after), seq],
            )


def _ago(chance: random.Random) -> float:
    """Seconds ago, in a day with its busy hours."""
    while True:
        ago = chance.uniform(60, DAY - 60)
        hour = 24 * ago / DAY
        if chance.random() < 0.15 + 0.85 * max(0.0, 1 - abs(hour - 5) / 6):
            return ago
