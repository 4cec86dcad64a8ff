"""What every command gets: the path of the configuration, and ways to the daemon and the loaded configuration.

Every command imports this module, so it imports nothing expensive; modules named as text are loaded when used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from poller.cli.daemon_client import DaemonClient
    from poller.config.models import Config
    from poller.hooks.loading import Plugins


class CliContext(msgspec.Struct):
    """The path of the configuration; None if it is to be found in the usual places."""

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

    def load_file(self) -> Config:
        """The configuration on disk, for commands that show what the file means, whatever a daemon runs: then they
        warn. Raises ConfigError.
        """
        config, _ = self.load(reveal=False)
        import_module("poller.cli.daemon_client").warn_of_another(self.path)
        return config

    @contextlib.contextmanager
    def daemon(self, *, warn: bool = True) -> Iterator[DaemonClient | None]:
        """The client of the daemon that runs on the state; None if none runs.

        Warns on standard error if the daemon runs another configuration than the file because it refuses the file.
        Raises PollerError if this user may not ask the daemon.
        """
        clients = import_module("poller.cli.daemon_client")
        with clients.daemon_of(self.path) if warn else clients.quiet_daemon_of(self.path) as daemon:
            yield daemon
