"""Two workers on one PostgreSQL, beside Procrastinate on the same server and with the same work.

    python -m benchmarks.cluster_speed [--events 2000] [--cache DIR] [--part NAME ...]

The work is a call that does nothing, for each event and subscription, in order of its object. Procrastinate is
installed into an environment of its own, in the folder that `--cache` names. Figures are ratios to it in the same run;
absolute ones depend on the machine, whose load is printed beside them. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg
from msgspec import structs

from benchmarks.delivery import make_event
from state.leases import Worker, budget_lease
from state.polls import EndpointSpec, PollRecord, Recording, Snapshot
from state.postgres.store import Store
from state.records import NewEvent
from tests.support.cluster import Api, Receiver, configured, serving, workers
from tests.support.postgres import Server, running_server

SUBSCRIPTIONS, BLOCKED = 20, 200_000
RATE, RATIO, BLOCKED_RATIO, CHANGES = 5000.0, 10.0, 0.75, 5000.0
IDLE, TAKEOVER = 0.05, 5.0  # of a core; seconds
IDLE_SECONDS, QUIET = 15.0, 4.0  # seconds that idleness is measured, and without a call before it
MANY = 1000
NOTE: Final = b'{"note":"%s"}' % (b"x" * 300)
SETTINGS: Final = ("shared_buffers=256MB", "max_connections=200", "io_method=sync", "jit=off")
SINK = '''
from pydantic import BaseModel
from poller import Receipt, hookimpl

class Nothing:
    """Takes everything and does nothing."""
    class Options(BaseModel): pass
    def __init__(self, name, options): pass
    async def __aenter__(self): return self
    async def __aexit__(self, *_): pass
    async def deliver(self, events, attempt): return Receipt(status="ok")

@hookimpl
def register_sinks(register): register("nothing", Nothing)
'''
PEER = """
import asyncio, sys, procrastinate
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[2], max_size=12))

@app.task(name="deliver")
async def deliver(subscription, seq): pass

async def prepare(jobs):
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for begin in range(0, jobs, 1000):
            await asyncio.gather(*[
                deliver.configure(lock=f"{n % 20} object{n // 20}").defer_async(subscription=n % 20, seq=n)
                for n in range(begin, min(jobs, begin + 1000))
            ])

async def work():
    async with app.open_async():
        await app.run_worker_async(wait=False, concurrency=20, install_signal_handlers=False)

