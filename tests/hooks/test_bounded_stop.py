"""The end of the program waits for no plugin that ignores its cancellation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import BaseModel

from poller import Receipt, hookimpl
from poller.config.load import load
from poller.daemon.daemon import Daemon, run_daemon
from poller.hooks.faults import awaited
from poller.hooks.loading import load_plugins
from poller.testing import Upstream, running
from tests.support.command_line import Shop

CONFIG = """
[[subscriptions]]
name = "stubborn"
plugin = "stubborn"
"""


async def stubborn() -> None:
    """Ignores every cancellation."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


class Empty(BaseModel):
    pass


class Stubborn:
    Options = Empty

    def __init__(self, name: str, options: Empty) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def deliver(self, events: Any, attempt: Any) -> Receipt:
        if attempt.number == 1:
            await stubborn()
        return Receipt("ok")


class Hooks:
    called = 0

    @hookimpl
    def register_sinks(self, register: Any) -> None:
        register("stubborn", Stubborn)


async def test_a_coroutine_that_ignores_its_cancellation_is_abandoned() -> None:
    with pytest.raises(TimeoutError, match=r"it did not end within 0\.01 s"):
        await awaited(stubborn(), limit=0.01, grace=0.01, label="mine.started")


async def test_one_that_raises_cancelled_error_by_itself_has_failed() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await awaited(cancelled(), limit=1.0, grace=1.0, label="mine.started")
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_real_cancellation_passes() -> None:
    ended = asyncio.Event()

    async def waiting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(awaited(waiting(), limit=60.0, grace=1.0, label="mine.started"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_the_daemon_ends_beside_a_delivery_that_ignores_its_cancellation(shop: Shop, tmp_path: Path) -> None:
    config = shop.configure(tmp_path, more=CONFIG)
    plugins = load_plugins()
    plugins.add("stubborn", Hooks())

    async def until(daemon: Daemon) -> None:
        daemon.app.deliverer.shared.grace = 0.1
        while daemon.app.engine.sources["shop"].endpoints["items"].state.last_sweep is None:
            await asyncio.sleep(0.01)
        shop.items[0]["name"] = "Quince"
        while not (tmp_path / "out.jsonl").exists():
            await asyncio.sleep(0.01)

    began = time.monotonic()
    asyncio.run(run_daemon(load(config, plugins), plugins, until=until))  # `asyncio.run` waits for every task as well
    assert time.monotonic() - began < 30

    async def again() -> list[tuple[str, str]]:
        async with running(config.read_text(), tmp_path, plugins={"stubborn": Hooks()}, upstream=Upstream()) as poller:
            return [(one.subscription, one.state) for one in poller.deliveries]

    assert ("stubborn", "pending") in asyncio.run(again())


async def test_an_attempt_that_ignores_its_limit_is_given_up_and_tried_again(tmp_path: Path) -> None:
    shop = Shop()
    shop.url = "https://shop.example"
    upstream = Upstream({"/items": [{"id": 1}]})
    config = shop.configure(tmp_path, more=CONFIG).read_text()
    async with running(config, tmp_path, plugins={"stubborn": Hooks()}, upstream=upstream) as poller:
        await poller.sweep()
        upstream.lists["/items"] = [{"id": 1, "n": 1}]
        sweeping = asyncio.create_task(poller.sweep())
        while not sweeping.done():
            await asyncio.sleep(0.001)
            if not [one for one in poller.deliveries if one.state == "pending"]:
                continue
            poller.clock.advance(10.0)
        await poller.advance(60.0)

        assert {one.subscription: (one.state, one.attempts) for one in poller.deliveries} == {
            "file": ("delivered", 1),
            "stubborn": ("delivered", 2),
        }


STUBBORN_PROCESS = """
import asyncio, time
from poller.cli import process
from poller.hooks.faults import awaited

async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:  # GeneratorExit as well
            pass

async def main():
    asyncio.create_task(asyncio.to_thread(time.sleep, 3600))
    try:
        await awaited(stubborn(), limit=0.01, grace=0.01, label="mine.deliver")
    except TimeoutError:
        return 3

process.GRACE = 0.01
process.end_process(process.run_coroutine(main()))
"""


def test_a_process_ends_beside_threads_and_coroutines_that_do_not() -> None:
    ended = subprocess.run([sys.executable, "-c", STUBBORN_PROCESS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (3, "")
    assert "mine.deliver" in ended.stdout
    assert "thread asyncio_0" in ended.stdout


WAITING_THREADS = """
import asyncio, threading
from poller.cli import process

async def main():
    answered = threading.Event()
    lookups = [asyncio.create_task(asyncio.to_thread(answered.wait)) for _ in range(100)]
    await asyncio.wait_for(asyncio.to_thread(int), 20)
    answered.set()
    await asyncio.gather(*lookups)
    return 0

process.end_process(process.run_coroutine(main()))
"""


def test_many_host_names_that_nobody_answers_for_keep_no_other_thread_waiting() -> None:
    ended = subprocess.run([sys.executable, "-c", WAITING_THREADS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "")


NO_MORE_THREADS = """
import asyncio, threading
from poller.cli import process

def start(thread):
    raise RuntimeError("can't start new thread")

async def main():
    threading.Thread.start = start
    print(*await asyncio.gather(*(asyncio.to_thread(int, number) for number in "12345")))
    return 0

process.end_process(process.run_coroutine(main()))
"""


def test_a_process_goes_on_and_ends_with_the_threads_it_has_where_the_system_starts_no_more() -> None:
    ended = subprocess.run([sys.executable, "-c", NO_MORE_THREADS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "1 2 3 4 5\n")


LAST_FUNCTIONS = """
import atexit, sys, time
from poller.cli import process

process.GRACE = 0.01
atexit.register(time.sleep, 3600)
process.end_process(3)
"""


def test_a_process_ends_beside_what_a_plugin_has_registered_for_its_end() -> None:
    ended = subprocess.run([sys.executable, "-c", LAST_FUNCTIONS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (3, "")
    assert "plugin.abandoned" in ended.stdout
