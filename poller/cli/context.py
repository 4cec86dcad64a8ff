"""What the command line was told before its command: which configuration."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
import structlog

from poller.cli.daemon_client import DaemonClient, connected
from poller.config.load import digest_of, find, load
from poller.config.models import Config
from poller.config.state_place import state_place
from poller.hooks.loading import Plugins, load_plugins
from poller.options.problems import ConfigError
from poller.rendering.terminal import printable


@dataclass(slots=True)
class CliContext:
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

    @contextlib.contextmanager
    def daemon(self) -> Iterator[DaemonClient | None]:
        """The daemon that runs on the state, asked over its socket; None where none does.

        Says on standard error where the file on disk is not what it could run. Raises PollerError where this user
        may not ask it.
        """
        state = state_place(self.path)
        if state is None:
            yield None
            return
        with connected(state) as daemon:
            if daemon is not None:
                self._warn_of_refusal(daemon)
            yield daemon

    def _warn_of_refusal(self, daemon: DaemonClient) -> None:
        running = daemon.get("/api/v1/configuration")
        try:
            file = find(self.path)
            if digest_of(file) in ("", running["digest"]):  # it is the same, or not for this user to read
                return
            self.load(reveal=False)
        except ConfigError as error:
            read_at = datetime.fromisoformat(running["read_at"]).astimezone()
            today = datetime.now(read_at.tzinfo).date()
            shown = f"{read_at:%H:%M}" if read_at.date() == today else f"{read_at:%Y-%m-%d %H:%M}"
            first = error.problems[0]
            why = f"{first.key}: {first.what}" if first.key else first.what
            text = f"{error.file}: refused ({why}); the daemon runs the one of {shown}"
            click.echo(printable(text), err=True)
