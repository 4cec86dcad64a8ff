"""Open data: `poller export`, beside a daemon and without one, and the views that others find in the file."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from poller.operations.local_socket import socket_path
from tests.support.command_line import Run, Shop
from tests.support.daemon import running_daemon, wait_for


@pytest.fixture
def swept(poller: Run, shop: Shop, tmp_path: Path) -> Path:
    """A state with one change, whose value is a line with commas."""
    shop.configure(tmp_path)
    poller("once")
    shop.items = [{"id": 1, "name": 'a, "b"\nc'}, *shop.items[1:]]
    assert poller("once").status == 0
    return tmp_path / "poller.db"


def table(ran_out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(ran_out)))


def test_csv_and_json_lines_hold_the_same(poller: Run, swept: Path) -> None:
    [row] = table(poller("export", "changes", "--csv").out)
    [line] = poller("export", "changes").lines

    assert (row["path"], orjson.loads(row["before"]), orjson.loads(row["after"])) == ("/name", "Apple", 'a, "b"\nc')
    assert (line["path"], line["before"], line["after"]) == ("/name", "Apple", 'a, "b"\nc')
    assert line["sequence"] == int(row["sequence"])
    assert poller("export", "changes", "--json").lines == [line]


@pytest.mark.parametrize("name", ["events", "objects", "deliveries", "polls"])
def test_every_table_is_exported(poller: Run, swept: Path, name: str) -> None:
    assert len(poller("export", name).lines) == len(table(poller("export", name, "--csv").out)) > 0


def test_an_export_goes_on_where_it_ended(poller: Run, swept: Path) -> None:
    first = poller("export", "objects", "--limit", "1")
    assert first.err.startswith("go on with --after ")
    second = poller("export", "objects", "--after", first.err.split()[-1])

    assert [one["id"] for one in first.lines + second.lines] == ["1", "2"]
    assert second.err == ""


def test_what_is_no_place_is_said_in_one_line(poller: Run, swept: Path) -> None:
    ran = poller("export", "events", "--after", "soon")

    assert (ran.status, ran.err.splitlines()[0]) == (
        1,
        "Error: 'soon' is not a position in this table; give the `next` of a page",
    )


def test_a_daemon_exports_the_same(poller: Run, shop: Shop, tmp_path: Path) -> None:
    with running_daemon(shop.configure(tmp_path)):
        transport = httpx.HTTPTransport(uds=str(socket_path(tmp_path / "poller.db")))
        with httpx.Client(transport=transport, base_url="http://x") as client:
            wait_for(
                "the baseline", lambda: client.get("/api/v1/status").json()["endpoints"][0]["last_sweep"] is not None
            )
            refused = client.get("/api/v1/tables/events?after=soon")
        lines = poller("export", "objects").lines
        wrong = poller("export", "objects", "--after", "soon")

    assert [one["object"] for one in lines] == [{"id": 1, "name": "Apple"}, {"id": 2, "name": "Pear"}]
    assert (refused.status_code, wrong.status) == (400, 1)
    assert "is not a position in this table" in wrong.err


def answered(*words: str) -> Any:
    ran = subprocess.run([sys.executable, "-m", *words], capture_output=True, check=True, timeout=120)
    return orjson.loads(ran.stdout)


def test_sqlite_utils_finds_the_views(swept: Path) -> None:
    [change] = answered("sqlite_utils", "rows", str(swept), "changes")
    counted = answered("sqlite_utils", "query", str(swept), "SELECT object ->> '$.name' AS name FROM objects_view")

    assert (change["path"], change["before"]) == ("/name", '"Apple"')
    assert [one["name"] for one in counted] == ['a, "b"\nc', "Pear"]


@pytest.mark.slow
def test_datasette_shows_the_views(swept: Path) -> None:
    pytest.importorskip("datasette")
    names = answered("datasette", str(swept), "--get", "/poller.json")["views"]
    [change] = answered("datasette", str(swept), "--get", "/poller/changes.json?_shape=array")
    facets = answered("datasette", str(swept), "--get", "/poller/deliveries_view.json?_facet=state&_size=0")

    assert {"events_view", "changes", "objects_view", "deliveries_view", "polls"} <= {
        one if isinstance(one, str) else one["name"] for one in names
    }
    assert change["subject"] == "items/1"
    assert facets["facet_results"]["state"]["results"][0]["count"] == 1
