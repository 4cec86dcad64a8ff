"""Reloads of the running daemon: `poller.toml` is read and used, or everything remains unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from poller.app import App
from poller.config.models import Config, Settings
from poller.daemon.heartbeat import status_line
from poller.daemon.logs import configure
from poller.daemon.reloads import Reload, reload_of
from poller.daemon.systemd import Notifier
from poller.hooks.loading import said
from poller.operations.file_systems import REPLACED, REPLACED_HINT, was_replaced
from state.errors import PollerError

if TYPE_CHECKING:  # the daemon opens it
    from poller.web.server import HttpServer

log = structlog.get_logger("poller")


class Reloader:
    """Reloads one app, one reload at a time. `read` reads and checks the file; `resumed` is called when the app may
    have a new engine.
    """

    def __init__(
        self, app: App, *, read: Callable[[], Config], resumed: Callable[[], None], notifier: Notifier
    ) -> None:
        self._app = app
        self._read = read
        self._resumed = resumed
        self._notifier = notifier
        self._reloading = asyncio.Lock()
        self._code = _code_of(app)

    async def reload(self, http: HttpServer | None) -> None:
        """Use the current `poller.toml`. If it cannot be used, keep the old configuration and log why."""
        async with self._reloading:
            self._notifier.reloading()
            before = self._app.config.poller
            try:
                if was_replaced(self._app.config.path):
                    raise PollerError(f"{self._app.config.path}: {REPLACED}", hint=REPLACED_HINT)
                taken = reload_of(self._app.config, self._read())
                await self._take_over(taken.config, http)
            except PollerError as error:
                self._refused(str(error), error.hint)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything: its configuration is refused
                self._refused(said(error), "this is a bug, of a plugin or of Poller", exc_info=error)
            else:
                self._done(before, taken)
            self._notifier.ready(status=status_line(self._app))

    def _done(self, before: Settings, taken: Reload) -> None:
        self._app.refused = None
        settings = self._app.config.poller
        if (settings.log_level, settings.log_format) != (before.log_level, before.log_format):
            configure(settings.log_level, settings.log_format)
        self._resumed()
        changed = ", ".join(taken.changed) or "nothing"
        log.info("config.reloaded", summary=f"The configuration was reloaded; changed: {changed}.", changed=changed)
        self._warn_of_code()
        if taken.kept:
            log.warning("config.not_taken_over", keys=", ".join(taken.kept), hint="restart to change these")

    def _warn_of_code(self) -> None:
        """Log the one-file plugins that were written or removed since they were loaded: their code stays in use."""
        now = _code_of(self._app)
        changed = sorted(Path(one).name for one in now if self._code.get(one, now[one]) != now[one])
        if changed:
            log.warning("plugins.not_reloaded", files=", ".join(changed), hint="restart to take them as they are now")
        self._code = {**now, **self._code}

    async def _take_over(self, config: Config, http: HttpServer | None) -> None:
        """Run another configuration: new addresses are bound before, and served after, everything else."""
        listening = None if http is None else http.prepare(config.poller)
        try:
            await self._app.reconfigure(config)
        except BaseException:
            if listening is not None:
                listening.discard()
            raise
        if http is not None and listening is not None:
            await http.adopt(listening)

    def _refused(self, error: str, hint: str | None, **more: object) -> None:
        self._app.refused = error
        log.error("config.refused", error=error, hint=hint, runs_on="the configuration as it was", **more)
        if self._app.is_polling:
            self._resumed()  # the engine may be a new one


def _code_of(app: App) -> dict[str, float | None]:
    """The files of the loaded one-file plugins, and when each was written, in Unix seconds; None if it is gone."""
    files = [one.origin for one in app.plugins.loaded if one.origin.endswith(".py")]
    return {file: Path(file).stat().st_mtime if Path(file).is_file() else None for file in files}
