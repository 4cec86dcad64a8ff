"""The command line. Each command's module is loaded when it is called, so that `poller --help` is quick."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from poller.cli.chosen import Chosen
from poller.problems import ConfigError
from state.errors import PollerError

COMMANDS: Final = {
    "init": "starting",
    "check": "starting",
    "run": "running",
    "once": "running",
    "poll": "running",
    "status": "looking",
    "plan": "plan",
    "events": "looking",
    "deliveries": "deliveries",
    "plugins": "looking",
    "show": "looking",
    "ledger": "deliveries",
    "preview": "deliveries",
    "redeliver": "changing",
    "replay": "changing",
    "ping": "changing",
    "pause": "changing",
    "resume": "changing",
    "hold": "changing",
    "release": "changing",
    "rebaseline": "changing",
    "simulate": "simulate",
    "demo": "demo",
}


def _choose(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.ensure_object(Chosen).path = path


def _config_option() -> click.Option:
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_choose,
        help="Where poller.toml is. Default: $POLLER_CONFIG, ./poller.toml, /etc/poller/poller.toml.",
    )


class _Commands(click.Group):
    """Our commands, and those that installed plugins register."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Every command's name, ours in the order in which they are met."""
        return [*COMMANDS, *sorted(self._of_plugins())]

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded; None where there is none of that name."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return self._of_plugins().get(cmd_name)
        command = getattr(importlib.import_module(f"poller.cli.{module}"), cmd_name)
        assert isinstance(command, click.Command)
        if not any(option.name == "config" for option in command.params):
            command.params.append(_config_option())
        return command

    def _of_plugins(self) -> dict[str, click.Command]:
        if not self.commands:
            from poller.loading import load_plugins

            load_plugins().call("register_commands", cli=self)
        return {name: command for name, command in self.commands.items() if name not in COMMANDS}


@click.group(cls=_Commands, params=[_config_option()], context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="poller")
@click.pass_context
def cli(context: click.Context) -> None:
    """Poller gives webhooks to APIs that have none.

    Five minutes: poller demo. Your own API: poller init, poller check --online, poller run.
    """
    context.ensure_object(Chosen)


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 wrong usage or configuration."""
    sys.exit(_status(lambda: cli.main(standalone_mode=False)))


def _status(run: Callable[[], Any]) -> int:
    try:
        result = run()
    except click.UsageError as error:
        error.show()
        return 2
    except ConfigError as error:
        _complain(error)
        return 2
    except PollerError as error:
        _complain(error)
        return 1
    except click.ClickException as error:
        error.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no complaint at exit either
        return 1
    return result if isinstance(result, int) else 0


def _complain(error: PollerError) -> None:
    for line in str(error).splitlines():
        click.echo(f"Error: {line}", err=True)
    if error.hint:
        click.echo(f"Try:   {error.hint}", err=True)
