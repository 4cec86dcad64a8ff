"""The error boundary of a source: an exception raised while a source is polled becomes a failed poll of that source."""

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
    """An unexpected exception, raised while a source was polled or its answer was read."""


def failed_poll(error: BaseException, *, source: str) -> PollerError | None:
    """The failed poll that an exception amounts to; None if the exception does not concern the source and must be
    raised again.

    That applies to errors of the state, which concern every source, and to cancelled tasks. Errors that a source or its
    plugin raises on purpose are returned as they are; any other exception is logged with its traceback.
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
    """The text of a failure as it is stored and shown: without secrets, of limited length, in valid Unicode."""
    return storable(redacted(str(error)), LONGEST_REASON)
