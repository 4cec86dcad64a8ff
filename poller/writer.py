"""The one thread on which the store is written, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Write(Protocol):
    """Runs one whole step of the store and returns what it returns; steps never overlap and keep their order."""

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


class Writer:
    """Steps of the store, one after the other, on a thread of their own (or on `executor`)."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def __call__(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # A step that began is awaited to its end even when the caller is cancelled: half-known is worse than late.
        return await asyncio.shield(asyncio.wrap_future(self._executor.submit(step, *args, **kwargs)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True)


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
