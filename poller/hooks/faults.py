"""Faults of plugin code: an exception of a plugin becomes a failure of that plugin, in one line, and ends nothing else.

This includes `SystemExit`, `KeyboardInterrupt`, `GeneratorExit` and `CancelledError`. The only exception that passes
through a call into a plugin is the cancellation of the calling task.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from poller.late import late
from poller.redaction import redacted
from state.errors import PollerError

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")  # not needed for `poller --help`


T = TypeVar("T")

LONGEST: Final = 500  # characters of a plugin's message
_LOADER: Final = Path(__file__).with_name("loading.py")
_BETWEEN: Final = frozenset(  # they call plugins for us
    {"httpx", "pluggy", "asyncio", "selectors", "importlib", "threading", "concurrent"}
)
ABANDONED: Final[set[asyncio.Task[Any]]] = set()  # kept, since a coroutine may ignore even being thrown away


class PluginError(PollerError):
    """A plugin breaks the contract of plugins."""


def running_task() -> asyncio.Task[Any] | None:
    """The task that runs in this thread now."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop in this thread
        return None


def is_cancelled() -> bool:
    """Whether the running task is being cancelled from outside the code that it calls."""
    task = running_task()
    return task is not None and task.cancelling() > 0


def attempted(call: Callable[[], T]) -> tuple[T | None, str | None]:
    """The result of plugin code, or its exception in one line."""
    try:
        return call(), None
    except BaseException as error:  # a plugin may raise anything; it is reported with the plugin's name
        if is_cancelled():
            raise
        return None, said(error)


def said(error: BaseException) -> str:
    """An exception in one line, with the last line of the plugin's own code in its traceback."""
    try:
        text = " ".join(redacted(str(error)).split())[:LONGEST] or "no message"
    except BaseException as unprintable:  # noqa: BLE001 - even `str` of it is a plugin's code
        text = f"a message that cannot be shown ({type(unprintable).__name__})"
    if isinstance(error, PluginError):
        return text
    return f"{type(error).__name__}: {text}{_place(error)}"


def _place(error: BaseException) -> str:
    """The line that raised an exception; "" if the plugin's file could not even be compiled."""
    steps = [(step.f_code.co_filename, line) for step, line in traceback.walk_tb(error.__traceback__)]
    run = [(Path(file), line) for file, line in steps if not file.startswith("<frozen importlib")]
    if not run or run[-1][0] == _LOADER:
        return ""
    file, line = run[-1]
    return f" (line {line} of {file.name})"


def call_under_way(thread: threading.Thread) -> FrameType | None:
    """The function of a plugin that Poller has called on a thread and that has not returned; None if there is none.

    As long as it is kept, another call has another frame.
    """
    return call_of_plugin(sys._current_frames().get(thread.ident or 0))


def call_of_plugin(frame: FrameType | None) -> FrameType | None:
    """The function of a plugin that was called by Poller, or began a thread, and has led to this one."""
    found, package = None, ""
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "poller":
            return found
        if package not in _BETWEEN:
            found = frame
        frame = frame.f_back
    return found if package == "threading" else None


def where(call: FrameType) -> str:
    """A function that runs, with its present line."""
    return f"{call.f_code.co_name} (line {call.f_lineno} of {Path(call.f_code.co_filename).name})"


def trace(error: BaseException) -> str:
    """Where an exception was raised, for a debug line; its text is left out, because making it would run plugin
    code.
    """
    return "".join(traceback.format_tb(error.__traceback__))


async def awaited(answer: Awaitable[Any], *, limit: float, grace: float, label: str) -> Any:
    """The result of a plugin's coroutine. Raises its exception, and TimeoutError after `limit` seconds.

    The coroutine runs in a separate task. If it neither ends nor obeys its cancellation within `grace` seconds, it is
    abandoned, so that neither this call nor the end of the program waits for it.
    """
    task = asyncio.create_task(_outcome(answer))
    try:
        await asyncio.wait([task], timeout=limit)
    except asyncio.CancelledError:
        await end(task, grace, label)
        raise
    if not task.done():
        await end(task, grace, label)
        raise TimeoutError(f"it did not end within {limit:g} s")
    value, error = task.result()
    if error is not None:
        raise error
    return value


async def _outcome(answer: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """The result or exception as a value, because a task that raises SystemExit or KeyboardInterrupt would end the
    loop.
    """
    try:
        return await answer, None
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; the caller says whose it is
        return None, error


async def end(task: asyncio.Task[Any], grace: float, label: str) -> None:
    """Cancel a plugin's task and wait for its end, at most `grace` seconds."""
    task.cancel()
    await asyncio.wait([task], timeout=grace)
    if not task.done():
        abandon(task, label)


def abandon(task: asyncio.Task[Any], label: str, *, quietly: bool = False) -> None:
    """Stop waiting for a plugin's task that blocks or ignores its cancellation, here and at the end of the program."""
    if not quietly:
        hint = "it blocks, or ignores its cancellation: await what takes long, and do not catch CancelledError"
        structlog.get_logger("poller").error("plugin.abandoned", call=label, hint=hint)
    ABANDONED.add(task)
    task.add_done_callback(ABANDONED.discard)
    asyncio._unregister_task(task)  # else `asyncio.run` would wait for it for ever
    task._log_destroy_pending = False  # type: ignore[attr-defined]
