"""The process in which apprise runs: `python -m plugins.apprise.child` reads one notification a line from standard
input.

apprise's services make their own connections, with `requests`, `smtplib`, sockets and others. They follow redirects,
use proxies and `.netrc` of the environment, read answers without a limit, and cannot be stopped. A program cannot
switch that off for single services, but it can for a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import IO, Any, Final

import apprise
import requests
import urllib3

from poller.sinks.ssrf import AddressRefused, literal_address, why_refused

SERVICE: Final = 30  # seconds for one notification; a longer one ends the process
ANSWER: Final = 64 * 1024  # bytes of an HTTP answer that are read
MEMORY: Final = 512 * 1024 * 1024  # memory of this process in bytes
_DIALS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})  # audit events, raised by every socket


class Guard:
    """An audit hook that refuses connections to private addresses, whichever library makes them."""

    def __init__(self) -> None:
        self.refused: str | None = None  # the latest reason

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _DIALS and isinstance(args[1], tuple):
            host = str(args[1][0])
            for address in [literal_address(host)] if literal_address(host) else _addresses(host):
                if reason := why_refused(str(address)):
                    self.refused = f"{host} is {reason}"
                    raise AddressRefused(self.refused)


def _addresses(host: str) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None)]


def tame_requests() -> None:
    """Make `requests` ignore the environment and redirects, and limit the size of answers."""
    sessions: Any = requests.Session
    original = sessions.request

    def request(self: requests.Session, method: str, url: str, **given: Any) -> requests.Response:
        self.trust_env = False  # no proxies of the environment, no .netrc
        given.update(allow_redirects=False, stream=True)
        answer: requests.Response = original(self, method, url, **given)
        try:
            answer._content = answer.raw.read(ANSWER, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise requests.ConnectionError(exc) from exc
        finally:
            answer.close()
        answer._content_consumed = True
        return answer

    sessions.request = request


def notified(job: dict[str, str]) -> bool:
    """Whether the service accepted the notification. An exception counts as no."""
    service = apprise.Apprise.instantiate(job["url"])
    if service is None:
        return False
    try:
        return bool(
            service.notify(
                body=job["body"],
                title=job["title"],
                notify_type=apprise.NotifyType(job["kind"]),
                body_format=apprise.NotifyFormat.TEXT,
            )
        )
    except Exception:  # noqa: BLE001 - a service may raise anything; this process has no other task
        return False


def serve(jobs: IO[str], replies: IO[str], guard: Guard) -> None:
    """Answer each notification with whether it was accepted, and which address was refused."""
    for line in jobs:
        guard.refused = None
        signal.alarm(SERVICE)  # by default the signal ends the process
        reply = {"ok": notified(json.loads(line)), "refused": guard.refused}
        signal.alarm(0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a service prints must not look like a reply
    with suppress(OSError):  # a sandbox may forbid it, or the limit is lower already
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    guard = Guard()
    if "--allow-private" not in sys.argv:
        sys.addaudithook(guard)
    tame_requests()
    serve(sys.stdin, replies, guard)


if __name__ == "__main__":
    main()
