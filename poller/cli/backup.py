"""`poller backup`: a copy of the state, beside whoever writes to it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from poller.cli.context import CliContext
from poller.cli.output import print_json, say, size
from poller.options.problems import NotThere
from state.open import copy_state, is_there


@click.command()
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="JSON for machines.")
@click.pass_obj
def backup(context: CliContext, dest: Path, as_json: bool) -> None:
    """Copy the state to DEST, a file that is not there yet or a folder, while it is in use.

    The copy is of one moment, checked, and on disk when this ends. To go back to it: stop the daemon, move the old
    state and what stands beside it (-wal, -shm) away, and put the copy in its place. It goes on as a log of its own.

    Example: poller backup /var/backups/poller
    """
    config, _ = context.load(reveal=False)
    state, now = config.poller.state, time.time()
    if not is_there(state):
        raise NotThere(f"{state}: there is no state to copy yet", hint="poller once")
    if dest.is_dir():
        dest /= f"{state.stem}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}{state.suffix}"
    copied = copy_state(state, dest, now=now)
    if as_json:
        print_json({"path": str(dest), "bytes": copied.bytes, "events": copied.events, "objects": copied.objects})
        return
    say(f"{dest}: {size(copied.bytes)}, {copied.events} events, {copied.objects} objects; checked")
