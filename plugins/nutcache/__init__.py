"""Nutcache: a source for its web API, and a strict local server of the same API (`poller sandbox`)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import click

from plugins.nutcache.source import NutcacheSource
from poller import Source, hookimpl


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Bring the source `nutcache`."""
    register("nutcache", NutcacheSource)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `poller sandbox`. Loaded by name: a source alone neither needs nor pays for the server."""
    cli.add_command(import_module("plugins.nutcache.sandbox.command").sandbox)
