"""The client of a running daemon, over the socket next to its state. It needs neither secrets nor a configuration."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

import click
import msgspec

from poller.cli.rights import rights
from poller.config.files import digest_of, find
from poller.config.state_place import state_place
from poller.late import late
from poller.operations.local_socket import short, socket_path
from poller.options.problems import ConfigError, NotThere
from poller.rendering.terminal import printable
from state.errors import PollerError, StateError

if TYPE_CHECKING:
    import httpx
else:
    httpx = late("httpx")  # needed where a daemon runs

PATIENCE: Final = 30.0  # seconds
Parameters = Mapping[str, Any]


class Unanswered(PollerError):
    """The daemon has ended, or does not answer in time."""


class DaemonClient:
    """The API of a daemon. Raises PollerError if the daemon refuses, with the daemon's message."""

    def __init__(self, client: httpx.Client, path: Path) -> None:
        self._client = client
        self._path = path

    def get(self, route: str, **parameters: Any) -> Any:
        """The parsed answer of a route; parameters that are None are left out."""
        return msgspec.json.decode(self.get_raw(route, **parameters))

    def get_raw(self, route: str, **parameters: Any) -> bytes:
        """The answer of a route."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._ask("GET", route, params=given)

    def post(self, route: str, body: Parameters | None = None, *, timeout: float = PATIENCE) -> dict[str, Any]:
        """The result of a command."""
        raw = self._ask("POST", route, json=dict(body or {}), timeout=timeout)
        found: dict[str, Any] = msgspec.json.decode(raw)
        return found

    def _ask(self, method: str, route: str, **request: Any) -> bytes:
        try:
            answer = self._client.request(method, route, **request)
        except httpx.HTTPError as error:
            raise Unanswered(
                f"the daemon does not answer on {self._path}: {error or type(error).__name__}", hint="its log says why"
            ) from error
        if not answer.is_success:
            raise _refusal(answer)
        return answer.content


@contextlib.contextmanager
def connected(state: Path) -> Iterator[DaemonClient | None]:
    """The daemon on a state; None if none listens. Raises PollerError if this user may not ask it."""
    path = socket_path(state)
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(short(path))
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(PATIENCE)
                probe.connect(address)
        except PermissionError as error:
            raise _not_ours(path) from error
        except OSError:  # there is no socket, or its daemon has ended
            yield None
            return
        transport = httpx.HTTPTransport(uds=address)
        client = httpx.Client(transport=transport, base_url="http://poller", timeout=PATIENCE, trust_env=False)
        yield DaemonClient(stack.enter_context(client), path)


@contextlib.contextmanager
def daemon_of(path: Path | None) -> Iterator[DaemonClient | None]:
    """The daemon on the state of a configuration file. Warns if it refuses the file as it is now."""
    with quiet_daemon_of(path) as daemon:
        refusal = None if daemon is None else refusal_of(path, daemon.get("/api/v1/configuration"))
        if refusal is not None:
            click.echo(printable(refusal), err=True)
        yield daemon


@contextlib.contextmanager
def quiet_daemon_of(path: Path | None) -> Iterator[DaemonClient | None]:
    """The daemon on the state of a configuration file."""
    state = state_place(path)
    if state is None:
        yield None
        return
    with connected(state) as daemon:
        yield daemon


def refusal_of(path: Path | None, running: Parameters) -> str | None:
    """What a daemon with the configuration `running` would refuse in the file as it is now; None if nothing."""
    try:
        file = find(path)
        if digest_of(file) in ("", running["digest"]):  # the same file, or one that this user cannot read
            return None
        import_module("poller.cli.loading").loaded(path, reveal=False)
    except ConfigError as error:
        first = error.problems[0]
        why = f"{first.key}: {first.what}" if first.key else first.what
        return f"{error.file}: refused ({why}); the daemon runs the one of {_read_at(running)}"
    return None


def warn_of_another(path: Path | None) -> None:
    """Warn if the daemon on the state runs another configuration than the file, which the command goes by."""
    state = state_place(path)
    with contextlib.suppress(PollerError), contextlib.ExitStack() as stack:  # nothing is known of it then
        daemon = None if state is None else stack.enter_context(connected(state))
        if daemon is None:
            return
        running, file = daemon.get("/api/v1/configuration"), find(path)
        if digest_of(file) not in ("", running["digest"]):
            what = f"shown as {file.name} is now; the daemon still runs the one of {_read_at(running)}"
            click.echo(printable(f"Warning: {what}"), err=True)


def _read_at(running: Parameters) -> str:
    """When the daemon read its configuration: "03:50 UTC", with the date unless it was today."""
    read_at = datetime.fromisoformat(running["read_at"]).astimezone(ZoneInfo(running["timezone"]))
    today = datetime.now(read_at.tzinfo).date()
    return f"{read_at:%H:%M %Z}" if read_at.date() == today else f"{read_at:%Y-%m-%d %H:%M %Z}"


def in_path(*names: str) -> str:
    """Names as parts of a route."""
    return "/".join(quote(name, safe="/") for name in names)


def _refusal(answer: httpx.Response) -> PollerError:
    """The error for a problem document of the API."""
    try:
        said = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        said = {}
    detail = str(said.get("detail") or f"the daemon answered {answer.status_code}")
    hint = said.get("hint")
    kind = {404: NotThere, 503: StateError}.get(answer.status_code, PollerError)
    return kind(detail, hint=str(hint) if hint else None)


def _not_ours(path: Path) -> PollerError:
    """The error if this user may not ask the daemon; it names the user who may."""
    others = rights(path)
    what = f"{path}: the daemon's socket may be used by {others}, not by user {os.geteuid()}"
    return PollerError(what, hint=others.advice)
