"""`poller help` and `completion`: the help of a command, the manual page, and shell completion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click
from click.shell_completion import get_completion_class

from poller.cli.output import say_lines

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_POLLER_COMPLETE"
HEAD: Final = """\
.TH POLLER 1
.SH NAME
poller \\- webhooks for APIs that have none
.SH SYNOPSIS
.B poller
[\\fB\\-\\-config\\fR \\fIFILE\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]
.SH DESCRIPTION
Poller polls APIs within their rate limits, records what was created, updated and deleted in an ordered log, and
delivers it.
"""
TAIL: Final = """\
.SH FILES
.I ./poller.toml
or
.I /etc/poller/poller.toml
.SH ENVIRONMENT
.B POLLER_CONFIG
names the configuration,
.B POLLER_STATE
the state where no file does.
.SH EXIT STATUS
0 done, 1 failed, 2 called wrongly or wrongly configured, 130 interrupted.
"""


def _commands(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Completes the names of commands."""
    top = context.find_root()
    assert isinstance(top.command, click.Group)
    return [name for name in top.command.list_commands(top) if name.startswith(incomplete)]


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...", shell_complete=_commands)
@click.option("--man", is_flag=True, help="Print the manual page instead, for man(1).")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...], man: bool) -> None:
    """Show the help of a command, or of all commands.

    Example: poller help deliveries show

    Example: poller help --man
    """
    top = context.find_root()
    if man:
        say_lines(page(top).rstrip("\n"))
        return
    found, within = top.command, top
    for word in words:
        inner = found.get_command(within, word) if isinstance(found, click.Group) else None
        if inner is None:
            raise click.UsageError(f"there is no command {' '.join(words)!r}", top)
        found, within = inner, click.Context(inner, parent=within, info_name=word)
    say_lines(found.get_help(within))


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion of commands, options and names for a shell.

    Write it where the shell looks for completions: /etc/bash_completion.d/poller, a file _poller in a folder of zsh's
    $fpath, ~/.config/fish/completions/poller.fish.

    Example: poller completion bash
    """
    cls = get_completion_class(shell)
    assert cls is not None
    say_lines(cls(context.find_root().command, {}, "poller", VARIABLE).source())


def page(top: click.Context) -> str:
    """The manual page."""
    return HEAD + ".SH COMMANDS\n" + "".join(_entries(top)) + TAIL


def _entries(group: click.Context, before: str = "") -> Iterator[str]:
    """The commands of a group with their options, and then those within them."""
    assert isinstance(group.command, click.Group)
    for name in group.command.list_commands(group):
        command = group.command.get_command(group, name)
        if command is None:
            continue
        context = click.Context(command, parent=group, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context))
        words = f"{before}{name}"
        yield f".TP\n\\fB{_plain(words)}\\fR {_plain(usage)}\n{_plain(' '.join((command.help or '').split()))}\n"
        for option in command.params:
            if isinstance(option, click.Option) and option.help and option.name != "config":
                value = "" if option.is_flag else f" \\fI{_plain(option.make_metavar(context))}\\fR"
                yield f".RS\n.TP\n\\fB{_plain(', '.join(option.opts))}\\fR{value}\n{_plain(option.help)}\n.RE\n"
        if isinstance(command, click.Group):
            yield from _entries(context, f"{words} ")


def _plain(text: str) -> str:
    """Text without roff markup."""
    escaped = text.replace("\\", "\\\\").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in ".'" else escaped
