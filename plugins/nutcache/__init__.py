"""Nutcache: a source for its web API, and a strict local server of the same API (`poller sandbox`).

Modules are imported when a hook needs them: `poller --help` names the sandbox without loading the server.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import click

from poller import hookimpl

if TYPE_CHECKING:
    from poller import Source


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Register the source `nutcache`."""
    register("nutcache", import_module("plugins.nutcache.source").NutcacheSource)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `poller sandbox`."""
    cli.add_command(_Sandbox("sandbox", short_help="Run the strict local Nutcache server alone."))


class _Sandbox(click.Command):
    """The command's name. The command itself is loaded when it is called."""

    def load(self) -> click.Command:
        """The command, loaded now."""
        command: click.Command = import_module("plugins.nutcache.sandbox.command").sandbox
        return command
