"""Workers as operators see them, and commands: done by the owner, or by a command that owns everything meanwhile."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
import pytest

from poller.app import open_app
from poller.config.load import load
from poller.hooks.loading import load_plugins
from poller.operations.alone import opened_alone
from poller.operations.commands import execute_or_post, run_posted
from poller.operations.delays import Delays
from poller.operations.gathering import read_status, status
from poller.operations.live import live_of
from poller.operations.status import document
from poller.web.metrics import exposition
from state.errors import Held, LeaseLost, PollerError
from state.leases import Worker, WorkerState
from tests.support.cluster import Api, Receiver, configured, serving
from tests.support.living import living, swept, until
from tests.support.one_worker import one_worker

ELSEWHERE = WorkerState(name=Worker("elsewhere"), version="1", digest="another", listen="", lacks=("budget/key1",))


@pytest.fixture(autouse=True)
def named_worker(monkeypatch):
    """The configuration of these tests names whoever calls in a header."""
    monkeypatch.setenv("WORKER", "here")


class Shop(NamedTuple):
    api: Api
    receiver: Receiver
    path: Path


@pytest.fixture
def shop(tmp_path, backend):
    api, receiver = Api(keys=2), Receiver(fails=0.0)
    with serving(api, receiver):
        path = configured(tmp_path, backend.url, api, receiver, subscriptions=1)
        yield Shop(api, receiver, path)


@asynccontextmanager
async def another(path):
    """One more worker on the same database, which owns nothing."""
    plugins = load_plugins()
    async with open_app(load(path, plugins), plugins) as app:
        yield app


async def test_the_status_names_workers_what_each_owns_its_epochs_and_its_lag(tmp_path, backend):
    async with one_worker(tmp_path, backend.url, keys=2) as w:
        await w.settled()
        w.app.store.leases.enrol(ELSEWHERE, ttl=60.0)
        found = await asyncio.to_thread(read_status, w.app.config, now=w.app.clock.now())
        [mine, other] = document(found)["workers"]

        assert mine["name"] == w.tenure.worker
        assert [one["name"] for one in mine["budgets"]] == ["key0", "key1"]
        assert [one["epoch"] for one in mine["subscriptions"]] == [w.leases["subscription/sub0"].epoch]
        assert 0 < mine["lease_left_s"] <= 2.0
        assert (other["budgets"], other["lag"], other["lacks"]) == ([], 0, ["budget/key1"])
        assert found.config_differs


async def test_every_worker_shows_all_budgets_and_counts_in_its_metrics_what_it_owns(tmp_path, backend):
    async with one_worker(tmp_path, backend.url, keys=2) as w, another(tmp_path / "poller.toml") as idle:
        await w.settled()
        reader, now = backend.look(), w.app.clock.now()
        live = live_of(idle)
        seen = status(reader, idle.config, now=now, live=live)
        text = exposition(seen, live, Delays()).decode()

        assert [one.name for one in seen.budgets] == ["key0", "key1"]
        assert [one.label for one in seen.endpoints] == ["key0/items", "key1/items"]
        assert [one.name for one in seen.sources] == ["key0", "key1"]
        assert "poller_workers 1.0" in text
        assert f'poller_worker_budgets{{worker="{w.tenure.worker}"}} 2.0' in text
        assert 'poller_lease_epoch{lease="budget/key0"} 1.0' in text
        assert "poller_configuration_differs 0.0" in text
        assert "poller_budget_used{" not in text
        assert "poller_endpoint_ok{" not in text


async def test_a_command_is_done_by_the_worker_that_owns_what_it_concerns(tmp_path, backend):
    async with one_worker(tmp_path, backend.url) as w, another(tmp_path / "poller.toml") as idle:
        await w.settled()
        asked = asyncio.create_task(execute_or_post(idle, "hold", {"endpoint": "key0/items"}))
        while not asked.done():
            await run_posted(w.app)
            await asyncio.sleep(0)

        assert (await asked)["held"] is True
        with pytest.raises(PollerError, match="nowhere"):
            await execute_or_post(idle, "hold", {"endpoint": "nowhere/items"})
        with pytest.raises(PollerError, match="no worker took `hold`"):
            await execute_or_post(idle, "hold", {"endpoint": "key0/items"}, timeout=0.0)


def test_a_sweep_without_a_worker_owns_what_it_spends_and_leaves_it(shop, backend, poller):
    first = poller("once", "--config", shop.path, "--json")
    shop.api.states["key1", 2] = 7
    second = poller("once", "--config", shop.path, "--json")

    assert (first.status, first.json["baselines"], first.json["events"]) == (0, 2, 0)
    assert (second.status, second.json["events"], second.json["pending"]) == (0, 1, 0)
    assert shop.receiver.states("sub0") == {("key1", 2): 7}
    assert shop.api.exceeded == []
    assert backend.look().leases.shares().workers == ()
    assert poller("pause", "sub0", "--config", shop.path).status == 0
    assert poller("check", "--online", "--config", shop.path).status == 0


def test_a_sweep_beside_workers_says_who_owns_the_budgets(shop, backend, poller):
    store = backend.open()
    store.leases.enrol(ELSEWHERE, ttl=60.0)

    done = poller("once", "--config", shop.path)

    assert done.status == 1
    assert "workers run on it (elsewhere), and own the budgets that this command would use" in done.err
    assert dict(shop.api.arrivals) == {}


async def test_a_command_whose_leases_have_run_out_ends(shop, backend):
    async def command():
        plugins = load_plugins()
        async with opened_alone(load(shop.path, plugins), plugins):
            other = backend.open()
            other.db.run("UPDATE workers SET until = 0")
            other.leases.enrol(ELSEWHERE, ttl=60.0)
            other.leases.take(ELSEWHERE.name, ["budget/key0"], most=1, ttl=60.0)
            await asyncio.sleep(60)

    with pytest.raises(LeaseLost, match="the leases of this command have run out"):
        await command()

    assert backend.look().leases.shares().owners["budget/key0"].worker == ELSEWHERE.name


async def test_a_command_renews_its_leases_while_it_opens_many_budgets(shop, backend):
    plugins = load_plugins()

    async def command():
        async with opened_alone(load(shop.path, plugins), plugins) as alone:
            return sorted(alone.app.engine.loops)

    store = backend.open()
    until = "SELECT max(until) FROM workers"
    with psycopg.connect(backend.url) as other:
        other.execute("LOCK TABLE calls IN ACCESS EXCLUSIVE MODE")  # the first budget is not opened yet
        running = asyncio.create_task(command())
        for _ in range(3):
            before = store.db.value(until)
            while store.db.value(until) == before:
                await asyncio.sleep(0.01)
    assert await running == ["key0", "key1"]


async def test_a_command_waits_for_the_last_step_of_a_worker_that_was_lost(shop, backend):
    plugins, store = load_plugins(), backend.open()
    store.leases.take(ELSEWHERE.name, ["budget/key0"], most=1, ttl=-1.0)

    async def command():
        async with opened_alone(load(shop.path, plugins), plugins) as alone:
            return sorted(alone.app.engine.loops)

    with psycopg.connect(backend.url) as stopped:
        stopped.execute("SELECT FROM leases WHERE name = 'budget/key0' FOR KEY SHARE")
        running = asyncio.create_task(command())
        while "budget/key1" not in store.leases.shares().owners:
            await asyncio.sleep(0.01)
    assert await running == ["key0", "key1"]


async def test_two_commands_at_once_do_not_both_begin(shop):
    plugins = load_plugins()
    async with opened_alone(load(shop.path, plugins), plugins):
        with pytest.raises(Held, match="workers run on it"):
            async with opened_alone(load(shop.path, plugins), plugins):
                raise AssertionError


async def test_the_dashboard_and_the_api_show_the_workers(shop, backend):
    shop.path.write_text(shop.path.read_text().replace('listen = ""', 'listen = "127.0.0.1:0"'))
    async with living(shop.path) as daemon, httpx.AsyncClient() as client:
        await until("it answers", lambda: daemon.url)
        await until("it polls", lambda: len(daemon.app.engine.loops) == 2 and swept(daemon))
        backend.open().leases.enrol(ELSEWHERE, ttl=60.0)
        page = (await client.get(f"{daemon.url}/")).text
        told = (await client.get(f"{daemon.url}/api/v1/status")).json()

    assert [one["name"] for one in told["workers"]] == [daemon.app.tenure.worker, "elsewhere"]
    assert "<h2>Workers</h2>" in page
    assert "leaves to others: budget/key1" in page
    assert "they have different configurations" in page
