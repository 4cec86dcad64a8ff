"""An event loop for each plugin, on a separate thread: code of a plugin that blocks delays that plugin alone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar, cast

from poller.hooks.faults import said
from poller.late import late

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")

T = TypeVar("T")

Call = Callable[[], Awaitable[T]]

OURS: Final = "plugins"  # the package of Poller's own plugins
ENDING: Final = 1.0  # seconds that the tasks of a closed loop have to end


def is_ours(cls: type) -> bool:
    """Whether a class belongs to one of Poller's own plugins, which do not block."""
    return cls.__module__.partition(".")[0] == OURS


class Loop(Protocol):
    """Where coroutines of a plugin run."""

    async def run(self, call: Call[T]) -> T:
        """The result of a coroutine, which `call` makes. Raises whatever it raises."""
        ...


class CallersLoop:
    """Runs them on the loop of the caller, for a virtual clock."""

    async def run(self, call: Call[T]) -> T:
        """See `Loop`."""
        return await call()


class PluginLoops:
    """The loops of all plugins by name; each thread starts with the first call. `is_one`: all are the caller's loop.

    Use as `async with PluginLoops() as loops`, which ends them.
    """

    def __init__(self, *, is_one: bool = False) -> None:
        self._is_one = is_one
        self._loops: dict[str, PluginLoop] = {}

    def of(self, plugin: str) -> Loop:
        """The loop of a plugin."""
        if self._is_one:
            return CallersLoop()
        if plugin not in self._loops:
            self._loops[plugin] = PluginLoop(plugin)
        return self._loops[plugin]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """End every loop, without waiting for code that blocks it."""
        while self._loops:
            self._loops.popitem()[1].close()


class PluginLoop:
    """The event loop of one plugin. It runs until it is closed, whatever the plugin's tasks and callbacks do."""

    def __init__(self, plugin: str) -> None:
        self.thread: threading.Thread | None = None  # where it runs, once it does
        self._plugin = plugin
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    async def run(self, call: Call[T]) -> T:
        """See `Loop`. If the caller is cancelled, so is the call, and this returns when that has ended."""
        running = _Running(call, theirs=self._started())
        try:
            value, error = await asyncio.shield(running.begun())
        except asyncio.CancelledError:
            running.cancel()
            value, error = await running.done
        if error is not None:
            raise error
        return cast("T", value)

    def close(self) -> None:
        """End the loop, without waiting for code that blocks it."""
        self._is_closed = True
        if self._loop is not None:
            soon(self._loop, self._loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.SelectorEventLoop()  # whatever policy a plugin sets
            thread = threading.Thread(target=partial(self._run, loop), name=f"plugin {self._plugin}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no thread to give; the next call tries again
                loop.close()
                raise
            self._loop, self.thread = loop, thread
        return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._is_closed:
            try:
                loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a task or callback
                log = structlog.get_logger("poller")
                log.error("plugin.raised", plugin=self._plugin, call="a task of its own", error=said(error))
        _end(loop)


class _Running(Generic[T]):
    """One call on a plugin's loop, and its result on the loop of the caller."""

    def __init__(self, call: Call[T], *, theirs: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._theirs, self._ours = theirs, asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = False
        self.done: asyncio.Future[tuple[T | None, BaseException | None]] = self._ours.create_future()

    def begun(self) -> asyncio.Future[tuple[T | None, BaseException | None]]:
        """Begin; returns `done`. Raises RuntimeError if that loop has ended."""
        self._theirs.call_soon_threadsafe(self._begin)
        return self.done

    def cancel(self) -> None:
        """Cancel the call; one that has not begun never does."""
        self._is_cancelled = True
        soon(self._theirs, lambda: self._task is not None and self._task.cancel())

    def _begin(self) -> None:
        self._task = self._theirs.create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        """Make the call. Its exception is a value, because SystemExit and KeyboardInterrupt would end the loop."""
        value, error = None, None
        try:
            if self._is_cancelled:
                raise asyncio.CancelledError
            value = await self._call()
        except BaseException as raised:  # noqa: BLE001 - handed to whoever awaits it
            error = raised
        self._answer(cast("T", value), error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before it began
            self._answer(None, asyncio.CancelledError())

    def _answer(self, value: T | None, error: BaseException | None) -> None:
        def over() -> None:
            if not self.done.done():
                self.done.set_result((value, error))

        soon(self._ours, over)


def soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call a function on a loop of another thread, unless that loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks of a loop, and close it."""
    tasks: set[asyncio.Task[Any]] = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=ENDING))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
