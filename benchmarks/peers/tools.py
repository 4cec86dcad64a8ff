"""How each tool is set up and asked to look once, and how many changes it then reports.

urlwatch, webchanges and changedetection.io compare documents: a change of a page is one notice. Poller and dlt (by its
`scd2` strategy, which keeps versions of rows) report per object.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

VERSIONS = {
    "urlwatch": "urlwatch==2.29",
    "webchanges": "webchanges==3.37.0",
    "changedetection.io": "changedetection.io==0.60.10",
    "dlt": "dlt[duckdb]==1.31.0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look reported, and what it cost."""

    changes: int
    cpu: float  # seconds, user and system, of the whole process


class Tool(Protocol):
    """A tool in a folder of its own, set up for the pages of one list."""

    def look(self) -> Look:
        """Look once."""


def run(command: list[str], folder: Path, **environment: str) -> tuple[str, float]:
    """What a command prints, and the CPU seconds of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ran.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class UrlWatch:
    """urlwatch and webchanges, which share their jobs' format: one job a page, JSON brought into one form."""

    def __init__(self, name: str, python: Path, folder: Path, url: str, pages: int) -> None:
        jobs = [
            f"name: page{page}\nurl: {url}?page={page}\nfilter:\n  - format-json:\n      indentation: 2\n"
            for page in range(1, pages + 1)
        ]
        (folder / "jobs.yaml").write_text("---\n".join(jobs))
        store = "--cache" if name == "urlwatch" else "--database"
        which = "--urls" if name == "urlwatch" else "--jobs"
        self.folder = folder
        self.command = [str(python.parent / name), which, "jobs.yaml", "--config", "config.yaml", store, "kept.db"]

    def look(self) -> Look:
        """Count the headings of its report."""
        time.sleep(1.0)  # urlwatch orders what it keeps by whole seconds
        said, cpu = run(self.command, self.folder)
        return Look(changes=_pages(said, "CHANGED"), cpu=cpu)


def _pages(said: str, word: str) -> int:
    """How many pages are named under the word, each once."""
    return len(set(re.findall(rf"^(?:\d+\. )?{word}: (page\d+)", said, re.MULTILINE)))


class ChangeDetection:
    """changedetection.io in batch mode: a change is a new entry in the history of a page."""

    def __init__(self, python: Path, folder: Path, url: str, pages: int) -> None:
        self.folder, self.store = folder, folder / "store"
        self.urls = [f"{url}?page={page}" for page in range(1, pages + 1)]
        self.command = [
            str(python.parent / "changedetection.io"),
            "-h",
            "127.0.0.1",
            "-p",
            "0",
            "-d",
            "store",
            "-C",
            "-b",
        ]
        self.known = 0

    def look(self) -> Look:
        """Count new entries in the histories of its pages."""
        first = [] if self.store.exists() else [word for url in self.urls for word in ("-u", url)]
        _, cpu = run([*self.command, *first, "-r", "all"], self.folder, ALLOW_IANA_RESTRICTED_ADDRESSES="true")
        watches = [
            file.parent for file in self.store.glob("*/watch.json") if json.loads(file.read_text())["url"] in self.urls
        ]
        histories = [folder / "history.txt" for folder in watches]
        entries = sum(len(file.read_text().splitlines()) for file in histories if file.exists())
        changes, self.known = entries - self.known, entries
        return Look(changes=changes, cpu=cpu)


class Dlt:
    """dlt with its REST source into DuckDB, rows kept as versions: a change is a version that began or ended."""

    SCRIPT = textwrap.dedent("""
        import sys, dlt
        from dlt.sources.rest_api import rest_api_source
        url, pages = sys.argv[1], int(sys.argv[2])
        source = rest_api_source({"client": {"base_url": url, "paginator": {"type": "page_number", "base_page": 1,
            "page_param": "page", "total_path": None, "stop_after_empty_page": True}},
            "resources": [{"name": "items", "endpoint": {"path": "items"}, "primary_key": "id",
                           "write_disposition": {"disposition": "merge", "strategy": "scd2"}}]})
        pipeline = dlt.pipeline("shop", destination=dlt.destinations.duckdb("kept.duckdb"), dataset_name="shop",
                                pipelines_dir="pipelines")
        try:
            pipeline.run(source)
        except Exception as error:
            print(type(error).__name__)
        with pipeline.sql_client() as client:
            rows = client.execute_sql("SELECT count(*), count(_dlt_valid_to) FROM items")
        print("ROWS", rows[0][0], rows[0][1])
    """)

    def __init__(self, python: Path, folder: Path, url: str, pages: int) -> None:
        (folder / "load.py").write_text(self.SCRIPT)
        self.folder = folder
        self.command = [str(python), "load.py", url.removesuffix("/items"), str(pages)]
        self.known: tuple[int, int] | None = None

    def look(self) -> Look:
        """Count versions that began, and those that ended without a successor."""
        said, cpu = run(self.command, self.folder, RUNTIME__DLTHUB_TELEMETRY="false")
        found = re.search(r"ROWS (\d+) (\d+)", said)
        if found is None:
            return Look(changes=0, cpu=cpu)
        rows, ended = int(found[1]), int(found[2])
        began_now, ended_now = (0, 0) if self.known is None else (rows - self.known[0], ended - self.known[1])
        self.known = (rows, ended)
        return Look(changes=max(began_now, ended_now), cpu=cpu)


class Poller:
    """Poller's `once`, without its wait for absent objects: each look is a sweep."""

    def __init__(self, folder: Path, url: str, limit: str) -> None:
        self.folder, self.last = folder, 0
        (folder / "poller.toml").write_text(
            textwrap.dedent(f"""
            [poller]
            listen = ""
            [budgets.shop]
            limits = ["{limit}"]
            [sources.shop]
            plugin = "rest"
            budget = "shop"
            base_url = "{url.removesuffix("/items")}"
            [sources.shop.endpoints.items]
            path = "/items"
            pagination = {{ type = "page", size = 20, size_param = "size" }}
        """)
        )

    def look(self) -> Look:
        """Count new events of objects."""
        _, cpu = run([sys.executable, "-m", "poller.cli", "once"], self.folder)
        events, _ = run([sys.executable, "-m", "poller.cli", "events", "--json", "--limit", "1000"], self.folder)
        found = [json.loads(line) for line in events.splitlines() if line.startswith("{")]
        new = [event for event in found if int(event["sequence"]) > self.last and event["source"] != "/poller"]
        self.last = max([self.last, *(int(event["sequence"]) for event in found)])
        return Look(changes=len(new), cpu=cpu)
