"""The one thread on which the store is written, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Write(Protocol):
    """Runs one whole step of the store and returns what it returns; steps never overlap and keep their order."""

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


Group = Callable[[], AbstractContextManager[object]]

TOGETHER = 64  # steps that share one commit, at most


class Writer:
    """Steps of the store, one after the other, on a thread of their own (or on `executor`).

    Steps that wait at the same time share one synced commit once `group` is set; each is undone alone where it
    fails, and none is answered before the commit.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self.group: Group = nullcontext
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._waiting: SimpleQueue[_Step] = SimpleQueue()

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done: Future[T] = Future()
        self._waiting.put(_Step(call=partial(step, *args, **kwargs), done=done))
        self._executor.submit(self._work)
        # A step that began is awaited to its end even when the caller is cancelled: half-known is worse than late.
        return await asyncio.shield(asyncio.wrap_future(done))

    def _work(self) -> None:
        """Do what waits; a later call finds nothing left to do where an earlier one took its step along."""
        steps = _taken(self._waiting)
        if not steps:
            return
        try:
            if len(steps) == 1:
                steps[0].run()
            else:
                with self.group():
                    for step in steps:
                        step.run()
        except BaseException as error:  # noqa: BLE001 - the commit failed: handed to whoever awaits these steps
            for step in steps:
                step.error = error
        for step in steps:
            step.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True)


@dataclass(slots=True, kw_only=True)
class _Step:
    call: Callable[[], Any]
    done: Future[Any]
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the step
            self.error = error

    def answer(self) -> None:
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


def _taken(waiting: SimpleQueue[_Step]) -> list[_Step]:
    steps: list[_Step] = []
    while len(steps) < TOGETHER:
        try:
            steps.append(waiting.get_nowait())
        except Empty:
            break
    return steps


class InlineExecutor(Executor):
    """Runs each step at once on the caller's thread: for a virtual clock, where nothing may happen by the way."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` now and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the future
            future.set_exception(error)
        return future
