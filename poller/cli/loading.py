"""Loading of the configuration for commands."""

from __future__ import annotations

from pathlib import Path

from poller.config.load import load
from poller.config.models import Config
from poller.hooks.loading import Plugins, load_plugins


def loaded(
    path: Path | None, *, reveal: bool, listen: str | None = None, worker: bool = False
) -> tuple[Config, Plugins]:
    """The configuration, and the plugins that it was checked against. Raises ConfigError."""
    plugins = load_plugins(lazily=not reveal, ours_lazily=True)
    return load(path, plugins, reveal=reveal, listen=listen, worker=worker), plugins
