"""The command line. A command's module is loaded only when the command is called, so that `poller --help` is quick."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import click

from poller import garbage
from poller.cli.context import CliContext
from poller.redaction import redacted
from poller.rendering.terminal import printable_lines

GROUPS: Final = {  # heading -> command: its module and its line in the list of commands
    "Begin": {
        "init": ("init", "Write a commented poller.toml."),
        "check": ("check", "Validate the configuration; --online also asks the APIs."),
        "try": ("try_", "Ask one endpoint and show what it answers."),
        "demo": ("demo", "Poll a practice API on this machine, no account needed."),
        "simulate": ("simulate", "Run this configuration on a virtual clock."),
        "new-plugin": ("new_plugin", "Write a template of a sink or source, and its test."),
    },
    "Run": {
        "run": ("run", "Poll and deliver in the foreground until stopped."),
        "once": ("sweep", "Sweep every endpoint once, deliver, and exit."),
        "poll": ("sweep", "Sweep one endpoint once, deliver, and exit."),
    },
    "Look": {
        "status": ("status", "State of budgets, endpoints and subscriptions."),
        "top": ("top", "The status on the whole terminal, kept up to date."),
        "plan": ("plan", "How often each unit is polled, and why."),
        "events": ("events", "The event log; --follow continues."),
        "deliveries": ("deliveries", "Deliveries and their attempts."),
        "show": ("events", "One object: its state and its history."),
        "ledger": ("deliveries", "Prove that the books balance."),
        "preview": ("deliveries", "What a subscription would be sent."),
        "export": ("export", "Events, changes, objects, deliveries or polls as CSV or JSON Lines."),
        "plugins": ("events", "Which plugins are loaded, and what failed."),
        "doctor": ("doctor", "What is wrong, and how to fix it."),
    },
    "Change": {
        "redeliver": ("control", "Deliver again: dead letters, or by number."),
        "replay": ("control", "Deliver events of the log again."),
        "ping": ("control", "Send a test event to a subscription."),
        "pause": ("control", "Stop delivering to a subscription."),
        "resume": ("control", "Continue delivering to a subscription, or end the pause of a budget."),
        "hold": ("control", "Record nothing of an endpoint for now."),
        "release": ("control", "End the hold of an endpoint."),
        "rebaseline": ("control", "Begin a new baseline of an endpoint, without events."),
    },
    "Keep": {
        "rename": ("renaming", "Give what is kept of a subscription or source another name."),
        "forget": ("renaming", "Forget a subscription or source that is configured no more."),
        "backup": ("backup", "Copy the state while it is in use."),
        "restore": ("backup", "Replace the state by a backup."),
        "migrate": ("migrate", "Move the state into PostgreSQL, or back."),
        "unit": ("unit", "The systemd unit of this installation; --install writes it."),
        "completion": ("manual", "Completion of commands and names for a shell."),
        "help": ("manual", "The help of a command, or the manual page."),
    },
}
COMMANDS: Final = {name: what for commands in GROUPS.values() for name, what in commands.items()}
INTERRUPTED: Final = 130


def _choose(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.ensure_object(CliContext).path = path


def _config_option() -> click.Option:
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_choose,
        help="Where poller.toml is. Default: $POLLER_CONFIG, ./poller.toml, /etc/poller/poller.toml.",
    )


@runtime_checkable
class LateCommand(Protocol):
    """A command of a plugin of which only the name and a short help are known before it is loaded."""

    def load(self) -> click.Command:
        """The command itself."""
        ...


class _Commands(click.Group):
    """Built-in commands, and those that installed plugins register."""

    _has_asked_plugins = False

    def list_commands(self, _: click.Context) -> list[str]:
        """The names of all commands, built-in ones first in their order of use."""
        return [*COMMANDS, *sorted(self._of_plugins())]

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """The loaded command of that name, or None."""
        if cmd_name not in COMMANDS:
            found = self._of_plugins().get(cmd_name)
            return found.load() if isinstance(found, LateCommand) else found
        module = COMMANDS[cmd_name][0]
        attribute = f"{cmd_name}_" if iskeyword(cmd_name) or cmd_name == "help" else cmd_name.replace("-", "_")
        import_module("poller.lean").begin()
        command = getattr(import_module(f"poller.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        if not any(option.name == "config" for option in command.params):
            command.params.append(_config_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises UsageError that names the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = get_close_matches(args[0].lower(), self.list_commands(ctx), n=1)
            hint = f": did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command. An option without its value, of which click knows no context, gets that of the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is None and ctx.invoked_subcommand is not None:
                error.ctx = click.Context(self, info_name=ctx.invoked_subcommand, parent=ctx)
            raise

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, without loading the built-in ones."""
        groups = {heading: [(name, what) for name, (_, what) in found.items()] for heading, found in GROUPS.items()}
        others = sorted(self._of_plugins().items())
        if others:
            groups["Of plugins"] = [(name, command.get_short_help_str(limit=60)) for name, command in others]
        width = max(len(name) for rows in groups.values() for name, _ in rows)
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), what) for name, what in rows])

    def _of_plugins(self) -> dict[str, click.Command]:
        if not self._has_asked_plugins:
            self._has_asked_plugins = True
            import_module("poller.cli.plugin_commands").add_commands(self)
        return {name: command for name, command in self.commands.items() if name not in COMMANDS}


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    params=[_config_option()],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="poller")
@click.pass_context
def cli(context: click.Context) -> None:
    """Poller gives webhooks to APIs that have none.

    Five minutes: poller demo. Your own API: poller init, poller check --online, poller run.
    """
    context.ensure_object(CliContext)
    if context.invoked_subcommand is None:
        click.echo(printable_lines(context.get_help()))


