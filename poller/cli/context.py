"""What the command line was told before its command: which configuration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import structlog

from poller.config.load import load
from poller.config.models import Config
from poller.hooks.loading import Plugins, load_plugins


@dataclass(slots=True)
class Chosen:
    """Where the configuration is; None: where it is looked for."""

    path: Path | None = None

    def load(self, *, reveal: bool = True) -> tuple[Config, Plugins]:
        """The configuration and the plugins that it was checked against. Raises ConfigError.

        Without `reveal` it is for commands that only look: secrets that are not there are no error, and only the
        plugins that it names are loaded.
        """
        if not structlog.is_configured():  # only the daemon and `once` have a log; others print what there is to say
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        plugins = load_plugins(lazily=not reveal)
        return load(self.path, plugins, reveal=reveal), plugins
