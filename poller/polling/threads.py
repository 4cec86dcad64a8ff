"""A thread for each source, so that plugin code and large pages delay only their own source."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from poller.hooks.faults import abandon, call_under_way, where
from poller.hooks.plugin_loops import PluginLoop
from poller.sources.protocol import PageError

P = ParamSpec("P")
T = TypeVar("T")

LARGE: Final = 256 * 1024  # bytes of an answer that is handled off the event loop
PATIENCE: Final = 60.0  # seconds in one call of a plugin, after which whatever waits for it fails
LOOKS: Final = 4  # looks at the thread within that time
LONGEST: Final = 3600.0  # seconds that one step of an auth flow may wait, as for a login that its budget delays


class Apart(Protocol):
    """Runs code of a source off the event loop. Raises PageError for a plugin that does not return."""

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a coroutine, which `call` makes."""
        ...

    def close(self) -> None:
        """Begin no more functions, without waiting for a running one."""
        ...


class SourceThread:
    """Runs one function after the other on a thread, and coroutines on an event loop on another one. Each starts with
    the first use. Closing waits for neither.

    A plugin that does not return keeps its thread. What waits for it fails then, and so does all that comes later until
    it returns: else a source would wait for ever without a word, with calls in flight that others of its budget lack.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop = PluginLoop(name)
        self._calls, self._calls_on_loop = CallsOnThread(name), CallsOnThread(name)

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()  # fails if the system has no thread to give; the next call tries again
            self._thread = thread
        self._calls.refuse_if_known(self._thread)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._works.put(partial(_do, loop, done, partial(work, *args, **kwargs)))
        try:
            while not done.done():
                await asyncio.wait([done], timeout=PATIENCE / LOOKS)
                if not done.done():
                    self._calls.refuse_if_blocked(self._thread)
        finally:
            done.cancel()
        self._calls.forget()
        return done.result()

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """See `Apart`."""
        self._calls_on_loop.refuse_if_known(self._loop.thread)
        task, until = asyncio.create_task(self._loop.run(call)), time.monotonic() + LONGEST
        try:
            while not task.done():
                await asyncio.wait([task], timeout=PATIENCE / LOOKS)
                if not task.done():
                    self._calls_on_loop.refuse_if_blocked(self._loop.thread)
                    if time.monotonic() >= until:
                        raise self._calls_on_loop.blocked("its auth flow", LONGEST)
        finally:
            if not task.done():
                task.cancel()
                abandon(task, self._name, quietly=True)
        return task.result()

    def close(self) -> None:
        """See `Apart`."""
        self._works.put(None)
        self._loop.close()

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work()


class CallsOnThread:
    """The calls of a source's plugin on one thread, and whether one of them does not return."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._seen: tuple[FrameType, float] | None = None  # the call at the first look at it, and when that was

    def refuse_if_known(self, thread: threading.Thread | None) -> None:
        """Look only if a call was under way at the latest look."""
        if self._seen is not None:
            self.refuse_if_blocked(thread)

    def refuse_if_blocked(self, thread: threading.Thread | None) -> None:
        """Look at the thread. Raises PageError if it has been in the same call for too long."""
        call, now = None if thread is None else call_under_way(thread), time.monotonic()
        if call is None:
            self._seen = None
        elif self._seen is None or self._seen[0] is not call:
            self._seen = call, now
        elif now - self._seen[1] >= PATIENCE * (1 - 1 / LOOKS):  # and up to one look before
            raise self.blocked(where(call), PATIENCE)

    def forget(self) -> None:
        """Note that a call has returned."""
        self._seen = None

    def blocked(self, place: str, seconds: float) -> PageError:
        """The failure of what waits for a call."""
        return PageError(
            f"the plugin has not returned from {place} within {seconds:g} s",
            hint=f"fix the plugin; {self._source} is polled again once it returns, or after a reload",
        )


def _do(loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any], work: Callable[[], Any]) -> None:
    if done.cancelled():  # nobody waits for it any more
        return
    result, error = None, None
    try:
        result = work()
    except BaseException as raised:  # noqa: BLE001 - handed to whoever awaits it
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop has ended and the result is not needed
        loop.call_soon_threadsafe(_answer, done, result, error)


def _answer(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():  # the result is no longer needed
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


class AtOnce:
    """Runs each function at once, for a virtual clock."""

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """See `Apart`."""
        return await call()

    def close(self) -> None:
        """See `Apart`."""
