"""`poller backup` and `restore`: copy the state while it is in use, and put a copy back."""

from __future__ import annotations

import os
import shlex
import time
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

import click

from poller.cli.context import CliContext
from poller.cli.output import counted, print_json, say, size
from poller.config.state_place import state_place
from poller.operations import restore as restoring
from poller.options.problems import NotThere
from state.errors import PollerError
from state.open import copy_state, is_there
from state.place import DatabaseUrl
from state.private import make_folder


@click.command()
@click.argument("dest", metavar="DEST")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def backup(context: CliContext, dest: str, as_json: bool) -> None:
    """Copy the state to DEST while it is in use. DEST is a folder if it is one or ends with a slash, else a new file.

    A folder is created if it does not exist; the file in it is named after the state and the time. The copy shows one
    moment, is checked, and is on disk when the command ends. `poller restore` puts it back.

    Example: poller backup /var/backups/poller/
    """
    state, now = _state(context), time.time()
    if isinstance(state, DatabaseUrl):
        raise PollerError(f"{state}: Poller does not copy a database", hint=_dump(state, dest, now))
    if not is_there(state):
        raise NotThere(f"{state}: there is no state to copy yet", hint="poller once")
    to = Path(dest)
    if _is_folder(dest):
        _make(to)
        to = _free(to / f"{state.stem}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}{state.suffix}")
    copied = copy_state(state, to, now=now)
    if as_json:
        print_json({"path": str(to), "bytes": copied.bytes, "events": copied.events, "objects": copied.objects})
        return
    say(f"{to}: {size(copied.bytes)}, {_contents(copied.events, copied.objects)}; checked")


def _state(context: CliContext) -> Path | DatabaseUrl:
    """The state to be copied. Beside a daemon, the configuration file need not be valid."""
    with context.daemon() as daemon:
        place = state_place(context.path)
    if daemon is not None and place is not None:
        return place
    config, _ = context.load(reveal=False)
    return config.poller.state


def _contents(events: int, objects: int) -> str:
    return f"{counted(events, 'event')}, {counted(objects, 'object')}"


def _is_folder(dest: str) -> bool:
    return dest.endswith(os.sep) or Path(dest).is_dir()


def _free(path: Path) -> Path:
    """The path, with a number if there is a copy of the same second; sorted by name, copies are sorted by time."""
    names = chain([path], (path.with_stem(f"{path.stem}_{number}") for number in count(2)))
    return next(one for one in names if not one.exists())


def _make(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        hint = "create it yourself, or name a folder of yours"
        raise PollerError(f"{folder}: this folder cannot be created: {error.strerror}", hint=hint) from error


def _dump(state: DatabaseUrl, dest: str, now: float) -> str:
    """The command that copies a database beside its workers. A password in the URL is left out of it."""
    to = Path(dest)
    if _is_folder(dest):
        to /= f"poller-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.dump"
    return f"pg_dump --format=custom --file={shlex.quote(str(to))} '{state}'"


@click.command()
@click.argument("copy", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def restore(context: CliContext, copy: Path, as_json: bool) -> None:
    """Replace the state by the backup COPY, and keep the old state. The daemon must be stopped.

    The restored state is a new log: positions in the old log are refused.

    Example: poller restore /var/backups/poller/poller-20261123T220000Z.db
    """
    config, _ = context.load(reveal=False)
    state = config.poller.state
    if isinstance(state, DatabaseUrl):
        put_back = f"pg_restore --clean --if-exists --no-owner --dbname='{state}' {shlex.quote(str(copy))}"
        hint = f"with no worker running: {put_back}"
        raise PollerError(f"{state}: Poller does not restore a database", hint=hint)
    done = restoring.restore(copy, state, now=time.time())
    if as_json:
        kept = None if done.kept is None else str(done.kept)
        print_json({"events": done.events, "objects": done.objects, "kept": kept})
        return
    kept_as = "" if done.kept is None else f"; the old state is kept as {done.kept}"
    say(f"{config.poller.state}: {_contents(done.events, done.objects)} from {copy}{kept_as}")
