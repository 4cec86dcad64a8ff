"""`poller doctor`: examines everything, and says what is wrong and how to fix it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import click
import httpx
from rich.text import Text

from poller.cli.context import CliContext
from poller.cli.daemon_client import connected
from poller.cli.output import clock, console, print_json_line, say, say_lines
from poller.config.models import LOOPBACK, Config, is_loopback
from poller.config.state_place import state_place
from poller.events.cloudevents import iso
from poller.hooks.loading import Plugins
from poller.operations.advice import advice
from poller.operations.doctor import (
    Finding,
    Level,
    bad,
    of_clock,
    of_plugin,
    of_space,
    of_status,
    ok,
    summed,
    warn,
)
from poller.operations.gathering import read_status
from poller.operations.status import Status, parse
from poller.options.problems import ConfigError
from poller.options.secrets import secrets_in
from poller.rendering.terminal import printable
from state.errors import PollerError, StateError
from state.lock import StateLock
from state.open import is_there, open_reader
from state.place import DatabaseUrl, Place
from state.store import Reader

ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
PATIENCE: Final = 5.0  # seconds
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_COLOURS: Final = {Level.OK: "green", Level.WARN: "yellow", Level.BAD: "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one finding per line.")
@click.pass_obj
def doctor(context: CliContext, as_json: bool) -> int:
    """Examine configuration, state, disk, daemon, sources and subscriptions, and say what to do.

    Works with and without a running daemon, sends no request to a source, and changes nothing. The exit status is 1 if
    something is wrong.

    Example: poller doctor
    """
    findings = []
    out = console()
    for finding in examine(context):
        if finding in findings:  # a plugin that fails here and in the daemon
            continue
        findings.append(finding)
        if as_json:
            print_json_line({**asdict(finding), "level": str(finding.level)})
        elif out is not None:
            out.print(_shown(finding), soft_wrap=True)
        else:
            say_lines(_shown(finding).plain)
    if not as_json:
        say(summed(findings))
    return 1 if any(finding.level is Level.BAD for finding in findings) else 0


def _shown(one: Finding) -> Text:
    about, what = printable(one.about), printable(one.what)
    text = Text.assemble((f"{one.level:<5}", _COLOURS[one.level]), (f"{about}: ", "bold"), what)
    return text.append(f"\n     -> {printable(one.hint)}", "cyan") if one.hint else text


def examine(context: CliContext) -> Iterator[Finding]:
    """All findings, in the order in which they should be fixed. The daemon is asked for what it knows."""
    state = state_place(context.path)
    running = _Running() if state is None else _asked_daemon(state)
    config, plugins, findings = _configured(context, running)
    yield from findings
    if config is not None:
        yield from advice(config)
        for failed in plugins.failed:
            yield of_plugin(failed.name, failed.origin, failed.error)
        yield from _private(config)
    elif running.status is None:
        if running.error is not None:
            yield bad("socket", str(running.error), running.error.hint)
        return  # without a configuration there is nothing else to examine
    path = config.poller.state if config is not None else state
    assert path is not None
    if isinstance(path, DatabaseUrl):
        yield from _database(path, config)
        return
    holder = StateLock(path).holder()
    yield _daemon(path, holder, running)
    if running.error is not None:
        yield bad("socket", str(running.error), running.error.hint)
    if config is not None and config.poller.address is not None:
        yield _listening(config, holder)
    yield from _state(path, config, running.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """What the daemon reports about itself; empty if none runs or it cannot be asked."""

    status: Status | None = None
    read_at: datetime | None = None  # when it read its configuration
    zone: tzinfo = UTC
    error: PollerError | None = None


def _asked_daemon(state: Path) -> _Running:
    try:
        with connected(state) as daemon:
            if daemon is None:
                return _Running()
            told = daemon.get("/api/v1/configuration")
            return _Running(
                status=parse(daemon.get("/api/v1/status")),
                read_at=datetime.fromisoformat(told["read_at"]),
                zone=ZoneInfo(told["timezone"]),
            )
    except PollerError as error:
        return _Running(error=error)


# The configuration and the files that it names.


def _configured(context: CliContext, running: _Running) -> tuple[Config | None, Plugins, list[Finding]]:
    """The configuration, without secrets that this shell does not have: beside a daemon, only the daemon needs them."""
    try:
        config, plugins = context.load()
    except ConfigError as error:
        wrong = [bad("configuration", problem.line(error.file)) for problem in error.problems]
    else:
        return config, plugins, [ok("configuration", f"{config.path} is valid")]
    goes_on = [] if running.read_at is None else [_goes_on(running.read_at, running.zone)]
    try:
        config, plugins = context.load(reveal=False)
    except ConfigError:
        return None, Plugins(), [*wrong, *goes_on]
    if running.status is not None:
        missing = f"{config.path} is valid; some secrets are available only to the daemon"
        return config, plugins, [ok("configuration", missing)]
    return config, plugins, wrong


def _goes_on(read_at: datetime, zone: tzinfo) -> Finding:
    told = f"the daemon runs the configuration that it read at {clock(read_at.timestamp(), zone)}"
    return warn("configuration", told, "a restart would refuse the file as it is: fix it first")


def _private(config: Config) -> Iterator[Finding]:
    """Files that only this user should be able to read."""
    secrets = list(secrets_in(config))
    files = {Path(secret.place) for secret in secrets if secret.kind == "file"}
    if any(secret.kind == "text" for secret in secrets):
        files.add(config.path)
    state = config.poller.state
    files |= {state} if isinstance(state, Path) and state.exists() else set()
    for file in sorted(file for file in files if file.exists()):
        if file.stat().st_mode & OTHERS and not _is_shared(file):
            what = "the state" if file == config.poller.state else "it holds a secret, or what may be one, and"
            yield warn(str(file), f"{what} can be read by others", f"chmod 600 {file}")


def _is_shared(file: Path) -> bool:
    """Whether only the group of a folder that is closed to others can read the file, as for a service."""
    own, folder = file.stat(), file.parent.stat()
    return own.st_mode & OTHERS == stat.S_IRGRP and own.st_gid == folder.st_gid and not folder.st_mode & stat.S_IRWXO


# A database.


def _database(place: DatabaseUrl, config: Config | None) -> Iterator[Finding]:
    """Whether the database can be reached, which workers run on it, and whether its content is consistent."""
    try:
        if not is_there(place):
            yield warn("state", f"{place} holds no state yet", "poller run")
            return
        with open_reader(place) as reader:
            yield from _workers(reader)
            yield from _kept(reader, place, config, None)
    except StateError as error:
        yield bad("state", str(error), error.hint)


def _workers(reader: Reader) -> Iterator[Finding]:
    workers = reader.leases.shares().workers
    if not workers:
        yield warn("workers", "none is running", "poller run, on as many machines as you like")
        return
    yield ok("workers", f"running: {', '.join(worker.name for worker in workers)}")


# The daemon.


def _daemon(state: Path, holder: int | None, running: _Running) -> Finding:
    if holder is None:
        return warn("daemon", "not running", "poller run, or systemctl start poller")
    since = clock(StateLock(state).since(), running.zone)
    if running.status is None and running.error is None:
        what = f"process {holder} has the state since {since}, and does not answer on its socket"
        return warn("daemon", what, "it may be starting, or be another command: try again, or read its log")
    return ok("daemon", f"running since {since} (process {holder})")


def _listening(config: Config, holder: int | None) -> Finding:
    """Whether the address is free, or answers."""
    assert config.poller.address is not None
    host, port = config.poller.address
    about = f"listen {config.poller.listen}"
    if holder is None:
        return ok(about, "free") if _is_free(host, port) else _taken(about)
    if port == 0:
        return ok(about, "on a port of the system's choice: its log names it")
    name = host if is_loopback(host) else next(iter(config.poller.allowed_hosts or LOOPBACK))
    url = httpx.URL(scheme="http", host=ANYWHERE.get(host, host), port=port, path="/healthz")
    try:
        httpx.get(url, headers={"Host": name}, timeout=PATIENCE, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        return bad(
            about, f"the daemon does not answer there: {error}", "its log says why; did a reload change `listen`?"
        )
    return ok(about, "answers")


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True


def _taken(about: str) -> Finding:
    return bad(about, "another program has this address", 'choose another port, or listen = "" for none')


# The state.


def _state(path: Path, config: Config | None, live: Status | None) -> Iterator[Finding]:
    folder = path.parent
    if not folder.is_dir():
        yield bad("state", f"its folder {folder} does not exist", f"mkdir -p {folder}")
        return
    if live is None and not os.access(path if path.exists() else folder, os.W_OK):
        yield bad("state", f"{path} cannot be written by this user", _to_write(path if path.exists() else folder))
    yield from _owned(path)
    yield of_space(shutil.disk_usage(folder).free, path.stat().st_size if path.exists() else 0)
    if not path.exists():
        if live is None:
            yield warn("state", f"{path} does not exist yet", "poller once, or poller run")
            return
        yield bad("state", f"{path} is gone, and the daemon still uses it", "do not stop it: docs/how-to/backup.md")
        yield from of_status(live, config)
        return
    try:
        with open_reader(path) as reader:
            yield from _kept(reader, path, config, live)
    except StateError as error:
        if live is None or os.access(path, os.R_OK):
            yield bad("state", str(error), error.hint)
            return
        yield warn("state", f"{path} may not be read by this user: only what the daemon reports is checked", "sudo")
        yield from of_status(live, config)


def _to_write(place: Path) -> str:
    """How to make a file writable; for its owner this is a question of its mode."""
    mine = place.stat().st_uid == os.geteuid()
    return (
        f"chmod u+w {place}; is its file system mounted read-only?" if mine else f"run as its owner, or chown {place}"
    )


def _owned(state: Path) -> Iterator[Finding]:
    """Whether a file of the state belongs to another user than its folder, like a backup that root has copied."""
    beside = (state.with_name(state.name + end) for end in ("", "-wal", "-shm", ".lock"))
    strange = [file for file in beside if file.exists() and file.stat().st_uid != state.parent.stat().st_uid]
    # A folder of root, such as /tmp, is shared by many users.
    if strange and state.parent.stat().st_uid != 0:
        files = " ".join(map(str, strange))
        what = f"{files}: not owned by the owner of {state.parent}: a service of that user cannot write it"
        yield bad("state", what, f"chown --reference={state.parent} {files}")


def _kept(reader: Reader, path: Place, config: Config | None, live: Status | None) -> Iterator[Finding]:
    """What the state file itself says. If it is damaged, nothing else is read from it."""
    now = time.time()
    if damage := reader.damage():
        restore = "stop the daemon, move the state and its -wal and -shm away, put a backup in its place"
        yield bad("state", f"{path} is damaged: {damage}", restore)
        return
    yield ok("state", f"{path} is intact: {reader.log.last_seq()} events in log {reader.log.id}")
    for books in reader.deliveries.ledger():
        if not books.balanced:
            yield bad(
                f"subscription {books.subscription}", "its books do not balance", "poller ledger names what is missing"
            )
    yield of_clock(now, reader.log.newest_time())
    if config is not None:
        yield from _beginning(reader, config, now)
    status = live or (None if config is None else read_status(config, now=now))
    if status is not None:
        yield from of_status(status, config)


def _beginning(reader: Reader, config: Config, now: float) -> Iterator[Finding]:
    """Whether the state is a restored backup, which does not know all calls of its windows for a while."""
    origin = reader.restored()
    if origin is None:
        return
    told = f"a backup of {iso(origin.taken_at)}, restored {iso(origin.since)}: cursors of log {origin.log_id} are void"
    longest = max((limit.seconds for budget in config.budgets.values() for limit in budget.limits), default=0.0)
    if now < origin.since + longest:
        unknown = (
            f"; calls made in between are not known here, and count at the server until {iso(origin.since + longest)}"
        )
        yield warn("state", told + unknown, "lower limits or share until then if the key was in use")
    else:
        yield ok("state", told)
