"""The findings of an inspection of an endpoint, as `poller check --online` and `poller try` print them."""

from __future__ import annotations

from typing import Final

import msgspec

from poller.cli.daemon_client import DaemonClient, in_path
from poller.cli.output import counted, say
from poller.operations.inspection import Inspection
from poller.options.problems import with_hint
from poller.rendering.terminal import printable

PATIENCE: Final = 60.0  # seconds for the daemon to look at one endpoint
REFUSED: Final = 401
HINTS: Final = {
    301: "write the address that it names",
    302: "write the address that it names; a login page is not an API",
    REFUSED: "are the credentials right, and have they not expired?",
    403: "this key may not see it: grant access, or name only endpoints that it may see",
    404: "is the path right? The URL is base_url followed by path",
    429: "this passes by itself: a daemon waits for it",
}


def inspected(daemon: DaemonClient, source: str, endpoint: str) -> Inspection:
    """The daemon's inspection of an endpoint."""
    answer = daemon.post(f"/api/v1/endpoints/{in_path(source, endpoint)}/inspect", timeout=PATIENCE)
    return msgspec.convert(answer, Inspection)


def report(found: Inspection) -> int:
    """Print an inspection: a line for the list, and a warning for each doubt. Returns 1 if it failed."""
    if found.pages:
        say(f"endpoint {found.endpoint}: {_list_line(found)}")
    for doubt in found.doubts:
        say(f"Warning: {found.endpoint}: {doubt}", err=True)
    if found.problem is None:
        return 0
    return _complain(f"{found.endpoint}: {found.problem}", found.hint, found.status)


def _list_line(found: Inspection) -> str:
    first = found.pages[0]
    words = [f"{counted(first.objects, 'object')} on its first page"]
    words.append("no next page" if first.next is None else f"next {first.next}")
    if first.total is not None:
        words.append(f"total {first.total}")
    if found.calls_per_sweep is not None and found.calls_per_sweep > 1:
        words.append(f"{found.calls_per_sweep} calls a sweep")
    if found.example is not None:
        name = f" {printable(found.example_name)!r}" if found.example_name else ""
        words.append(f"such as {found.example}{name}")
    if found.item is not None:
        words.append(f"its own URL answers {found.item.status}")
    return ", ".join(words)


def _complain(text: str, hint: str | None, status: int | None) -> int:
    passing = status == 429 or (status or 0) >= 500
    hint = hint or HINTS.get(status or 0)
    say(f"{'Warning' if passing else 'Error'}: {with_hint(text, hint)}", err=True)
    return 0 if passing else 1
