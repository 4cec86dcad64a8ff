"""`poller doctor`: looks at everything, says what is wrong and how to mend it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from pydantic import BaseModel
from rich.text import Text

from poller.cli.context import Chosen
from poller.cli.daemon_client import ask_status
from poller.cli.output import clock, console, print_json_line
from poller.config.models import Config
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
from poller.options.secrets import Secret
from state.errors import PollerError, StateError
from state.lock import StateLock
from state.sqlite.backup import restored
from state.sqlite.store import Reader, open_reader

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_COLOURS: Final = {Level.OK: "green", Level.WARN: "yellow", Level.BAD: "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One finding a line.")
@click.pass_obj
def doctor(chosen: Chosen, as_json: bool) -> int:
    """Look at everything: configuration, state, disk, daemon, sources and subscriptions; say what to do.

    Works beside the daemon and without it, asks no source, and changes nothing. Exit status 1 when something is bad.

    Example: poller doctor
    """
    findings = []
    out = console()
    for finding in examine(chosen):
        findings.append(finding)
        if as_json:
            print_json_line({**asdict(finding), "level": str(finding.level)})
        else:
            out.print(_shown(finding), soft_wrap=True)
    if not as_json:
        click.echo(summed(findings))
    return 1 if any(finding.level is Level.BAD for finding in findings) else 0


def _shown(one: Finding) -> Text:
    text = Text.assemble((f"{one.level:<5}", _COLOURS[one.level]), (f"{one.about}: ", "bold"), one.what)
    return text.append(f"\n     -> {one.hint}", "cyan") if one.hint else text


def examine(chosen: Chosen) -> Iterator[Finding]:
    """Everything, in the order in which it would have to be mended."""
    config, plugins, findings = _configured(chosen)
    yield from findings
    if config is None:
        return
    yield from advice(config)
    for failed in plugins.failed:
        yield of_plugin(failed.name, failed.origin, failed.error)
    yield from _private(config)
    holder = StateLock(config.poller.state).holder()
    yield _daemon(config, holder)
    live = None
    if config.poller.address is not None:
        listening, live = _listening(config, holder)
        yield listening
    yield from _state(config, live)


# The configuration and what it names.


def _configured(chosen: Chosen) -> tuple[Config | None, Plugins, list[Finding]]:
    """The configuration, without its secrets where they cannot be had."""
    try:
        config, plugins = chosen.load()
    except ConfigError as error:
        wrong = [bad("configuration", problem.line(error.file)) for problem in error.problems]
        try:
            return *chosen.load(reveal=False), wrong
        except ConfigError:
            return None, Plugins(), wrong
    return config, plugins, [ok("configuration", f"{config.path} is valid")]


def _private(config: Config) -> Iterator[Finding]:
    """Files that only this user should read."""
    secrets = list(_secrets(config))
    files = {Path(secret.place) for secret in secrets if secret.kind == "file"}
    if any(secret.kind == "text" for secret in secrets):
        files.add(config.path)
    files |= {config.poller.state} if config.poller.state.exists() else set()
    for file in sorted(file for file in files if file.exists()):
        if file.stat().st_mode & OTHERS and not _is_shared(file):
            what = "the state" if file == config.poller.state else "it holds a secret, and"
            yield warn(str(file), f"{what} can be read by others", f"chmod 600 {file}")


def _is_shared(file: Path) -> bool:
    """Whether a group alone may read it, that of a folder which is closed to others: a service's."""
    own, folder = file.stat(), file.parent.stat()
    return own.st_mode & OTHERS == stat.S_IRGRP and own.st_gid == folder.st_gid and not folder.st_mode & stat.S_IRWXO


def _secrets(value: Any) -> Iterator[Secret]:
    """Every secret in a model, whatever it is called."""
    match value:
        case Secret():
            yield value
        case BaseModel():
            for name in type(value).model_fields:
                yield from _secrets(getattr(value, name))
        case dict():
            for inner in value.values():
                yield from _secrets(inner)
        case list() | tuple():
            for inner in value:
                yield from _secrets(inner)


