"""What starting costs, in CPU time: commands beside bare imports, `once` beside urlwatch on the same pages.

All of them run from compiled modules, as after an installation: compiling ours anew would cost more than all the rest.

Beside `once` stands what its libraries alone cost: their imports, and the same requests by httpx, one after the other.
urlwatch is not one of our packages: `URLWATCH=PATH` names its program, from an environment of its own. Without it that
line is left out.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.daemon import running_daemon, wait_for
from tests.support.loopback import Handler, serving_handler

PAGES: Final = 100
KNOWN: Final = 1_000_000  # objects, 100 on each page
READY: Final = 1.0  # CPU seconds, which is what it takes on an idle machine
RESIDENT: Final = 100.0  # megabytes
RUNS: Final = 5  # of which the cheapest counts
POLLER: Final = (sys.executable, "-m", "poller.cli")
CONFIG: Final = """
[poller]
listen = ""
[budgets.site]
limits = ["1000/s"]
[sources.site]
plugin = "rest"
base_url = "{url}"
{endpoints}
[[subscriptions]]
name = "out"
plugin = "jsonl"
path = "out.jsonl"
"""
LIBRARIES: Final = """
from poller import lean
lean.begin()
import asyncio, click, httpx, msgspec, numpy, orjson, pluggy, pydantic, sqlite3, structlog, tomllib

async def ask():
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        for number in range({pages}):
            orjson.loads((await client.get("{url}/" + str(number))).content)

asyncio.run(ask())
"""


class _Page(Handler):
    """Answers every path with the same 100 objects, and every page of a list after the first with none."""

    protocol_version = "HTTP/1.1"
    body_of_all = b"[" + b",".join(b'{"id": %d, "name": "object"}' % number for number in range(100)) + b"]"

    def do_GET(self) -> None:
        """Answer."""
        self.answer(200, b"[]" if "page=" in self.path and "page=1&" not in self.path else self.body_of_all)


@contextmanager
def site() -> Iterator[str]:
    """A server of pages, and its URL."""
    with serving_handler(_Page) as address:
        yield f"http://{address}"


def cost(words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> float:
    """Milliseconds of CPU time that a command takes, start included: the cheapest of some runs."""
    spent = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run(words, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if run.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: {run.stderr.decode()}")
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent) * 1000


def main() -> int:
    """Print the costs; exit status 1 where a target is missed."""
    with tempfile.TemporaryDirectory() as name, site() as url:
        folder = Path(name)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        endpoints = "\n".join(f'[sources.site.endpoints.page{number}]\npath = "/{number}"' for number in range(PAGES))
        config = folder / "poller.toml"
        config.write_text(CONFIG.format(url=url, endpoints=endpoints))
        click = cost((sys.executable, "-c", "import click"), folder)
        print(f"python -c 'import click'      {click:6.0f} ms")
        rows = [("--help", 5.0), ("--version", 5.0)]
        missed = [not _row(word, cost((*POLLER, word), folder), click, most) for word, most in rows]
        once = cost((*POLLER, "once"), folder)
        missed.append(not _row("status", cost((*POLLER, "status"), folder), click, 8.0))
        with running_daemon(config) as daemon:
            wait_for("a daemon that answers", lambda: (folder / "poller.db.sock").exists())
            missed.append(not _row("status beside a daemon", cost((*POLLER, "status"), folder), click, 8.0))
            resident = _resident(daemon.pid)
            print(f"resident memory of a daemon   {resident:6.0f} MB  (at most {RESIDENT:g})")
            missed.append(resident > RESIDENT)
        missed.append(_ready(folder, url) > READY)
        libraries = cost((sys.executable, "-c", LIBRARIES.format(pages=PAGES, url=url)), folder)
        print(f"poller once, {PAGES} pages       {once:6.0f} ms")
        print(f"its libraries alone, with them{libraries:6.0f} ms")
        if program := os.environ.get("URLWATCH"):
            missed.append(once > _urlwatch(program, url, folder))
    return 1 if any(missed) else 0


def _row(name: str, spent: float, click: float, most: float) -> bool:
    print(f"poller {name:22s} {spent:6.0f} ms  {spent / click:4.1f} x  (at most {most:g} x)")
    return spent <= most * click


def _ready(folder: Path, url: str) -> float:
    """CPU seconds until a daemon is ready that knows a million objects; beside it, one that knows a hundred."""
    list_of_pages = """[sources.site.endpoints.list]
path = "/list"
pagination = { type = "page", param = "page", start = 1, size_param = "size", size = 100 }
"""
    took = 0.0
    for known in (PAGES, KNOWN):
        home = folder / f"known{known}"
        home.mkdir()
        config = home / "poller.toml"
        config.write_text(CONFIG.format(url=url, endpoints=list_of_pages).replace("1000/s", "1/s"))
        subprocess.run((*POLLER, "once"), cwd=home, check=True, capture_output=True)
        _fill(home / "poller.db", known)
        took = min(_until_ready(config) for _ in range(RUNS))
        print(f"ready, {known:9,} objects       {took * 1000:6.0f} ms  (at most {READY * 1000:g})")
    return took


def _until_ready(config: Path) -> float:
    with running_daemon(config) as daemon:
        fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fill(state: Path, objects: int) -> None:
    """Write what was known after sweeps of so many objects, as copies of the first page and of its first object."""
    pages = objects // 100
    with sqlite3.connect(state) as db:
        copied = (("units", "id, key, position", "key = 'page=1'"), ("objects", "id, object, unit", "object = '1'"))
        rest = {}
        for table, other, _ in copied:
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            rest[table] = ", ".join(name for name in names if name not in other.split(", "))
        numbers = "WITH RECURSIVE n(i) AS (VALUES ({first}) UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
        db.execute(
            f"{numbers.format(first=3, last=pages)} INSERT INTO units (id, key, position, {rest['units']}) SELECT "
            f"1000 + i, 'page=' || i, CAST('{{\"page\":' || i || '}}' AS BLOB), {rest['units']} FROM units, n "
            "WHERE key = 'page=1' AND i <= ?",
            [pages],
        )
        db.execute(
            f"{numbers.format(first=201, last=objects)} INSERT INTO objects (object, unit, {rest['objects']}) SELECT "
            f"'known' || i, 1001 + (i - 1) / 100, {rest['objects']} FROM objects, n WHERE object = '1' AND i <= ?",
            [objects],
        )
        db.execute("UPDATE endpoints SET objects = (SELECT count(*) FROM objects)")
    db.close()


def _resident(process: int) -> float:
    """Megabytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000


def _urlwatch(program: str, url: str, folder: Path) -> float:
    urls = folder / "urls.yaml"
    urls.write_text("---\n".join(f"url: {url}/{number}\n" for number in range(PAGES)))
    words = (program, "--urls", str(urls), "--config", str(folder / "w.yaml"), "--cache", str(folder / "w.db"))
    spent = cost(words, folder, {"HOME": str(folder)})
    print(f"urlwatch, {PAGES} pages          {spent:6.0f} ms")
    return spent


if __name__ == "__main__":
    sys.exit(main())
