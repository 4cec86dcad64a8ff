"""The event loop of a command and the end of its process. Neither waits for plugin code that does not end."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from poller import garbage
from poller.hooks.faults import ABANDONED
from poller.late import late
from state.threads import Threads

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")  # not needed by commands that a daemon answers

T = TypeVar("T")

THREADS: Final = 200  # for host names that are looked up: a resolver that hangs holds each for half a minute
_SHARED: Final = "asyncio"
GRACE: Final = 5.0  # seconds that threads have to end after all work is done


class _Loop(asyncio.SelectorEventLoop):
    """The event loop of a command, whatever policy a plugin sets. Closing it waits for no thread of
    `asyncio.to_thread`; each caller awaits its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shared = Threads(THREADS, _SHARED)
        self.set_default_executor(self._shared)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002 - as it is called
        self._shared.shutdown(wait=False, cancel_futures=True)


def run_coroutine(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` without waiting for threads that a plugin has left running."""
    garbage.keep_all()
    with closing(main), asyncio.Runner(loop_factory=_Loop) as runner:  # there may be no thread for the loop
        return runner.run(main)


def end_process(status: int) -> NoReturn:
    """End this process with `status`. Threads of plugins have `GRACE` seconds to end, then what is registered with
    `atexit` as many; abandoned tasks have none.

    A thread that is not a daemon would keep the process alive, as would a process that `multiprocessing` began, and a
    coroutine that ignores even `GeneratorExit` would run for ever while the interpreter discards it.
    """
    until = time.monotonic() + GRACE
    others = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    held = [one for one in others if one.is_alive()]
    for thread in held:
        hint = "it has not ended with the program: let the plugin end its threads where its sink closes"
        if thread.name.startswith(_SHARED):
            hint = "a host name that is still looked up, or a plugin's call of asyncio.to_thread; nothing waits for it"
        structlog.get_logger("poller").error("plugin.abandoned", call=f"thread {thread.name}", hint=hint)
    limit = threading.Timer(GRACE, _give_up, [status])
    limit.daemon = True
    with suppress(RuntimeError):  # the system may have no thread to give
        limit.start()
    if held or ABANDONED or not limit.is_alive():
        _end_now(status)
    sys.exit(status)


def _give_up(status: int) -> None:
    hint = "what a plugin has registered with atexit, or began by multiprocessing, has not ended with the program"
    structlog.get_logger("poller").error("plugin.abandoned", call="atexit", hint=hint)
    _end_now(status)


def _end_now(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the reader may be gone, or a plugin has replaced it
            stream.flush()
    os._exit(status)