# The daemon.


def _daemon(config: Config, holder: int | None) -> Finding:
    if holder is None:
        return warn("daemon", "not running", "poller run, or systemctl start poller")
    since = StateLock(config.poller.state).since()
    return ok("daemon", f"running since {clock(since, config.poller.zone)} (process {holder})")


def _listening(config: Config, holder: int | None) -> tuple[Finding, Status | None]:
    """Whether it answers, and what it says of itself."""
    assert config.poller.address is not None
    host, port = config.poller.address
    about = f"listen {config.poller.listen}"
    if holder is None:
        return (ok(about, "free") if _is_free(host, port) else _taken(about)), None
    if port == 0:
        return ok(about, "on a port of the system's choice: its log names it"), None
    try:
        return ok(about, "answers"), parse(ask_status(config))
    except PollerError as error:
        return bad(about, str(error), error.hint), None


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


def _state(config: Config, live: Status | None) -> Iterator[Finding]:
    path = config.poller.state
    folder = path.parent
    if not folder.is_dir():
        yield bad("state", f"its folder {folder} does not exist", f"mkdir -p {folder}")
        return
    if not os.access(path if path.exists() else folder, os.W_OK):
        yield bad("state", f"{path} cannot be written by this user", f"run as its owner, or chown {folder}")
    yield from _owned(path)
    yield of_space(shutil.disk_usage(folder).free, path.stat().st_size if path.exists() else 0)
    if not path.exists():
        yield warn("state", f"{path} is not there yet", "poller once, or poller run")
        return
    try:
        with open_reader(path) as reader:
            yield from _kept(reader, config, live)
    except StateError as error:
        yield bad("state", str(error), error.hint)


def _owned(state: Path) -> Iterator[Finding]:
    """Whether a file of the state belongs to another user than its folder, as a backup does that root has put there."""
    beside = (state.with_name(state.name + end) for end in ("", "-wal", "-shm", ".lock"))
    strange = [file for file in beside if file.exists() and file.stat().st_uid != state.parent.stat().st_uid]
    # A folder of root's, such as /tmp, is one that many share.
    if strange and state.parent.stat().st_uid != 0:
        files = " ".join(map(str, strange))
        what = f"{files}: not owned by the user to whom {state.parent} belongs: a service of that user cannot write it"
        yield bad("state", what, f"chown --reference={state.parent} {files}")


def _kept(reader: Reader, config: Config, live: Status | None) -> Iterator[Finding]:
    """What the file itself tells; nothing else of it is asked where it is damaged."""
    now = time.time()
    if damage := reader.damage():
        restore = "stop the daemon, move the state and its -wal and -shm away, put a backup in its place"
        yield bad("state", f"{config.poller.state} is damaged: {damage}", restore)
        return
    yield ok("state", f"{config.poller.state} is whole: {reader.log.last_seq()} events in log {reader.log.id}")
    for books in reader.deliveries.ledger():
        if not books.balanced:
            yield bad(
                f"subscription {books.subscription}", "its books do not balance", "poller ledger names what is missing"
            )
    yield of_clock(now, reader.log.latest_time())
    yield from _beginning(reader, config, now)
    yield from of_status(live or read_status(config, now=now), config)


def _beginning(reader: Reader, config: Config, now: float) -> Iterator[Finding]:
    """Whether it is a restored backup: a new beginning, and for a while a dangerous one."""
    origin = restored(reader.db)
    if origin is None:
        return
    told = f"a backup of {iso(origin.taken_at)}, restored {iso(origin.since)}: cursors of log {origin.log_id} are void"
    longest = max((limit.seconds for budget in config.budgets.values() for limit in budget.limits), default=0.0)
    if now < origin.since + longest:
        unknown = (
            f"; calls made in between are not known, and count with the server until {iso(origin.since + longest)}"
        )
        yield warn("state", told + unknown, "lower limits or share until then if the key was in use")
    else:
        yield ok("state", told)
