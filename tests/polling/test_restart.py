"""A restart loses nothing and repeats nothing, also after kill -9: held against the sandbox's journal."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.nutcache.sandbox.admission import ACCESS_TOKEN
from plugins.nutcache.sandbox.sandbox import Settings
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.server import Server, running
from poller import Limit
from state.sqlite.store import open_reader
from tests.support.daemon import Callback, Daemon, running_daemon, wait_for

RESOURCES = ("customers", "projects", "time_entries", "invoices", "expenses")


@pytest.fixture
def sandbox() -> Iterator[Server]:
    size = Size(customers=20, projects=12, time_entries=250, invoices=20, expenses=30)
    with running(Settings(limits=[Limit(100_000, 1.0)], size=size)) as server:
        yield server


@pytest.fixture
def callback() -> Iterator[Callback]:
    with Callback() as callback:
        yield callback


@pytest.fixture
def config(tmp_path: Path, sandbox: Server, callback: Callback) -> Path:
    endpoints = "\n".join(f"[sources.acme.endpoints.{name}]" for name in RESOURCES)
    path = tmp_path / "poller.toml"
    path.write_text(
        f"""
        [poller]
        listen = ""
        [budgets.acme]
        limits = ["200/s"]
        [sources.acme]
        plugin = "nutcache"
        server = "{sandbox.url}"
        access_token = "{ACCESS_TOKEN}"
        {endpoints}
        [[subscriptions]]
        name = "hook"
        plugin = "http"
        url = "{callback.url}"
        allow_private = true
        retry = ["200ms", "200ms", "200ms", "200ms", "200ms", "200ms", "200ms", "200ms"]
        """
    )
    return path


def recorded(config: Path) -> list[Any]:
    with open_reader(config.parent / "poller.db") as reader:
        return [event for event in reader.log.read(limit=100_000) if event.source != "/poller"]


def baseline_is_there(config: Path) -> bool:
    with open_reader(config.parent / "poller.db") as reader:
        rows = reader.polls.endpoints()
    return len(rows) == len(RESOURCES) and all(row["last_sweep"] is not None for row in rows)


def edit(sandbox: Server, n: int) -> None:
    """One change of each kind, of objects that no other call touches."""
    office = sandbox.office
    office.edit("customers", office.ids("customers")[n], city=f"City {n}")
    office.edit("projects", office.ids("projects")[n], description=f"Description {n}")
    office.delete("time_entries", office.ids("time_entries")[3 * n])
    office.create("time_entries", note=f"note {n}")


def assert_told_once(config: Path, sandbox: Server) -> None:
    """The log tells every change of the journal once, with versions without gaps."""
    versions = defaultdict(list)
    told = defaultdict(int)
    for event in recorded(config):
        versions[event.subject].append(event.data["version"])
        told[event.subject, event.type.rpartition(".")[2]] += 1
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in versions.values())
    changes = defaultdict(int)
    for entry in sandbox.journal.entries:
        changes[f"{entry.resource}/{entry.id}", entry.kind] += 1
    assert dict(told) == dict(changes)


def all_told(config: Path, sandbox: Server) -> bool:
    return len(recorded(config)) >= len(sandbox.journal.entries)


def assert_delivered(config: Path, callback: Callback) -> None:
    """Everything recorded arrived, per object in order of first receipt."""
    events = recorded(config)
    wait_for("every delivery", lambda: {event["id"] for event in callback.events} >= {event.id for event in events})
    first = list(dict.fromkeys(event["id"] for event in callback.events))
    of_object = defaultdict(list)
    for event in events:
        of_object[event.subject].append(event.id)
    for ids in of_object.values():
        assert sorted(ids, key=first.index) == ids


@pytest.mark.slow
def test_a_restart_between_two_changes_loses_nothing_and_repeats_nothing(
    config: Path, sandbox: Server, callback: Callback
) -> None:
    with running_daemon(config):
        wait_for("the baseline", lambda: baseline_is_there(config))
        edit(sandbox, 0)
        wait_for("the first changes", lambda: all_told(config, sandbox))
    edit(sandbox, 1)  # nobody looks
    with running_daemon(config) as daemon:
        edit(sandbox, 2)
        wait_for("all changes", lambda: all_told(config, sandbox))
        assert_delivered(config, callback)
        assert daemon.stop() == 0
    assert_told_once(config, sandbox)
    assert len(callback.events) == len(recorded(config))


def test_kill_9_during_a_poll_and_during_a_delivery_loses_nothing(
    config: Path, sandbox: Server, callback: Callback
) -> None:
    with running_daemon(config) as daemon:
        wait_for("the baseline", lambda: baseline_is_there(config))
        callback.interrupt = daemon.kill
        edit(sandbox, 0)
        wait_for("the kill during a delivery", lambda: callback.interrupt is None)
    for n in range(1, 4):
        daemon = Daemon(config).start()
        sandbox.sandbox.faults.add("delay", "time_entries*", seconds=0.3)
        before = sandbox.sandbox.calls()["calls"]
        edit(sandbox, n)
        wait_for("a poll to be under way", lambda before=before: sandbox.sandbox.calls()["calls"] > before)
        daemon.kill()
    with running_daemon(config):
        wait_for("all changes", lambda: all_told(config, sandbox))
        assert_delivered(config, callback)
    assert_told_once(config, sandbox)
    again = len(callback.events) - len({event["id"] for event in callback.events})
    assert again <= 8  # what was in flight at the kill, and no more
