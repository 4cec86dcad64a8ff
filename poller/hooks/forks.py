"""Processes that plugins fork. Each is a copy of the whole program, which must never act as the program.

It may run the plugin's code, or another program, but not Poller's: it ends where the plugin's code would return.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from poller.hooks.faults import call_of_plugin, where
from poller.late import late

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")


class Descriptor(Protocol):
    """What has a file descriptor, such as a file or a socket."""

    def close(self) -> None:
        """Close it in this process only."""
        ...


NOT_FORKED: Final[WeakSet[Descriptor]] = WeakSet()  # no other daemon could start as long as a forked process had them


@cache
def guard_forks() -> None:
    """See to every process that is forked from now on."""
    os.register_at_fork(after_in_child=_begin)


def _begin() -> None:
    for one in list(NOT_FORKED):
        one.close()
    if signal.set_wakeup_fd(-1) >= 0:  # else a signal to this process would reach the event loop of its parent
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    call = call_of_plugin(sys._getframe().f_back)
    if call is not None:
        sys.setprofile(_Ending(call))


class _Ending:
    """A profiler that ends the process where one function returns, raises or awaits."""

    def __init__(self, call: FrameType) -> None:
        self._call = call

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if frame is not self._call or event != "return":
            return
        hint = "let the forked process end before that, by os._exit, or use subprocess"
        structlog.get_logger("poller").error("plugin.forked", function=where(frame), process=os.getpid(), hint=hint)
        os._exit(1)
