"""Loading of the configuration for commands."""

from __future__ import annotations

import logging
from pathlib import Path

import structlog

from poller.config.load import load
from poller.config.models import Config
from poller.hooks.loading import Plugins, load_plugins


def loaded(
    path: Path | None, *, reveal: bool, listen: str | None = None, worker: bool = False
) -> tuple[Config, Plugins]:
    """The configuration, and the plugins that it was checked against. Raises ConfigError."""
    if not structlog.is_configured():  # only the daemon and `once` log; other commands print
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    plugins = load_plugins(lazily=not reveal, ours_lazily=True)
    return load(path, plugins, reveal=reveal, listen=listen, worker=worker), plugins
