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


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.option("--man", is_flag=True, help="Print the manual page instead, for man(1).")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...], man: bool) -> None:
    """Show the help of a command, or of all commands.

    Example: poller help deliveries show
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

    Example: poller completion bash
    """
    cls = get_completion_class(shell)
    assert cls is not None
    say_lines(cls(context.find_root().command, {}, "poller", VARIABLE).source())


def page(top: click.Context) -> str:
    """The manual page."""
    return HEAD + ".SH COMMANDS\n" + "".join(_entries(top)) + TAIL


def _entries(top: click.Context) -> Iterator[str]:
    group = top.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(top):
        command = group.get_command(top, name)
        if command is None:
            continue
        usage = " ".join(command.collect_usage_pieces(click.Context(command, parent=top, info_name=name)))
        yield f".TP\n\\fB{_plain(name)}\\fR {_plain(usage)}\n{_plain(' '.join((command.help or '').split()))}\n"
        for option in command.params:
            if isinstance(option, click.Option) and option.help and option.name != "config":
                yield f".RS\n.TP\n\\fB{_plain(', '.join(option.opts))}\\fR\n{_plain(option.help)}\n.RE\n"


def _plain(text: str) -> str:
    """Text without roff markup."""
    escaped = text.replace("\\", "\\\\").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in ".'" else escaped