def main() -> None:
    """The console script."""
    garbage.look_seldom()
    _prepare_streams()
    status = invoke()
    garbage.keep_all()  # the end of the process looks for garbage once more
    if "poller.hooks.faults" in sys.modules:  # plugins' code may have run
        import_module("poller.cli.process").end_process(status)
    sys.exit(status)


def _prepare_streams() -> None:
    """Write to nowhere what goes to a stream that the shell has closed (`>&-`), for which Python has None; escape what
    the terminal's charset lacks; and let no poll or delivery fail because a line cannot be written to standard error.
    """
    given = sys.stderr
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(given, io.TextIOWrapper):
        sys.stderr = _Lossy(given.buffer, encoding=given.encoding, errors="backslashreplace", line_buffering=True)


class _Lossy(io.TextIOWrapper):
    """A stream that loses what cannot be written: its disk is full, or its reader has gone.

    Secrets are masked, also in what Python writes by itself: tracebacks of a plugin's threads, and warnings.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(redacted(text))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()

    def close(self) -> None:
        """Keep it open, because a log line that cannot be written would end the daemon: a plugin may call this."""
        self.flush()


def invoke(words: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process. Returns its exit status: 0 done, 1 failed, 2 called
    wrongly.
    """
    try:
        result = cli.main(words, prog_name="poller", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "poller"
        text = error.format_message()
        for clicks, ours in (("a valid integer range", "a whole number"), ("a valid float range", "a number")):
            text = text.replace(clicks, ours)
        return _failed(text, None if text.endswith("?") else f"see {path} --help", status=2)
    except click.ClickException as error:
        return _failed(error.format_message(), None, status=1)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the reader has gone: keep the exit silent as well
        return 1
    except Exception as error:  # noqa: BLE001 - ours are said in one line; `complain` raises any other
        status: int = import_module("poller.cli.failures").complain(error)
        return status
    return result if isinstance(result, int) else 0


def _failed(text: str, hint: str | None, *, status: int) -> int:
    found: int = import_module("poller.cli.failures").tell(text, hint, status=status)
    return found