asyncio.run(prepare(int(sys.argv[3])) if sys.argv[1] == "prepare" else work())
"""


def delivered_a_second(server: Server, folder: Path, events: int, *, blocked: int) -> tuple[float, float]:
    """Two workers and a backlog, from the first attempt to the last one; and the processor seconds of one delivery, of
    the workers and the server together.
    """
    url = server.database()
    names = [f"sub{n}" for n in range(SUBSCRIPTIONS)] + [f"dead{n}" for n in range(SUBSCRIPTIONS if blocked else 0)]
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "nothing.py").write_text(SINK)
    config = folder / "poller.toml"
    subscriptions = [
        f'[[subscriptions]]\nname = "{n}"\nplugin = "nothing"\nstart = "beginning"\ntypes = ["nutcache.*"]\n'
        for n in names
    ]
    head = f'[poller]\nstate = "{url}"\nlisten = ""\nlog_level = "warning"\nplugins_dir = "plugins"\n'
    config.write_text("\n".join([head, *subscriptions]))
    store = Store.open(url)
    if blocked:
        block(url, store, blocked)
    store.log.append(
        [make_event(n) for n in range(blocked // SUBSCRIPTIONS + 1, blocked // SUBSCRIPTIONS + events + 1)]
    )
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CHECKPOINT")  # what was just loaded is not to be written while deliveries are counted
        conn.execute("ANALYZE")  # as autovacuum does within a minute
    with workers(config, 2) as two, psycopg.connect(url, autocommit=True) as conn:
        _until(lambda: _value(conn, "SELECT EXISTS (SELECT 1 FROM attempts)"), 600)
        running = [one.pid for one in two]
        before = sum(map(_cpu, [*running, *server.pids]))
        _until(lambda: _value(conn, "SELECT count(*) FROM attempts") >= events * SUBSCRIPTIONS, 600)
        cpu = sum(map(_cpu, [*running, *server.pids])) - before
        began, ended = conn.execute("SELECT min(at), max(at + latency) FROM attempts").fetchone() or (0.0, 1.0)
    books = store.delivery_reader.ledger()
    assert all(one.balanced for one in books), books
    store.close()
    server.drop(url)
    return events * SUBSCRIPTIONS / (ended - began), cpu / (events * SUBSCRIPTIONS)


def append(store: Store, first: int, events: int) -> None:
    """So many events, in steps that no slow day ends."""
    for begin in range(first, first + events, 500):
        store.log.append([make_event(n) for n in range(begin, min(begin + 500, first + events))])


def block(url: str, store: Store, blocked: int) -> None:
    """So many deliveries of subscriptions whose receivers are down, each to be tried again in an hour."""
    each = blocked // SUBSCRIPTIONS
    append(store, 1, each)
    with psycopg.connect(url) as conn:
        later = time.time() + 3600
        for n in range(SUBSCRIPTIONS):
            row = conn.execute(
                "INSERT INTO subscriptions (name, state, cursor, pending) VALUES (%s, 'active', %s, %s) RETURNING id",
                [f"dead{n}", each, each],
            ).fetchone()
            assert row is not None
            place = {"id": row[0], "later": later}
            conn.execute(
                "INSERT INTO deliveries (subscription, seq, origin, lane, state, attempts, retries, queued_at, due) "
                "SELECT %(id)s, seq, 'log', source || ' ' || subject, 'pending', 1, 1, 0, 0 FROM events",
                place,
            )
            conn.execute(
                "INSERT INTO lanes (subscription, lane, due, first_seq) "
                "SELECT %(id)s, source || ' ' || subject, %(later)s, seq FROM events",
                place,
            )
        for n in range(SUBSCRIPTIONS):
            conn.execute(
                "INSERT INTO subscriptions (name, state, cursor, purged_upto) VALUES (%s, 'active', %s, %s)",
                [f"sub{n}", each, each],
            )


def peer_a_second(server: Server, folder: Path, cache: Path, jobs: int) -> float:
    """Procrastinate with two workers and as many jobs in order of their objects."""
    python = cache / "procrastinate" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", cache / "procrastinate"], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "procrastinate==3.10.0", "psycopg[binary]"], check=True
        )
    url, program = server.database(), folder / "peer.py"
    program.write_text(PEER)
    subprocess.run([python, program, "prepare", url, str(jobs)], check=True, env={}, stderr=subprocess.DEVNULL)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("ANALYZE")
        done = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
        two = [subprocess.Popen([python, program, "work", url], env={}, stderr=subprocess.DEVNULL) for _ in range(2)]
        _until(lambda: _value(conn, done) > 0, 60)
        before, began = _value(conn, done), time.monotonic()
        for one in two:
            one.wait(600)
        rate = (_value(conn, done) - before) / (time.monotonic() - began)
    server.drop(url)
    return float(rate)


def recorded_a_second(server: Server, seconds: float = 5.0) -> float:
    """Two processes that record pages of a hundred changed objects, each of an endpoint of its own."""
    url = server.database()
    Store.open(url).close()
    command = [sys.executable, "-m", "benchmarks.cluster_speed", "--record", url, str(seconds)]
    two = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(2)]
    total = sum(float(one.communicate()[0]) for one in two)
    server.drop(url)
    return total


def record(url: str, seconds: float, name: str) -> float:
    """Changes a second that one process records."""
    store = Store.open(url)
    [lease] = store.leases.take(Worker(name), [budget_lease(name)], most=1, ttl=3600.0)
    opened = store.polls.open(EndpointSpec(source=name, name="items", shape="", units=[("list", b"{}")]), now=0.0)
    state, unit = opened.state, opened.units[0]
    begun, version = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        version += 1
        snapshots = tuple(
            Snapshot(object_id=f"o{n}", version=version, body=NOTE, unit=unit.id, seen_at=1.0) for n in range(100)
        )
        events = tuple(_changed(name, n, version) for n in range(100))
        shown = structs.replace(unit, asked_at=1.0, answered_at=1.0, asked_order=version, shown=100)
        poll = PollRecord(unit=shown, members={}, snapshots=snapshots, events=events, growth=0 if version > 1 else 100)
        recording = Recording(endpoint=state.id, base=state.revision, sweep=state.sweep, at=1.0, polls=[poll])
        store.polls.record(lease, recording)
        state = structs.replace(state, revision=state.revision + 1)
    rate = 100 * version / (time.monotonic() - begun)
    store.close()
    return rate


def _changed(name: str, n: int, version: int) -> NewEvent:
    return NewEvent(
        id=f"{name} {n} {version}",
        source=f"/sources/{name}",
        type="shop.items.updated",
        subject=f"items/o{n}",
        time=time.time(),
        observed_after=None,
        raw=b'{"object":%s,"version":%d}' % (NOTE, version),
    )


def many(server: Server, folder: Path) -> tuple[float, float]:
    """A thousand budgets and subscriptions: what an idle worker uses of a core, and how soon half of them are taken."""
    api, receiver = Api(MANY), Receiver(fails=0.0)
    with serving(api, receiver):
        url = server.database()
        Store.open(url).close()
        config = configured(folder, url, api, receiver, subscriptions=MANY)
        text = config.read_text().replace('limits = ["4/1s", "25/10s"]', 'limits = ["1/h"]')
        config.write_text(text)
        with workers(config, 2) as two, psycopg.connect(url, autocommit=True) as conn:
            even = f"SELECT count(*) FROM (SELECT worker FROM leases GROUP BY worker HAVING count(*) = {MANY}) parts"
            _until(lambda: _value(conn, even) == 2, 180)
            _until_quiet(api)
            before = _cpu(two[0].pid)
            time.sleep(IDLE_SECONDS)
            idle = (_cpu(two[0].pid) - before) / IDLE_SECONDS
            two[1].kill()
            gone = time.monotonic()
            alone = "SELECT max(parts) FROM (SELECT count(*) AS parts FROM leases GROUP BY worker) w"
            _until(lambda: _value(conn, alone) == 2 * MANY, 60)
            taken = time.monotonic() - gone
    return idle, taken


def _until_quiet(api: Api) -> None:
    """Wait until every budget has made its call. One that moved between two workers may have spent it unsent."""
    asked, since = -1, time.monotonic()
    while time.monotonic() < since + QUIET:
        if asked != (asked := len(api.arrivals)):
            since = time.monotonic()
        time.sleep(0.1)


def _cpu(pid: int) -> float:
    """Seconds of processor time of a process, and of its children that have ended; 0 if it has just ended itself."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def _value(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def _until(is_so: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise SystemExit(f"waited {seconds:g} s in vain")
        time.sleep(0.1)


