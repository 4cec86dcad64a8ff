"""What goes wrong with the database pauses workers, ends none, and loses, repeats and reorders nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import structlog

from poller.daemon.daemon import Daemon
from tests.support.living import CONFIG, World, living, swept, until, world
from tests.support.postgres import QUICK, Server, running_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of these tests alone: they stop it, and change how it is set."""
    with running_server(settings=(*QUICK, "synchronous_commit=on")) as server:
        yield server


def sql(server: Server, statement: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute(statement.encode())


def cut(url: str) -> str:
    """The statement that ends every connection to a database."""
    name = url.partition("?")[0].rpartition("/")[2]
    return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"


@asynccontextmanager
async def polling(
    folder: Path, url: str, *, listen: str = "", options: str = ""
) -> AsyncIterator[tuple[World, Daemon]]:
    """A worker on a database that has polled its list once."""
    async with world() as upstream:
        path = folder / "poller.toml"
        state = f"{url}?options={options.replace(' ', '%20').replace('=', '%3D')}" if options else url
        path.write_text(CONFIG.format(url=upstream.url, state=state, listen=listen))
        async with living(path) as daemon:
            await until("the baseline", lambda: has_endpoints(daemon) and swept(daemon))
            yield upstream, daemon


def has_endpoints(daemon: Daemon) -> bool:
    return any(source.endpoints for source in daemon.app.engine.sources.values())


async def goes_on(upstream: World, daemon: Daemon, edits: Callable[[], None]) -> None:
    """What is changed in and after an outage arrives in order, and once but for what was in flight when it began."""
    edits()
    await until("all of it", lambda: first_receipts(upstream) == upstream.edits)
    daemon._raise_failures()


def first_receipts(upstream: World) -> dict[int, list[int]]:
    """The sizes of each thing, by the order of first receipt."""
    things = {event["id"]: event["data"]["object"] for event in upstream.told}
    found: dict[int, list[int]] = {}
    for thing in things.values():
        found.setdefault(thing["id"], []).append(thing["size"])
    return found


def edit_all(upstream: World, size: int) -> Callable[[], None]:
    def edit() -> None:
        for number in upstream.things:
            upstream.edit(number, size)

    return edit


async def test_a_worker_that_is_cut_from_the_database_goes_on(tmp_path: Path, server: Server) -> None:
    url = server.database()
    async with polling(tmp_path, url) as (upstream, daemon):
        for size in (1, 2):
            engine = daemon.app.engine
            sql(server, cut(url))
            await until("another engine", lambda engine=engine: daemon.app.engine is not engine)  # type: ignore[misc]
            await goes_on(upstream, daemon, edit_all(upstream, size))


async def test_a_worker_that_stays_cut_off_asks_nothing_once_its_lease_has_run_out(
    tmp_path: Path, server: Server
) -> None:
    url = server.database()
    name = url.rpartition("/")[2]
    with structlog.testing.capture_logs() as rows:
        await stay_cut_off(tmp_path, url, server, name)
    told = [row["summary"] for row in rows if row["event"] == "state.failing"]
    assert len(told) == len(set(told)) == 2
    assert "not currently accepting connections" in told[1]


async def stay_cut_off(tmp_path: Path, url: str, server: Server, name: str) -> None:
    async with polling(tmp_path, url) as (upstream, daemon):
        sql(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        sql(server, cut(url))
        assert daemon.app.tenure is not None
        await until("the end of its leases", lambda: daemon.app.clock.steady() > daemon.app.tenure())
        asked = upstream.asked
        await until("the pause", lambda: not daemon.app.is_polling)
        assert upstream.asked == asked
        await until("the reason", lambda: "not currently accepting" in str(daemon.app.write.outage))
        sql(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await goes_on(upstream, daemon, edit_all(upstream, 1))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["in order", "as by a crash"])
async def test_a_database_that_is_restarted_is_waited_for(tmp_path: Path, server: Server, how: signal.Signals) -> None:
    async with polling(tmp_path, server.database()) as (upstream, daemon):
        server.stop(how)
        await until("the outage", lambda: daemon.app.write.outage)
        server.start()
        await goes_on(upstream, daemon, edit_all(upstream, 1))


async def test_a_database_that_is_read_only_is_waited_for(tmp_path: Path, server: Server) -> None:
    url = server.database()
    async with polling(tmp_path, url) as (upstream, daemon):
        sql(server, "ALTER SYSTEM SET default_transaction_read_only = on")
        sql(server, "SELECT pg_reload_conf()")
        try:
            await until("the outage", lambda: daemon.app.write.outage)
            assert "read-only" in str(daemon.app.write.outage)
        finally:
            with psycopg.connect(server.url(), autocommit=True) as conn:
                conn.execute("SET default_transaction_read_only = off")
                conn.execute("ALTER SYSTEM RESET default_transaction_read_only")
                conn.execute("SELECT pg_reload_conf()")
        await goes_on(upstream, daemon, edit_all(upstream, 1))


@pytest.mark.parametrize(
    "table", ["calls", *(pytest.param(name, marks=pytest.mark.slow) for name in ("objects", "lanes", "workers", "log"))]
)
async def test_a_database_that_holds_steps_up_for_long_is_waited_for(
    tmp_path: Path, server: Server, table: str
) -> None:
    url = server.database()
    async with polling(tmp_path, url, options="-c lock_timeout=300") as (upstream, daemon):
        with psycopg.connect(url) as other:
            other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            edit_all(upstream, 1)()
            await until("the outage", lambda: daemon.app.write.outage)
        await goes_on(upstream, daemon, lambda: None)


async def test_a_replica_that_lacks_the_end_of_the_log_is_a_new_log(tmp_path: Path, server: Server) -> None:
    copy = server.folder / "copy"
    async with polling(tmp_path, server.database(), listen="127.0.0.1:0") as (upstream, daemon):
        edit_all(upstream, 1)()
        await until("the first events", lambda: len(upstream.told) == 20)
        async with httpx.AsyncClient(trust_env=False, base_url=daemon.url or "") as client:
            server.stop()
            subprocess.run(["cp", "-a", server.data, copy], check=True)
            server.start()
            edit_all(upstream, 2)()
            await until("more events", lambda: len(upstream.told) == 40)
            page = (await client.get("/api/v1/events?after=0&limit=1000")).json()
            cursor = f"{page['log_id']}-{page['next']}"
            server.stop()
            shutil.rmtree(server.data)
            copy.rename(server.data)
            server.start()
            edit_all(upstream, 3)()
            await until("a new log", lambda: daemon.app.write.outage is None and log_id(daemon) != page["log_id"])
            await until("its events", lambda: all(sizes[-1] == 3 for sizes in map(upstream.sizes, upstream.edits)))
            answer = await client.get(f"/api/v1/events?after={cursor}")
            assert (answer.status_code, page["log_id"] in answer.text) == (410, True)
            assert (await client.get("/api/v1/events?after=0")).status_code == 200


def log_id(daemon: Daemon) -> str:
    try:
        return daemon.app.store.log.id
    except psycopg.Error:
        return ""
