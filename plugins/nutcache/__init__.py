"""Nutcache: a source for its web API, and a strict local server of the same API (`poller sandbox`)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import click

from plugins.nutcache.source import NutcacheSource
from poller import Source, hookimpl


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Bring the source `nutcache`."""
    register("nutcache", NutcacheSource)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `poller sandbox`. Its server is imported here, so that nothing else pays for it."""
    if find_spec("plugins.nutcache.sandbox_command"):
        from plugins.nutcache.sandbox_command import sandbox  # type: ignore[import-not-found, unused-ignore]

        cli.add_command(sandbox)
