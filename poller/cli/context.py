"""What every command gets: which configuration was named, and ways to the daemon and to what the file says.

This module is imported by every command, so it imports nothing dear; what it names as text is loaded when it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poller.cli.daemon_client import DaemonClient
    from poller.config.models import Config
    from poller.hooks.loading import Plugins


@dataclass(slots=True)
class CliContext:
    """The path of the configuration; None: it is looked for in the usual places."""

    path: Path | None = None

    def load(self, *, reveal: bool = True, listen: str | None = None, worker: bool = False) -> tuple[Config, Plugins]:
        """The configuration and the plugins that it was checked against. Raises ConfigError.

        Without `reveal`, for commands that only look, a secret that cannot be read is not an error, and only the
        plugins that the file names are loaded. For a `worker` on a database, it is not an error either: other workers
        may have it.
        """
        found: tuple[Config, Plugins] = import_module("poller.cli.loading").loaded(
            self.path, reveal=reveal, listen=listen, worker=worker
        )
        return found

    @contextlib.contextmanager
    def daemon(self) -> Iterator[DaemonClient | None]:
        """The daemon that runs on the state, asked over its socket; None where none runs.

        Warns on standard error if the daemon runs another configuration than the file, because it refused the file.
        Raises PollerError if this user may not ask the daemon.
        """
        with import_module("poller.cli.daemon_client").daemon_of(self.path) as daemon:
            yield daemon
