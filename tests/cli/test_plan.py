"""`poller plan`, and promises refused, on a real state: before the first poll, after one, and beside a daemon."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from click.testing import CliRunner, Result

from plugins.nutcache.sandbox.admission import ACCESS_TOKEN
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.server import Server, running
from poller import Limit
from poller.app import open_app, sweep_once
from poller.cli import cli
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations.live import live_of
from poller.options.problems import ConfigError
from tests.support.daemon import running_daemon, wait_for

CONFIG = """
[poller]
listen = "{listen}"
[budgets.acme]
limits = ["200/s"]
[sources.acme]
plugin = "nutcache"
server = "{server}"
access_token = "{token}"
[sources.acme.endpoints.customers]
weight = 3
[sources.acme.endpoints.time_entries]
{more}
"""


@pytest.fixture
def sandbox() -> Iterator[Server]:
    size = Size(customers=20, projects=2, time_entries=250, invoices=2, expenses=2)
    with running(Settings(limits=[Limit(100_000, 1.0)], size=size)) as server:
        yield server


def configured(folder: Path, server: Server, *, more: str = "", listen: str = "") -> Path:
    path = folder / "poller.toml"
    path.write_text(CONFIG.format(server=server.url, token=ACCESS_TOKEN, more=more, listen=listen))
    return path


def command(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [arguments[0], "--config", str(config), *arguments[1:]])


def told(config: Path, *arguments: str) -> list[dict]:
    answer = command(config, "plan", "--json", *arguments)
    assert answer.exit_code == 0, answer.output
    return [orjson.loads(line) for line in answer.stdout.splitlines()]


def test_before_the_first_poll_each_endpoint_is_one_unit(tmp_path, sandbox):
    config = configured(tmp_path, sandbox)

    units = [row for row in told(config) if row["kind"] == "unit"]
    assert [(unit["endpoint"], unit["weight"]) for unit in units] == [("customers", 3), ("time_entries", 1)]
    assert not (tmp_path / "poller.db").exists()


def test_what_was_polled_is_known_without_a_daemon(tmp_path, sandbox):
    config = configured(tmp_path, sandbox)
    assert command(config, "once").exit_code == 0
    rows = told(config, "--weight", "customers=9")

    units = [row for row in rows if row["kind"] == "unit"]
    assert len([unit for unit in units if unit["endpoint"] == "time_entries"]) >= 3
    assert all(unit["last_poll"] is not None for unit in units)
    assert rows[0]["expectations"][2]["label"] == "weight customers=9"
    tables = command(config, "plan")
    assert "budget acme, share 0.9: 200/s (17,280,000 a day)" in tables.stdout
    assert "acme/time_entries" in tables.stdout


def test_the_plan_is_told_beside_a_daemon(tmp_path, sandbox):
    config = configured(tmp_path, sandbox)
    with running_daemon(config):
        wait_for("a plan of polled units", lambda: all(row.get("last_poll", "") for row in told(config)[3:]))


def url_of(log: str) -> str | None:
    found = re.search(r"(http://127\.0\.0\.1:\d+).*http\.listening", log)
    return None if found is None else found[1]


UNKEEPABLE = 'max_staleness = "5ms"'


@pytest.mark.parametrize("name", ["check", "run"])
def test_an_impossible_max_staleness_is_refused_at_start(tmp_path, sandbox, name):
    answer = command(configured(tmp_path, sandbox, more=UNKEEPABLE), name)

    assert isinstance(answer.exception, ConfigError), answer.output
    assert ":13: sources.acme.endpoints.time_entries.max_staleness: cannot be kept" in str(answer.exception)
    assert answer.exception.hint == "it requires at least 201/s, or a max_staleness of 1s"


def test_known_units_count_when_a_promise_is_checked(tmp_path, sandbox):
    config = configured(tmp_path, sandbox, more='max_staleness = "10ms"')
    assert command(config, "check").exit_code == 0
    assert command(config, "once").exit_code == 0

    answer = command(config, "check")
    assert isinstance(answer.exception, ConfigError)
    assert "requires 25920000 calls a day" in str(answer.exception)


async def test_lists_that_grew_beyond_a_promise_are_told_and_polled_on(tmp_path, sandbox):
    config = load(configured(tmp_path, sandbox, more='max_staleness = "10ms"'), plugins := load_plugins())
    async with open_app(config, plugins) as app:
        await app.engine.watch.check()
        assert live_of(app).budgets["acme"].infeasible is None
        assert await sweep_once(app) == []
        await app.engine.watch.check()
        assert "acme/time_entries" in str(live_of(app).budgets["acme"].infeasible)
    assert "! acme: max_staleness requires" in command(config.path, "status").stdout


def test_a_reload_that_cannot_be_kept_is_refused_and_the_old_goes_on(tmp_path, sandbox):
    config = configured(tmp_path, sandbox)
    with running_daemon(config) as daemon:
        configured(tmp_path, sandbox, more=UNKEEPABLE)
        daemon.signal(signal.SIGHUP)
        wait_for("the refusal", lambda: "config.refused" in daemon.log)
        calls = sandbox.sandbox.calls()["calls"]
        wait_for("more polls", lambda: sandbox.sandbox.calls()["calls"] > calls)
        assert daemon.stop() == 0


def test_the_api_tells_the_same_and_answers_what_ifs(tmp_path, sandbox):
    config = configured(tmp_path, sandbox, listen="127.0.0.1:0")
    with running_daemon(config) as daemon:
        url = wait_for("the address", lambda: url_of(daemon.log)) + "/api/v1/plan"
        budget = httpx.get(url, params={"share": 0.5, "weight": "customers=5"}).json()["budgets"][0]
        assert [one["label"] for one in budget["expectations"][2:]] == ["share 0.5", "weight customers=5"]
        assert httpx.get(url, params={"weight": "customers"}).status_code == 422
