"""Faults and costs of Poller and four other tools on one list, in one run: `python -m benchmarks.peers`.

Each tool is installed into an environment of its own, in the folder that `--cache` names. A case is four looks: at the
list as it is, during the fault, after it with one object really changed, and once more. Right is to report that one
change and nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.peers.tools import VERSIONS, ChangeDetection, Dlt, Look, Poller, Tool, UrlWatch
from benchmarks.peers.upstream import PER_PAGE, Shop, serving

FAULTS = {
    "none": "nothing goes wrong",
    "500": "a page answers 500",
    "html": "a page is HTML, with status 200",
    "half": "a page is cut off in the middle",
    "empty page": "a page is empty for one look",
    "empty list": "the whole list is empty for one look",
    "other order": "the objects come in another order",
    "other spelling": "the same JSON is written differently (spaces, 10.0 for 10)",
    "inserted": "one object is added at the top",
}
TOOLS = ("Poller", *VERSIONS)
LIMIT = 5  # calls a second that the server of the last row takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a tool reported in a case, beside what was true."""

    reported: int
    expected: int

    def __str__(self) -> str:
        if self.reported == self.expected:
            return "right"
        wrong = self.reported - self.expected
        return f"{wrong} false" if wrong > 0 else f"{-wrong} missing"


def main() -> None:
    """Install, run every case for every tool, and print two tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "poller-peers")
    arguments.add_argument("--only", choices=TOOLS, action="append")
    given = arguments.parse_args()
    tools = given.only or list(TOOLS)
    pythons = {name: installed(name, given.cache) for name in tools if name != "Poller"}
    out = Console(width=140)

    faults = Table("fault", *tools, title="false and missing changes")
    for fault, words in FAULTS.items():
        outcomes = [outcome(fault, maker(name, pythons)) for name in tools]
        faults.add_row(words, *map(str, outcomes))
        out.print(fault, *map(str, outcomes))
    out.print(faults)

    costs = Table("", *tools, title="costs")
    looks = [unchanged(maker(name, pythons)) for name in tools]
    costs.add_row(
        "CPU seconds of one look at 50 unchanged pages, start included", *(f"{look.cpu:.2f}" for look in looks)
    )
    limited = [refused(maker(name, pythons)) for name in tools]
    costs.add_row(f"calls refused of 20 pages by a server that takes {LIMIT}/s", *map(str, limited))
    out.print(costs)


Maker = Callable[[Path, str, int], Tool]


def maker(name: str, pythons: dict[str, Path]) -> Maker:
    """How the tool is made in a folder, for the pages of a list."""
    match name:
        case "Poller":
            return lambda folder, url, _: Poller(folder, url, f"{LIMIT}/s")
        case "changedetection.io":
            return lambda folder, url, pages: ChangeDetection(pythons[name], folder, url, pages)
        case "dlt":
            return lambda folder, url, pages: Dlt(pythons[name], folder, url, pages)
    return lambda folder, url, pages: UrlWatch(name, pythons[name], folder, url, pages)


def installed(name: str, cache: Path) -> Path:
    """The Python of an environment that has the tool."""
    python = cache / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(cache / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", VERSIONS[name]], check=True)
    return python


def objects(number: int) -> list[dict[str, object]]:
    return [{"id": place, "name": f"Article {place}", "price": place * 10} for place in range(1, number + 1)]


def outcome(fault: str, make: Maker) -> Outcome:
    """One case: what was reported from the fault on."""
    shop = Shop(objects(3 * PER_PAGE - 1))
    with serving(shop) as url, tempfile.TemporaryDirectory() as folder:
        tool = make(Path(folder), url, 3)
        tool.look()
        if fault == "inserted":
            shop.objects.insert(0, {"id": 1000, "name": "New", "price": 1})
            looks = [tool.look(), tool.look()]
        else:
            shop.fault = fault
            looks = [tool.look()]
            shop.fault = "none"
            shop.objects[45]["price"] = 1
            looks += [tool.look(), tool.look()]
    return Outcome(reported=sum(look.changes for look in looks), expected=1)


def unchanged(make: Maker) -> Look:
    """The cheapest of three looks at a list in which nothing has changed."""
    shop = Shop(objects(50 * PER_PAGE - 1))
    with serving(shop) as url, tempfile.TemporaryDirectory() as folder:
        tool = make(Path(folder), url, 50)
        tool.look()
        return min((tool.look() for _ in range(3)), key=lambda look: look.cpu)


def refused(make: Maker) -> int:
    """The calls that the server refused in two looks at 20 pages."""
    shop = Shop(objects(20 * PER_PAGE - 1), most=LIMIT)
    with serving(shop) as url, tempfile.TemporaryDirectory() as folder:
        tool = make(Path(folder), url, 20)
        tool.look()
        tool.look()
    return shop.refused


if __name__ == "__main__":
    main()
