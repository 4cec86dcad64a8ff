"""The points at which a daemon is killed, and the process that starts daemons which die there.

A point lies before or after one step of the program: the step is wrapped in the process that is to die, so that the
program itself knows nothing of it. `python -m tests.proofs.crash.points CONFIG LOG` imports the program once and forks
a daemon for each line "POINT TIMES" on its standard input: it kills itself with SIGKILL when the point is reached for
that many times. The process's number is written to standard output, and once it has ended its exit status.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import state.sqlite.connection
from plugins import http
from poller.cli import invoke
from poller.polling.deletions import Deletions as Confirmations
from poller.sources.transport import BudgetTransport
from state.sqlite.calls import Calls
from state.sqlite.dispatch import Deliveries
from state.sqlite.learned import Learned
from state.sqlite.leases import LeaseTable
from state.sqlite.polls import Polls
from state.sqlite.store import Store

_STEPS: Final[dict[str, tuple[Any, str]]] = {
    "call written down": (Calls, "spend"),
    "call sent": (BudgetTransport, "handle_async_request"),
    "known objects read": (Polls, "known"),
    "poll recorded": (Polls, "record"),
    "times of quiet polls written": (Polls, "touch"),
    "deletion decided": (Confirmations, "delete"),
    "commit": (state.sqlite.connection, "_commit"),
    "deliveries dispatched": (Deliveries, "dispatch"),
    "delivery sent": (http.HttpSink, "deliver"),
    "deliveries settled": (Deliveries, "settle"),
    "learned saved": (Learned, "save"),
    "leases taken": (LeaseTable, "take"),
    "endpoint opened": (Polls, "open"),
    "subscriptions registered": (Deliveries, "register"),
    "state rewound": (Store, "rewind"),
}
AT_A_DELETION: Final = "deletion decided"
AT_THE_START: Final = ("leases taken", "endpoint opened", "subscriptions registered", "state rewound")
AT_THE_END: Final = ("times of quiet polls written", "learned saved")
POINTS: Final = tuple(f"{when} {name}" for name in _STEPS for when in ("before", "after"))


def arm(point: str, times: int) -> None:
    """Let this process kill itself when it reaches the point for that many times."""
    when, _, name = point.partition(" ")
    owner, step = _STEPS[name]
    left = times

    def reached() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, step, _wrapped(getattr(owner, step), reached, is_before=when == "before"))


def _wrapped(step: Callable[..., Any], reached: Callable[[], None], *, is_before: bool) -> Callable[..., Any]:
    async def wrapped_coroutine(*args: Any, **kwargs: Any) -> Any:
        if is_before:
            reached()
        result = await step(*args, **kwargs)
        if not is_before:
            reached()
        return result

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if is_before:
            reached()
        result = step(*args, **kwargs)
        if not is_before:
            reached()
        return result

    return wrapped_coroutine if inspect.iscoroutinefunction(step) else wrapped


def main() -> None:
    """Fork a daemon for each line, one after the other."""
    config, log = sys.argv[1:]
    for name in ("poller.cli.run", "poller.daemon.daemon", "poller.web.api", "plugins.rest", "numpy"):
        import_module(name)  # once, and not in each daemon
    for line in sys.stdin:
        point, _, times = line.strip().rpartition(" ")
        child = os.fork()
        if child == 0:
            _become_daemon(config, log, point, int(times))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become_daemon(config: str, log: str, point: str, times: int) -> None:
    os.setsid()
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(written, number)
    os.close(0)
    if point:
        arm(point, times)
    code = 1
    try:
        code = invoke(["run", "--config", config])
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
