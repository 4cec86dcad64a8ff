"""The event loop of a plugin: results, exceptions and cancellations cross from its thread as they would on one loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import structlog

from poller.hooks.faults import attempted
from poller.hooks.plugin_loops import Loop, PluginLoops
from poller.hooks.slow_calls import SlowCalls
from poller.polling.threads import SourceThread
from poller.rendering.rendered import rendered
from poller.testing import make_event


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    async with PluginLoops() as loops:
        yield loops.of("mine")


async def test_the_result_comes_from_another_thread(loop: Loop) -> None:
    async def where() -> int:
        return threading.get_ident()

    assert await loop.run(where) not in (threading.get_ident(), None)
    assert await loop.run(where) == await loop.run(where)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_whatever_is_raised_is_raised_here_and_ends_nothing(loop: Loop, error: BaseException) -> None:
    async def raising() -> None:
        raise error

    async def well() -> str:
        return "well"

    with pytest.raises(type(error)):
        await loop.run(raising)
    assert await loop.run(well) == "well"


async def test_a_function_that_cannot_even_begin_is_an_exception(loop: Loop) -> None:
    def no_coroutine() -> asyncio.Future[None]:
        raise StopIteration

    with pytest.raises(RuntimeError):
        await loop.run(no_coroutine)


async def test_a_cancelled_caller_cancels_the_call_and_waits_for_its_end(loop: Loop) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def waiting() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    task = asyncio.create_task(loop.run(waiting))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("is_blocked_already", [True, False])
async def test_a_call_that_was_cancelled_before_it_began_never_begins(loop: Loop, *, is_blocked_already: bool) -> None:
    begun, may_go, called = threading.Event(), threading.Event(), []

    async def blocks() -> None:
        begun.set()
        may_go.wait(60)

    async def calls() -> None:
        called.append(1)

    blocking = asyncio.create_task(loop.run(blocks))
    if is_blocked_already:
        await asyncio.to_thread(begun.wait)
    waiting = asyncio.create_task(loop.run(calls))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    may_go.set()
    await blocking
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not called


async def test_a_task_or_callback_that_ends_the_loop_ends_only_itself(loop: Loop) -> None:
    async def ends() -> None:
        raise SystemExit(1)

    async def leaves_a_task_behind() -> None:
        asyncio.get_running_loop().create_task(ends())

    async def stops() -> None:
        asyncio.get_running_loop().stop()

    async def well() -> str:
        return "well"

    for breaks in (leaves_a_task_behind, stops):
        await loop.run(breaks)
        assert await loop.run(well) == "well"


async def test_a_loop_that_has_ended_refuses_calls() -> None:
    async def well() -> str:
        return "well"

    async with PluginLoops() as loops:
        loop = loops.of("mine")
        await loop.run(well)
    thread = next((one for one in threading.enumerate() if one.name == "plugin mine"), None)
    if thread is not None:
        await asyncio.to_thread(thread.join)
    with pytest.raises(RuntimeError):
        await loop.run(well)


async def test_what_the_system_has_no_thread_for_fails_and_runs_once_it_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def well() -> str:
        return "well"

    async with PluginLoops() as loops:
        source = SourceThread("mine")
        calls = (
            lambda: loops.of("mine").run(well),
            lambda: source.run(well),
            lambda: source("well".strip),
            lambda: rendered("well".strip, [make_event({"id": 1})], "{{ event }}"),
        )
        for call in calls:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", start)
                for _ in range(3):
                    with pytest.raises(RuntimeError, match="new thread"):
                        await asyncio.wait_for(call(), 10)
            assert await asyncio.wait_for(call(), 10) == "well"
        source.close()


async def test_the_end_waits_for_no_code_that_blocks() -> None:
    begun, may_go = threading.Event(), threading.Event()

    async def blocks() -> str:
        begun.set()
        may_go.wait(60)
        return "over"

    async with PluginLoops() as loops:
        blocking = asyncio.create_task(loops.of("mine").run(blocks))
        await asyncio.to_thread(begun.wait)
    may_go.set()
    assert await blocking == "over"


def test_a_function_that_does_not_return_is_named_once() -> None:
    begun, over = threading.Event(), threading.Event()

    def connect() -> None:
        begun.set()
        over.wait()

    thread = threading.Thread(target=lambda: attempted(connect))
    thread.start()
    begun.wait()
    slow = SlowCalls(thread)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            slow.look()
    over.set()
    thread.join()
    slow.look()

    [line] = logs
    assert line["event"] == "plugin.slow"
    assert line["function"].startswith("connect (line ")
    assert line["module"] == __name__
