"""Nutcache: a source for its web API, and a strict local server of the same API (`poller sandbox`)."""

from __future__ import annotations

from collections.abc import Callable

import click

from plugins.nutcache.source import NutcacheSource
from poller import Source, hookimpl


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Bring the source `nutcache`."""
    register("nutcache", NutcacheSource)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `poller sandbox`. Its server is imported here, so that the source does not pay for it."""
    from plugins.nutcache.sandbox_command import sandbox

    cli.add_command(sandbox)
