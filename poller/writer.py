"""The one thread on which the store is written, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Write(Protocol):
    """Runs one whole step of the store and returns what it returns; steps never overlap and keep their order."""

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    @property
    def is_idle(self) -> bool:
        """No step is under way, nor can one begin before the caller waits: what writes nothing may be done at once."""
        ...


class Runner(Protocol):
    """Runs what it is given, one after the other."""

    def submit(self, work: Callable[[], None], /) -> None:
        """Run `work` now, or when its turn comes."""
        ...

    def close(self) -> None:
        """Return when all that was given is done."""
        ...


Group = Callable[[], AbstractContextManager[object]]

TOGETHER = 64  # steps that share one commit, at most


class Writer:
    """Steps of the store, one after the other, on a thread of their own (or on `runner`).

    Steps that wait at the same time share one synced commit once `group` is set; each is undone alone where it
    fails, and none is answered before the commit.
    """

    def __init__(self, runner: Runner | None = None) -> None:
        self.group: Group = nullcontext
        self._runner = runner or StoreThread()
        self._lock = threading.Lock()
        self._waiting: list[_Step] = []
        self._working = False

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        with self._lock:
            self._waiting.append(_Step(call=partial(step, *args, **kwargs), done=done))
            begin, self._working = not self._working, True
        if begin:
            # What else is asked for in this turn of the loop shares the commit.
            loop.call_soon(self._runner.submit, partial(self._work, loop))
        return await done  # a step goes on to its end also when nobody waits for it any more

    @property
    def is_idle(self) -> bool:
        """See `Write`."""
        with self._lock:
            return not self._working

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do what waits, until nothing does."""
        while steps := self._taken():
            self._run(steps)
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for these any more
                loop.call_soon_threadsafe(_answer, steps)

    def _taken(self) -> list[_Step]:
        with self._lock:
            steps, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            self._working = bool(steps)
            return steps

    def _run(self, steps: list[_Step]) -> None:
        if len(steps) == 1:
            steps[0].run()
            return
        try:
            with self.group():
                for step in steps:
                    step.run()
        except BaseException as error:  # noqa: BLE001 - the commit failed: handed to whoever awaits these steps
            for step in steps:
                step.error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()


@dataclass(slots=True, kw_only=True)
class _Step:
    call: Callable[[], Any]
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the step
            self.error = error


def _answer(steps: list[_Step]) -> None:
    for step in steps:
        if step.done.cancelled():
            if step.error is not None:
                told = {"message": "a step of the store failed that nobody waits for", "exception": step.error}
                step.done.get_loop().call_exception_handler(told)
        elif step.error is not None:
            step.done.set_exception(step.error)
        else:
            step.done.set_result(step.result)


class StoreThread:
    """A thread that runs one work after the other. Half the cost of an executor's, which makes a future of each."""

    def __init__(self) -> None:
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None], /) -> None:
        """See `Runner`."""
        self._works.put(work)

    def close(self) -> None:
        """See `Runner`."""
        self._works.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work()


class Inline:
    """Runs each work at once on the caller's thread: for a virtual clock, where nothing may happen by the way."""

    def submit(self, work: Callable[[], None], /) -> None:
        """See `Runner`."""
        work()

    def close(self) -> None:
        """See `Runner`."""
