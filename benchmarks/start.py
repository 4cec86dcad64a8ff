"""What starting costs, in CPU time: commands beside bare imports, `once` beside urlwatch on the same pages.

All of them run from compiled modules, as after an installation: compiling ours anew would cost more than all the rest.

urlwatch is not one of our packages: `URLWATCH=PATH` names its program, from an environment of its own. Without it that
line is left out.
"""

from __future__ import annotations

import os
import resource
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


class _Page(Handler):
    """Answers every path with the same 100 objects."""

    protocol_version = "HTTP/1.1"
    body_of_all = b"[" + b",".join(b'{"id": %d, "name": "object"}' % number for number in range(100)) + b"]"

    def do_GET(self) -> None:
        """Answer."""
        self.answer(200, self.body_of_all)


@contextmanager
def site() -> Iterator[str]:
    """A server of pages, and its URL."""
    with serving_handler(_Page) as address:
        yield f"http://{address}"


def cost(words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> float:
    """Milliseconds of CPU time that a command takes, start included: the cheapest of some runs."""
    spent = []
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), **(environment or {})}
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run(words, cwd=folder, env=compiled, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if run.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: {run.stderr.decode()}")
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent) * 1000


def main() -> int:
    """Print the costs; exit status 1 where a target is missed."""
    with tempfile.TemporaryDirectory() as name, site() as url:
        folder = Path(name)
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
            print(f"resident memory of a daemon   {_resident(daemon.pid):6.0f} MB  (at most 100)")
        print(f"poller once, {PAGES} pages       {once:6.0f} ms")
        if program := os.environ.get("URLWATCH"):
            missed.append(once > _urlwatch(program, url, folder))
    return 1 if any(missed) else 0


def _row(name: str, spent: float, click: float, most: float) -> bool:
    print(f"poller {name:22s} {spent:6.0f} ms  {spent / click:4.1f} x  (at most {most:g} x)")
    return spent <= most * click


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
