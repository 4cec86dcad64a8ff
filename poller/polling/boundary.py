"""The boundary of one source: whatever is raised while it is asked is its own failed poll, and nobody else's end."""

from __future__ import annotations

from typing import Final

import structlog

from poller.hooks.faults import said
from poller.redaction import redacted
from poller.sinks.text import storable
from poller.sources.protocol import PageError
from state.errors import PollerError, StateError

log = structlog.get_logger("poller")

LONGEST_REASON: Final = 2000  # bytes of a failure's text that are kept


class Unexpected(PageError):
    """An exception that nobody foresaw, raised while a source was asked or its answer was read."""


def failed_poll(error: BaseException, *, source: str) -> PollerError | None:
    """The failure of a poll that an exception means. None: it is not the source's, and must be raised again.

    That is so for errors of the state, which concern every source, and for a cancelled task. What a source or its
    plugin has raised by name passes as it is; anything else is logged with its traceback.
    """
    is_of_state = isinstance(error, StateError) or type(error).__module__.partition(".")[0] in ("sqlite3", "psycopg")
    if is_of_state or not isinstance(error, Exception):
        return None
    if isinstance(error, PollerError):
        return error
    log.error("poll.raised", source=source, exc_info=error)
    return Unexpected(
        f"asking {source} or reading its answer raised {said(error)}",
        hint="nothing of the answer was recorded; the log has the traceback, which makes a useful bug report",
    )


def reason_of(error: PollerError) -> str:
    """The text of a failure as it is kept and shown: without our secrets, of limited length, valid Unicode."""
    return storable(redacted(str(error)), LONGEST_REASON)
