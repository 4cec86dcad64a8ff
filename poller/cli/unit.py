"""`poller unit`: the systemd unit that belongs to this installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from poller.cli.output import say, say_lines
from state.errors import PollerError

UNIT: Final = "etc/systemd/system/poller.service"
OTHERS: Final[Mapping[str, str]] = {  # beside the unit, by their path
    "etc/sysusers.d/poller.conf": 'u poller - "Poller" /var/lib/poller\n',
    "etc/tmpfiles.d/poller.conf": "d /etc/poller 0750 root poller\n",
}
AFTERWARDS: Final = (  # what makes systemd know of the files: each is left out where it is not installed
    ("systemd-sysusers", "/etc/sysusers.d/poller.conf"),
    ("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/poller.conf"),
    ("systemctl", "daemon-reload"),
)
CLOSED: Final = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))
ELSEWHERE: Final = "python3 -m venv /opt/poller, and install Poller into it"
STANDARD: Final = "ExecStart=/usr/local/bin/poller run"


@click.command()
@click.option("--install", is_flag=True, help="Write the unit to /etc, and create the user and folder that it needs.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Install below this folder instead of /, and run nothing: for packages.",
)
def unit(install: bool, root: Path | None) -> None:
    """Print the systemd unit of this installation, or with --install write it.

    --install also creates the user `poller` and the folder /etc/poller, which root writes and the group poller reads.
    It starts nothing: write /etc/poller/poller.toml, then enable the unit.

    Example: poller unit --install
    """
    program = _program()
    text = unit_of(program)
    if any(program.resolve().is_relative_to(folder) for folder in CLOSED):
        say(f"Warning: {program} is in a folder that the unit closes to the service; {ELSEWHERE}", err=True)
    if not install and root is None:
        say_lines(text.rstrip())
        return
    written = {UNIT: text, **OTHERS}
    _write(written, root or Path("/"))
    if root is not None:
        say(f"wrote {', '.join(str(root / name) for name in written)}", err=True)
        return
    for words in AFTERWARDS:
        _run(words)
    config = "/etc/poller/poller.toml"
    say(f"wrote /{UNIT}; next: poller init --config {config}, then systemctl enable --now poller", err=True)


def unit_of(program: Path) -> str:
    """The unit that starts this program."""
    text = files("poller.cli").joinpath("files/poller.service").read_text(encoding="utf-8")
    assert STANDARD in text
    return text.replace(STANDARD, f"ExecStart={program} run")


def _program() -> Path:
    """The `poller` that was called; where it was called as a module, the one beside this Python."""
    called = Path(shutil.which(sys.argv[0]) or sys.argv[0])
    program = called if called.name == "poller" else Path(sys.executable).with_name("poller")
    if " " in str(program) or "%" in str(program):
        raise PollerError(f"{program}: a unit cannot name a program with such a path", hint="install it elsewhere")
    return program.absolute()


def _write(texts: Mapping[str, str], root: Path) -> None:
    try:
        for name, text in texts.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
    except OSError as error:
        who = "as root: sudo poller unit --install" if os.geteuid() else "is the folder writable?"
        raise PollerError(f"{error.filename}: cannot be written: {error.strerror}", hint=who) from error


def _run(words: tuple[str, ...]) -> None:
    program = shutil.which(words[0])
    if program is None:
        say(f"Warning: {words[0]} is not installed: run `{' '.join(words)}` where it is", err=True)
        return
    ran = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
    if ran.returncode:
        why = " ".join((ran.stderr or ran.stdout).split())
        raise PollerError(f"`{' '.join(words)}` failed: {why}", hint="run it by hand")