def main() -> int:
    """Measure, print and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "poller-peers")
    parser.add_argument("--part", action="append", choices=["deliver", "record", "many"])
    parser.add_argument("--record", nargs=3, metavar=("URL", "SECONDS", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.record:
        print(record(given.record[0], float(given.record[1]), f"source{given.record[2]}"))
        return 0
    parts, missed = given.part or ["deliver", "record", "many"], []

    def tell(what: str, value: float, target: str, *, is_met: bool) -> None:
        print(f"{what}: {value:,.2f} (target {target}); load {os.getloadavg()[0]:.1f}", flush=True)
        if not is_met:
            missed.append(what)

    with running_server(settings=SETTINGS) as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "deliver" in parts:
            given.cache.mkdir(parents=True, exist_ok=True)
            rate, cpu = delivered_a_second(server, folder, given.events, blocked=0)
            peer = peer_a_second(server, folder, given.cache, given.jobs)
            held, _ = delivered_a_second(server, folder, given.events, blocked=BLOCKED)
            print(f"Procrastinate: {peer:,.0f} jobs a second")
            print(f"a delivery costs {1e6 * cpu:.0f} us of a core, of the workers and PostgreSQL together")
            tell("deliveries a second", rate, f"{RATE:,.0f}", is_met=rate >= RATE)
            tell("of Procrastinate", rate / peer, f"{RATIO:g} times", is_met=rate / peer >= RATIO)
            tell("of it with 200,000 blocked", held / rate, f"{BLOCKED_RATIO:g}", is_met=held / rate >= BLOCKED_RATIO)
        if "record" in parts:
            changes = recorded_a_second(server)
            tell("changes recorded a second", changes, f"{CHANGES:,.0f}", is_met=changes >= CHANGES)
        if "many" in parts:
            idle, taken = many(server, folder)
            tell("of a core, an idle worker with 500 of 1,000 budgets", idle, f"{IDLE:g}", is_met=idle <= IDLE)
            tell("seconds until 500 budgets were taken over", taken, f"{TAKEOVER:g}", is_met=taken <= TAKEOVER)
    print("every target is met" if not missed else f"missed: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
