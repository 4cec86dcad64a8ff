"""The sd_notify protocol (man 3 sd_notify): datagrams to the service manager at `$NOTIFY_SOCKET`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

import structlog

log = structlog.get_logger("poller")


class Notifier:
    """Reports the daemon's state to the service manager. Does nothing if there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._interval = _watchdog(environ)
        self._complained = False

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two signs of life, half of the manager's limit; None if there is no watchdog."""
        return self._interval

    def ready(self, *, status: str = "") -> None:
        """Report that starting or reloading is complete."""
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready` ends it. The time identifies this reload."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the daemon is stopping."""
        self._send("STOPPING=1", _status("stopping"))

    def alive(self, *, status: str = "") -> None:
        """Send a sign of life, and the line that `systemctl status` shows."""
        self._send("WATCHDOG=1" if self._interval is not None else "", _status(status))

    def _send(self, *lines: str) -> None:
        message = "\n".join(line for line in lines if line)
        if not (self._address and message):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # a manager that does not read must not block the daemon
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("notify.failed", error=str(error), hint="nobody listens at $NOTIFY_SOCKET")


def _address(given: str) -> str:
    """The socket's address: a path, or "@" and a name of the abstract namespace. Other kinds (vsock) are not
    supported.
    """
    if given.startswith("@"):
        return "\0" + given[1:]
    return given if given.startswith("/") else ""


def _watchdog(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    mine = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    if not (mine and microseconds.isdecimal() and int(microseconds) > 0):
        return None
    return int(microseconds) / 2e6


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())}" if text else ""
