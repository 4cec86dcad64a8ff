"""The end of the log as this worker knows it, held against what the database has after an outage."""

from __future__ import annotations

import structlog

from poller.app import App
from poller.hooks.payloads import Polled

log = structlog.get_logger("poller")


class LogEnd:
    """The highest number that this worker has seen in the log.

    A database that failed over to a replica that was behind, or was restored, has lost the end of its log: it will give
    the lost numbers again, to other events. So the log gets a new id, and whoever reads on from a number of the log as
    it was is told so (410).
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._known = 0
        self._seen = 0  # where it ended at the latest look
        app.news.poll_ears.append(self._polled)

    async def look(self) -> bool:
        """Read the current end of the log, whoever wrote it. Returns whether it has grown since the last call."""
        known = self._seen
        self._seen = await self._app.write(self._app.store.log.last_seq)
        self._known = max(self._known, self._seen)
        return self._seen != known

    async def compare(self) -> None:
        """After an outage: begin a new log where the end of the one that was known is gone."""
        last = await self._app.write(self._app.store.log.begin_anew_if_cut, self._known)
        if last is not None:
            hint = "the database failed over to a replica that was behind, or was restored: readers begin anew"
            log.error("log.cut", known=self._known, last=last, hint=hint)
            self._known = last

    def _polled(self, poll: Polled) -> None:
        self._known = max(self._known, *poll.events, 0)
