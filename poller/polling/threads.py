"""A thread for each source, so that plugin code and large pages delay only their own source."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE: Final = 256 * 1024  # bytes of an answer that is handled off the event loop


class Apart(Protocol):
    """Runs a function off the event loop and returns its result."""

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def close(self) -> None:
        """Begin no more functions, without waiting for a running one."""
        ...


class SourceThread:
    """Runs one function after the other on a thread, which starts with the first. Closing does not wait for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._works.put(partial(_do, loop, done, partial(work, *args, **kwargs)))
        return await done

    def close(self) -> None:
        """See `Apart`."""
        self._works.put(None)

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work()


def _do(loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any], work: Callable[[], Any]) -> None:
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

    def close(self) -> None:
        """See `Apart`."""
