"""`docs/cli.md`, written from the commands' own help: `python -m poller.cli.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from poller.cli import cli

PAGE: Final = Path(__file__).parents[2] / "docs" / "cli.md"
WIDTH: Final = 100

HEAD: Final = """\
# The command line

Written from `--help` by `make docs`; not by hand. Every command takes `--config FILE`; without it the configuration is
`$POLLER_CONFIG`, `./poller.toml` or `/etc/poller/poller.toml`. Data goes to standard output, the rest to standard
error. Exit status: 0 done, 1 failed, 2 called wrongly or wrongly configured, 130 interrupted by Ctrl-C. `--json` is for
machines: one document, or for lists one JSON document a line.

Commands that only read work next to a running daemon. Commands that change something are executed by the daemon if one
runs, else by the command itself. `once` and `poll` need exclusive use of the state.
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and subcommand, by the words that call it."""
    top = click.Context(cli, info_name="poller")
    for name in cli.list_commands(top):
        command = cli.get_command(top, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## poller {name}\n\n```text\n{help_of(name, one)}\n```\n" for name, one in commands())


def context_of(name: str, command: click.Command) -> click.Context:
    """The context in which `poller NAME` runs, with a fixed width."""
    top = click.Context(cli, info_name="poller", **cli.context_settings)
    return click.Context(command, parent=top, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)


def help_of(name: str, command: click.Command) -> str:
    """The output of `--help`."""
    return "\n".join(line.rstrip() for line in command.get_help(context_of(name, command)).splitlines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"wrote {PAGE}\n")
