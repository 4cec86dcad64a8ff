"""The daemon's regular jobs: posted commands, saving what planners learned, stalls, the heartbeat, purges, the
journal.
"""

from __future__ import annotations

from typing import Final

from poller.app import App
from poller.daemon.heartbeat import beat
from poller.daemon.journal import Journal
from poller.daemon.timers import Timers
from poller.operations.commands import run_posted
from poller.operations.program import Program
from poller.operations.retention import purge

COMMANDS_EVERY: Final = 0.5  # seconds
TELL_EVERY: Final = 1.0  # seconds between two reads of new notices
WATCH_EVERY: Final = 30.0
MINUTE: Final = 60.0
PURGE_EVERY: Final = 1800.0
HOUR: Final = 3600.0


class Upkeep:
    """The regular jobs of one app."""

    def __init__(self, app: App) -> None:
        self._app = app

    def begin(self, timers: Timers, program: Program) -> None:
        """Schedule every job."""
        journal = Journal(program)
        journal.open()
        timers.every(COMMANDS_EVERY, "commands", self.do_commands)
        timers.every(MINUTE, "save what was learned", self._save)
        timers.every(WATCH_EVERY, "watch for stalls", self._watch)
        timers.every(MINUTE, "heartbeat", self._beat)
        timers.every(PURGE_EVERY, "purge", self.purge)
        timers.every(TELL_EVERY, "tell notices", journal.tell_notices)
        timers.every(HOUR, "sum up the hour", journal.sum_up)

    async def do_commands(self) -> None:
        """Execute posted commands, and save the times of polls, so that other readers of the state are half a second
        behind.
        """
        await run_posted(self._app)
        await self._app.engine.keeper.save_times()

    async def purge(self) -> None:
        """Delete events older than the retention, and calls that no window counts any more."""
        await purge(self._app)

    async def _save(self) -> None:
        await self._app.engine.keeper.save()

    async def _watch(self) -> None:
        await self._app.engine.watch.check()

    async def _beat(self) -> None:
        if self._app.is_well and self._app.refused is None:
            await beat(self._app)
